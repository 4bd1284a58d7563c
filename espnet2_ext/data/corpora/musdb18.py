"""Reader of MUSDB18 in both of its layouts: the songs of `ROOT/train` and `ROOT/test`.

    ROOT/train/SONG.stem.mp4                              MUSDB18, five AAC streams a file
    ROOT/train/SONG/{mixture,bass,drums,vocals,other}.wav   MUSDB18-HQ

Each stem of each song is a clip, `SONG.STEM`, with the stem's name as its class; the songs' own
mixtures are not used (a mixture is the sum of its stems). Stem files are decoded once, to FLAC
files of the rate in use; WAV files are named as they are, and the archive stage resamples them.
Rafii et al., "The MUSDB18 corpus for music separation", 2017, doi 10.5281/zenodo.1117372.
"""

import argparse
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.audio.flac import encode_flac, to_int16
from espnet2_ext.audio.optional import SUFFIX, read_mono_stems
from espnet2_ext.data.corpora.corpus import Corpus, Step, counted, named_labels, rank, table_text, write_lists
from espnet2_ext.data.mixtures.from_songs import SongSettings, make_song_table
from espnet2_ext.data.tables import Clip
from espnet2_ext.errors import DataError
from espnet2_ext.util.files import atomic_path
from espnet2_ext.util.names import safe_id, unique
from espnet2_ext.util.parallel import map_parts

CLASSES = ("bass", "drums", "vocals")  # the three of Pishdadian et al., "Finding Strength ..."
OTHER = ("none", "class", "unlabelled")
# The songs that the corpus' own tools hold out for validation; with them the paper's 86 and 14.
VALIDATION = frozenset(
    (
        "ANiMAL - Rockshow|Actions - One Minute Smile|Alexander Ross - Goodbye Bolero|"
        "Clara Berry And Wooldog - Waltz For My Victims|Fergessen - Nos Palpitants|James May - On The Line|"
        "Johnny Lokke - Promises & Lies|Leaf - Summerghost|Meaxic - Take A Step|Patrick Talbot - A Reason To Leave|"
        "Skelpolu - Human Mistakes|Traffic Experiment - Sirens|Triviul - Angelsaint|Young Griffo - Pennies"
    ).split("|")
)


class Song(NamedTuple):
    """A song: its name, the identifier made of it, and its folder or stem file."""

    name: str
    id: str
    path: Path


def prepare_musdb18(
    root: str | os.PathLike,
    data_dir: str | os.PathLike,
    *,
    other: str = "none",
    decoded: str | os.PathLike = "dump/stems",
    fs: int = 16000,
    valid_share: float = 0.14,
    seed: int = 0,
    **work,
) -> dict[str, int]:
    """Write `data_dir/labels.tsv` and `data_dir/{train,valid,test}/clips.tsv`.

    Args:
        root: folder of MUSDB18 or MUSDB18-HQ.
        other: what the stem of that name is: "none": left out; "class": a class of its own;
            "unlabelled": sound of no labelled class (a clip without labels).
        decoded: where the sounds of stem files go, `decoded/SONG/STEM.flac` at `fs` Hz, mono.
        valid_share, seed: of the training songs, see `hold_out`.
        work: `num_workers` and `scheduler` of `map_parts`, for decoding.

    Returns:
        Songs of each set. A missing stem gets an empty source, which the scan calls missing.

    Raises:
        DataError: no such folders or no songs in them, a stem file that cannot be decoded, a set without a song.
    """
    if other not in OTHER:
        raise DataError(f"other must be one of {', '.join(OTHER)}, not {other!r}")
    found = find_songs(root)
    sets = dict(zip(("train", "valid"), hold_out(found["train"], valid_share, seed)))
    sets["test"] = found["test"]
    if empty := [name for name, songs in sets.items() if not songs]:
        raise DataError(f"{root}: no song for {', '.join(empty)}")
    stems = CLASSES if other == "none" else (*CLASSES, "other")
    files = [s for songs in sets.values() for s in songs if s.path.is_file()]
    if files:
        _decode_all(files, (*CLASSES, "other"), Path(decoded), fs, **work)
    names = CLASSES if other != "class" else stems
    lists = {
        name: sorted(_clip(song, stem, names, Path(decoded)) for song in songs for stem in stems)
        for name, songs in sets.items()
    }
    write_lists(data_dir, named_labels(names), lists)
    return {name: len(songs) for name, songs in sets.items()}


def find_songs(root: str | os.PathLike) -> dict[str, list[Song]]:
    """The songs of `ROOT/train` and `ROOT/test`, by name; a song in both layouts counts as HQ.

    Raises:
        DataError: a missing folder, or no song in it; a song in both folders.
    """
    found = {part: _songs_of(Path(root) / part) for part in ("train", "test")}
    if both := found["train"].keys() & found["test"].keys():
        raise DataError(f"{root}: song {min(both)!r} is in train and in test")
    names = [name for songs in found.values() for name in songs]
    ids = dict(zip(names, unique(map(safe_id, names))))
    return {part: [Song(n, ids[n], p) for n, p in s.items()] for part, s in found.items()}


def _songs_of(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder (MUSDB18 has the folders train and test)")
    songs = {p.name.removesuffix(SUFFIX): p for p in folder.glob(f"*{SUFFIX}") if p.is_file()}
    songs |= {p.parent.name: p.parent for s in CLASSES for p in folder.glob(f"*/{s}.wav")}
    songs = {name: path for name, path in songs.items() if not name.startswith(".")}
    if not songs:
        raise DataError(f"{folder}: neither SONG{SUFFIX} nor SONG/{CLASSES[0]}.wav in it")
    return dict(sorted(songs.items()))


def hold_out(songs: Sequence[Song], share: float, seed: int) -> tuple[list[Song], list[Song]]:
    """Songs for training and for validation.

    Where all 14 of `VALIDATION` are among them, those are held out. Of other songs the given share is,
    rounded, at least one: those whose names come first by a hash of seed and name.

    Raises:
        DataError: a share that leaves no song for training.
    """
    held = {s.name for s in songs if s.name in VALIDATION}
    if len(held) < len(VALIDATION):
        number = max(1, round(share * len(songs)))
        if not 0 < share < 1 or number >= len(songs):
            raise DataError(f"a share {share} of {len(songs)} songs leaves none for training")
        held = {s.name for s in sorted(songs, key=lambda s: rank(s.name, seed))[:number]}
    return [s for s in songs if s.name not in held], [s for s in songs if s.name in held]


def _clip(song: Song, stem: str, classes: Sequence[str], decoded: Path) -> Clip:
    is_file = song.path.is_file()
    source = decoded / song.id / f"{stem}.flac" if is_file else song.path / f"{stem}.wav"
    labels = (stem,) if stem in classes else ()
    return Clip(f"{song.id}.{stem}", labels, str(source) if source.is_file() else "")


def _decode_all(songs: list[Song], stems: Sequence[str], out: Path, fs: int, **work) -> None:
    """Decode stem files that were not decoded before, or have changed since."""
    items = []
    for song in songs:
        about = song.path.stat()
        items.append((song.id, str(song.path), about.st_size, about.st_mtime_ns))
    map_parts(
        functools.partial(decode_part, out=os.path.abspath(out), stems=tuple(stems), fs=fs),
        items,
        out / ".parts",  # kept: they say what is done
        part_size=1,
        desc="decode stems",
        **work,
    )
    gone = [out / s.id / f"{v}.flac" for s in songs for v in stems]
    if gone := [path for path in gone if not path.is_file()]:
        raise DataError(f"{gone[0]}: was decoded and is gone; remove {out} to decode anew")


def decode_part(
    items: Sequence[tuple[str, str, int, int]], path: Path, *, out: str, stems: tuple[str, ...], fs: int
) -> None:
    """Write the stems of (id, stem file, ..) as FLAC files, 16 bit, mono, `fs` Hz; then `path`."""
    for id_, file, *_ in items:
        sounds = read_mono_stems(file, fs, stems)
        for stem, x in sounds.items():
            with atomic_path(Path(out) / id_ / f"{stem}.flac") as tmp:
                tmp.write_bytes(encode_flac(to_int16(x), fs))
    path.write_text("".join(f"{id_}\n" for id_, *_ in items), encoding="utf-8")


def _add_options(p: argparse.ArgumentParser) -> None:
    text = "folder with train/ and test/, of .stem.mp4 files or of HQ's WAV folders"
    p.add_argument("--musdb18", required=True, help=text)
    text = "the stem `other`: left out, a class, or sound of no labelled class"
    p.add_argument("--other", choices=OTHER, default="none", help=text)
    p.add_argument("--decoded", default="dump/stems", help="where the sounds of stem files go")
    p.add_argument("--fs", type=int, default=16000, help="their rate in Hz")
    text = "of the training songs, where MUSDB18's own 14 are missing"
    p.add_argument("--valid_share", type=float, default=0.14, help=text)
    p.add_argument("--seed", type=int, default=0, help="of that choice")


def _prepare(a: argparse.Namespace) -> str:
    options = {k: v for k, v in vars(a).items() if k not in ("musdb18", "data_dir")}
    return counted(prepare_musdb18(a.musdb18, a.data_dir, **options), "songs")


def _add_table_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--seconds", type=float, default=SongSettings.seconds, help="length of a chunk")
    p.add_argument("--whole", action="store_true", help="whole songs instead of chunks")
    text = "a stem above it is active in a chunk: dB of full scale, mean square of the chunk"
    p.add_argument("--threshold_db", type=float, default=SongSettings.threshold_db, help=text)


def _make_table(a: argparse.Namespace) -> str:
    settings = SongSettings(a.seconds, a.whole, a.threshold_db)
    work = {"num_workers": a.num_workers, "scheduler": a.scheduler}
    info = make_song_table(a.data_dir, a.bank, a.out, settings=settings, n_fft=a.n_fft, hop=a.hop, **work)
    return table_text(a.out, info)


def _add_embedded_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--train_songs", type=int, default=24, help="number of songs")
    p.add_argument("--test_songs", type=int, default=6, help="number of songs")
    text = "lengths of the songs"
    p.add_argument("--seconds", type=float, nargs=2, default=(24.0, 30.0), metavar=("MIN", "MAX"), help=text)
    p.add_argument("--channels", type=int, choices=(1, 2), default=1, help="of the files")


def _make_embedded(a: argparse.Namespace) -> None:
    from espnet2_ext.data.synth.musdb18 import make_mini_musdb18

    make_mini_musdb18(**vars(a))


EMBEDDED = "Make the embedded corpus of songs: stems in MUSDB18-HQ's layout, from a General MIDI sound font."
CORPUS = Corpus(
    Step("labels.tsv and the clips.tsv of train, valid and test", _add_options, _prepare, ("workers",)),
    Step("the mixture table of one set", _add_table_options, _make_table, ("frames", "workers")),
    Step(EMBEDDED, _add_embedded_options, _make_embedded),
)
