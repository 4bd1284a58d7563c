"""The sound font that the embedded corpora are played with."""

import functools
import io
import wave
from pathlib import Path

import numpy as np

from espnet2_ext.data.synth.score import Score
from espnet2_ext.errors import DataError


@functools.cache
def load_synthesizer():
    """The renderer's function and the sound font's bytes, once a process.

    Raises:
        DataError: naming the package, or the sound font, that is not there.
    """
    try:
        import midirenderer
        import pretty_midi
    except ImportError as e:
        raise DataError(f"the embedded corpus needs {e.name}: pip install {e.name}") from e
    font = Path(pretty_midi.__file__).with_name("TimGM6mb.sf2")
    if not font.is_file():
        raise DataError(f"{font}: no sound font; pip install --force-reinstall pretty_midi")
    return midirenderer.render_wave_from, font.read_bytes()


def play_instrument(instrument) -> tuple[np.ndarray, int]:
    """Play a `pretty_midi.Instrument`: int16 [T, C], and its rate in Hz."""
    import pretty_midi

    midi = pretty_midi.PrettyMIDI(resolution=480)
    midi.instruments.append(instrument)
    file = io.BytesIO()
    midi.write(file)
    play, font = load_synthesizer()
    with wave.open(io.BytesIO(play(font, file.getvalue()))) as sound:
        pcm = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
        return pcm.reshape(-1, sound.getnchannels()), sound.getframerate()


def play_score(score: Score) -> tuple[np.ndarray, int]:
    """Play a score: float32 [T, C], full scale 1.0, and its rate in Hz."""
    import pretty_midi

    instrument = pretty_midi.Instrument(score.program, is_drum=score.drum)
    instrument.notes = [pretty_midi.Note(n.velocity, n.key, n.start, n.end) for n in score.notes]
    instrument.control_changes = [pretty_midi.ControlChange(c.number, c.value, c.time) for c in score.controls]
    bend = round(8191 * score.cents / 200)  # General MIDI bends by two semitones at most
    instrument.pitch_bends = [pretty_midi.PitchBend(bend, 0.0)]
    pcm, fs = play_instrument(instrument)
    return pcm.astype(np.float32) / 32768, fs
