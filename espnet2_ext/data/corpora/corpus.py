"""What the file of a corpus declares, what every corpus gets for it, and the table of corpora.

To add a corpus, write `corpora/NAME.py`, and its line in `CORPORA`:

    def add_options(p):
        p.add_argument("--root", required=True, help="folder with meta.csv and audio/")

    def prepare(a):
        sets = {"train_all": [], "test": []}
        for line, row in read_table(f"{a.root}/meta.csv", ("file", "class", "set")):
            clip = Clip(Path(row["file"]).stem, (row["class"],), f"{a.root}/audio/{row['file']}")
            sets[row["set"]].append(clip)
        names = sorted({clip.labels[0] for clips in sets.values() for clip in clips})
        return counted(write_lists(a.data_dir, named_labels(names), sets))

    CORPUS = Corpus(Step("what it is, in one line", add_options, prepare, ("hold_out",)))

`read_table` refuses broken lines with file and line; `write_lists` checks and counts. `espnet2-ext prepare NAME` takes
the options above, `--data_dir`, and those of the named groups: with `hold_out`, `--hold_out SHARE` splits the set
`train_all` into `train` and `valid`. `espnet2-ext validate-data DATA_DIR/train` checks what was written, `scan` the
sounds. A recipe's `local/data.sh` calls `espnet2-ext prepare NAME --data_dir "${datadir}" ...`.
"""

import argparse
import contextlib
import hashlib
import importlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from espnet2_ext.data.tables import Clip, Label, read_clips, write_clips, write_labels
from espnet2_ext.errors import DataError
from espnet2_ext.util.files import atomic_path
from espnet2_ext.util.tables import check_id

# name: module in this folder with its `CORPUS`
CORPORA = {
    "audioset": "audioset",
    "esc50": "esc50",
    "urbansound8k": "urbansound8k",
    "musdb18": "musdb18",
    "starter": "starter",
    "own": "own_clips",
    "own-weak": "own_recordings",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One command of a corpus.

    Attributes:
        about: its help. add_options: adds its own options to a parser.
        run: does it, from the parsed options; returns the text to print.
        groups: shared options that it takes, by their names in `cli/data.py`: workers, split, frames, hold_out.
    """

    about: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], str]
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Corpus:
    """What a corpus declares.

    Attributes:
        lists: stage 1, writes `labels.tsv` and each set's `clips.tsv` into the option `data_dir`.
        tables: stage 4, where mixtures are not drawn from clips: writes the mixture table of one set.
        embedded: makes a small corpus in the same layout out of the sound font, in the option `out`.
    """

    lists: Step
    tables: Step | None = None
    embedded: Step | None = None


def find_corpus(name: str) -> Corpus:
    """What the corpus `name` declares.

    Raises:
        DataError: no such corpus.
    """
    if name not in CORPORA:
        raise DataError(f"unknown corpus {name}; known are {', '.join(CORPORA)}")
    return importlib.import_module(f"espnet2_ext.data.corpora.{CORPORA[name]}").CORPUS


def check_folds(sets: Mapping[str, Iterable[Hashable]], known: Collection, where: object) -> None:
    """Refuse folds (numbers, or anything with an attribute `fold`) that are not `known` or in two sets.

    Raises:
        DataError: naming `where`, the fold and its sets.
    """
    used: dict[Hashable, str] = {}
    for name, folds in sets.items():
        for fold in folds:
            number = getattr(fold, "fold", fold)
            if number not in known:
                raise DataError(f"{where}: fold {number} of set {name} has no clips")
            if used.setdefault(fold, name) != name:
                raise DataError(f"fold {number} is in the sets {used[fold]} and {name}")


def write_lists(
    data_dir: str | os.PathLike, labels: Iterable[Label], sets: Mapping[str, Iterable[Clip]]
) -> dict[str, int]:
    """Write `data_dir/labels.tsv` and for each set `data_dir/SET/clips.tsv`; returns the numbers of clips.

    Clips with an empty source, which the scan calls missing, are reported. Of the clips only the ids are held.

    Raises:
        DataError: a set without clips, an id that is duplicated in its set; then nothing is written.
    """
    folder, labels, counts = Path(data_dir), list(labels), {}
    if odd := [v.mid for v in labels if "," in v.mid or len(v.mid.split()) != 1]:
        raise DataError(f"class {odd[0]!r}: the identifier of a class is a word without a comma")
    with contextlib.ExitStack() as stack:
        for name in ("", *sets):
            stack.callback(_remove_empty, folder / name)
        for name, clips in sets.items():
            path = folder / name / "clips.tsv"
            counts[name] = write_clips(stack.enter_context(atomic_path(path)), _checked(name, clips), path)
        write_labels(folder / "labels.tsv", labels)
    return counts


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _checked(name: str, clips: Iterable[Clip]) -> Iterator[Clip]:
    """The clips of a set, which are reported at its end."""
    seen: set[str] = set()
    each, lacking, missing = Counter(), Counter(), 0
    for clip in clips:
        try:  # not around the rest: what reads the clips has its own errors
            check_id(clip.id, seen)
        except DataError as e:
            raise DataError(f"set {name}: {e}") from None
        seen.add(clip.id)
        each.update(clip.labels)
        if not clip.source:
            lacking.update(clip.labels)
            missing += 1
        yield clip
    if not seen:
        raise DataError(f"set {name}: no clip is in it")
    log.info("set %s: %d clips (%s)", name, len(seen), _numbers(each.most_common(20)))
    if missing:
        log.warning("set %s: %d listed clips have no file (%s)", name, missing, _numbers(lacking.items()))


def _numbers(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{label} {n}" for label, n in counts)


def counted(sets: Mapping[str, int], what: str = "clips") -> str:
    """The text `train: 12 clips, test: 4 clips`."""
    return ", ".join(f"{name}: {n} {what}" for name, n in sets.items())


def table_text(folder: str | os.PathLike, info: Mapping) -> str:
    """What a table of mixtures holds, in one line, from its `table.json`."""
    shares = ", ".join(f"{c} {p:.2f}" for c, p in zip(info["classes"], info["clip_prior"]))
    return f"{folder}: {info['mixtures']} mixtures; share with {shares}"


def named_labels(names: Iterable[str]) -> list[Label]:
    """Labels of classes without published identifiers: the name stands for both, without `_` where it is shown."""
    return [Label(i, name, name.replace("_", " ")) for i, name in enumerate(names)]


def hold_out(
    whole: str | os.PathLike,
    train: str | os.PathLike,
    held: str | os.PathLike,
    *,
    share: float,
    most: int | None = None,
    seed: int = 0,
) -> tuple[int, int]:
    """Split the clips of the folder `whole` between the folders `train` and `held`.

    A clip is held out when the hash of its recording and `seed` falls below `share`. Two segments
    of a recording (AudioSet: its id of 11 characters, `_`, a start time) stay together.

    Args:
        most: lower the share so that about this many clips are held out at most.

    Returns:
        Numbers of clips for training and held out.

    Raises:
        DataError: no or a broken list, a share outside of (0, 1), a side without any clip.
    """
    if not 0 < share < 1:
        raise DataError(f"the share to hold out is {share}, it must lie between 0 and 1")
    source = Path(whole) / "clips.tsv"
    total = sum(1 for _ in read_clips(source))
    if most is not None and total:
        share = min(share, most / total)
    counts = []
    for folder, side in ((train, False), (held, True)):
        path = Path(folder) / "clips.tsv"
        counts.append(sum(1 for _ in _side(source, share, seed, side)))
        if not counts[-1]:
            raise DataError(f"{source}: of its {total} clips none is left for {path}")
        write_clips(path, _side(source, share, seed, side))
    return counts[0], counts[1]


def _side(source: Path, share: float, seed: int, held: bool) -> Iterator[Clip]:
    return (c for c in read_clips(source) if (position(c.id, seed) < share) == held)


def position(id_: str, seed: int = 0) -> float:
    """Where a clip stands in [0, 1): the same for all segments of a recording."""
    recording, _, number = id_.rpartition("_")
    name = recording if len(recording) >= 11 and number.isdecimal() else id_
    return int.from_bytes(rank(name, seed), "big") / 2**64


def rank(name: str, seed: int) -> bytes:
    """What orders names at random, by `seed`, whatever other names are among them."""
    return hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
