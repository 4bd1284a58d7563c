"""What the embedded corpora share: the folder that is made once, and the sound font that they are played with."""

import functools
import hashlib
import io
import shutil
import wave
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from espnet2_ext.audio.read import resample
from espnet2_ext.data.synth.score import Score
from espnet2_ext.errors import DataError
from espnet2_ext.util.files import made, make_once, read_record, write_record
from espnet2_ext.util.parallel import map_parts

LOUDNESS = (-30.0, -12.0)  # dB of full scale, RMS of a clip
PEAK = 0.97


def make_corpus(
    root: Path,
    settings: dict,
    folders: Iterable[str],
    fn: Callable[[Sequence, Path], None],
    items: Sequence,
    part_size: int,
    finish: Callable[[list[Path]], None] = lambda parts: None,
    check: Callable[[], object] | None = None,
    **work,
) -> Path:
    """Make an embedded corpus in folder `root`, unless it is up to date.

    Each sound must depend on the settings, the seed among them, and its own place only: then the same settings give the
    same bytes, however many processes work. `settings.json` is written first, so that a stopped call resumes, and
    `done.json` last.

    Args:
        settings: what decides every byte.
        folders: those in `root` that are cleared when other settings made them.
        fn: writes the sounds of some items, and what `finish` needs to the path of their part; see `map_parts`, which
            takes `items`, `part_size` and `work` too.
        finish: writes the tables of the corpus, from the parts.
        check: reports a missing package, before anything is removed; None: `load_synthesizer`.

    Returns:
        `root`.

    Raises:
        DataError: a missing package, or a `root` with other files.
    """
    done, begun = root / "done.json", root / "settings.json"
    if begun.is_file() and not read_record(begun):
        raise DataError(f"{begun}: not JSON; remove the folder to make it anew")
    if not begun.is_file() and root.exists() and (not root.is_dir() or any(p.name != ".lock" for p in root.iterdir())):
        raise DataError(f"{root}: holds files that are not from here; name a new folder")
    if made(done, settings) is None:
        (check or load_synthesizer)()

    def make() -> None:
        if made(begun, settings) is None:
            for folder in (*folders, "parts"):
                shutil.rmtree(root / folder, ignore_errors=True)
            write_record(begun, settings)
        finish(map_parts(fn, items, root / "parts", part_size=part_size, desc="sounds", **work))
        shutil.rmtree(root / "parts")

    make_once(done, settings, make)
    return root


def rng_of(*facts) -> np.random.Generator:
    """A generator that depends on plain values, by the digest of their text."""
    key = hashlib.blake2b(repr(facts).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(key, "little"))


@functools.cache
def load_synthesizer():
    """The renderer's function and the sound font's bytes, once a process.

    Raises:
        DataError: naming the missing package or sound font.
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


@functools.lru_cache(maxsize=2)
def _read_font(path: Path) -> bytes:
    return path.read_bytes()


def play_instrument(instrument, font: Path | None = None) -> tuple[np.ndarray, int]:
    """Play a `pretty_midi.Instrument`: int16 [T, C], and its rate in Hz. `font`: None: the one in pretty_midi."""
    import pretty_midi

    midi = pretty_midi.PrettyMIDI(resolution=480)
    midi.instruments.append(instrument)
    file = io.BytesIO()
    midi.write(file)
    play, own = load_synthesizer()
    with wave.open(io.BytesIO(play(_read_font(font) if font else own, file.getvalue()))) as sound:
        pcm = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
        return pcm.reshape(-1, sound.getnchannels()), sound.getframerate()


def play_score(score: Score, font: Path | None = None) -> tuple[np.ndarray, int]:
    """Play a score, as `play_instrument`: float32 [T, C], full scale 1.0, and its rate in Hz."""
    import pretty_midi

    instrument = pretty_midi.Instrument(score.program, is_drum=score.drum)
    instrument.notes = [pretty_midi.Note(n.velocity, n.key, n.start, n.end) for n in score.notes]
    instrument.control_changes = [pretty_midi.ControlChange(c.number, c.value, c.time) for c in score.controls]
    bend = round(8191 * score.cents / 200)  # General MIDI bends by two semitones at most
    instrument.pitch_bends = [pretty_midi.PitchBend(bend, 0.0)]
    pcm, fs = play_instrument(instrument, font)
    return pcm.astype(np.float32) / 32768, fs


def play_mono(score: Score, seconds: float, fs: int, font: Path | None = None) -> np.ndarray:
    """Play a score: float32 [T], mono at `fs` Hz, T = seconds * fs.

    Raises:
        DataError: the font has no sound for it.
    """
    x, rate = play_score(score, font)
    x = resample(x.mean(axis=1), rate, fs)[: round(seconds * fs)]
    if not x.any():
        raise DataError(f"the sound font is silent for program {score.program}")
    return np.pad(x, (0, round(seconds * fs) - len(x)))


def at_random_level(x: np.ndarray, fs: int, rng: np.random.Generator) -> np.ndarray:
    """A clip [T] with its end faded out in 10 ms, at a level from `LOUDNESS` unless its peaks forbid it."""
    x[-fs // 100 :] *= np.linspace(1, 0, fs // 100, dtype=np.float32)
    gain = 10 ** (rng.uniform(*LOUDNESS) / 20) / np.sqrt(np.mean(x**2))
    return x * np.float32(min(gain, PEAK / np.abs(x).max()))
