"""What the scoring of class-wise separation reads: a rendered folder and the outputs made of it."""

import dataclasses
import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np

from espnet2_ext.audio.read import read_scp
from espnet2_ext.data.mixtures.event_table import MixtureTable
from espnet2_ext.errors import DataError
from espnet2_ext.scores.test_set import same_keys

REST = "rest"


@dataclasses.dataclass(frozen=True)
class WeakData:
    """A rendered test set of class mixtures.

    `classes` are their names in order; `mix` and `rest` (None: without) key -> place of the audio,
    `refs` the same for each class, or empty where no class was ever heard alone; `table` is the
    set's table of mixtures, `info` its list.json.
    """

    path: Path
    keys: list[str]
    classes: list[str]
    mix: dict[str, str]
    refs: list[dict[str, str]]
    rest: dict[str, str] | None
    table: MixtureTable
    info: dict


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Outputs of a model: `names` of the outputs, and for each key -> place of the estimate."""

    path: Path
    names: list[str]
    scps: list[dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Activity:
    """What a classifier heard: clip `[N, K]`, frames `[L', K]` of key n, one in `time_pool`.

    n_fft, hop: of the STFT's frames, in samples.
    """

    keys: list[str]
    clip: np.ndarray
    frames: list[np.ndarray]
    time_pool: int
    n_fft: int
    hop: int


def load_weak_data(path: str | os.PathLike) -> WeakData:
    """Read the tables of a rendered folder (no audio).

    Raises:
        DataError: a file that is missing, empty or broken; keys that differ between its files.
    """
    path = Path(path)
    if not (path / "list.json").is_file():
        raise DataError(f"{path}: no list.json; not a rendered folder of mixtures, or not whole")
    info = json.loads((path / "list.json").read_text(encoding="utf-8"))
    mix = read_scp(path / "wav.scp")
    if not mix:
        raise DataError(f"{path / 'wav.scp'}: the set is empty, there is nothing to score")
    table = MixtureTable(path / "mixtures")
    keys, classes = sorted(mix), table.classes
    files = [path / f"spk{s}.scp" for s in range(1, len(classes) + 1)]
    files = files if files[0].is_file() else []  # recordings of which labels alone are known
    refs = [same_keys(read_scp(f), keys, f) for f in files]
    rest = path / "rest.scp"
    rests = same_keys(read_scp(rest), keys, rest) if rest.is_file() else None
    return WeakData(path, keys, classes, mix, refs, rests, table, info)


def load_weak_outputs(path: str | os.PathLike, data: WeakData) -> Outputs:
    """Read about.json and spk1.scp ... of a folder that `weak_inference` wrote.

    Raises:
        DataError: nothing there; outputs of other classes, or in another order, than the data has;
            keys that differ.
    """
    path = Path(path)
    about = path / "about.json"
    if not about.is_file():
        raise DataError(f"{about}: no such file; run inference first")
    names = json.loads(about.read_text(encoding="utf-8"))["outputs"]
    if names not in (data.classes, [*data.classes, REST]):
        raise DataError(
            f"{path}: holds the outputs {', '.join(names)}, but the classes of "
            f"{data.path} are {', '.join(data.classes)}"
        )
    files = [path / f"spk{s}.scp" for s in range(1, len(names) + 1)]
    return Outputs(path, names, [same_keys(read_scp(f), data.keys, f) for f in files])


def load_activity(path: Path, data: WeakData) -> Activity | None:
    """Read activity.npz; None where there is none.

    Raises:
        DataError: of other classes or keys; a probability that is not one.
    """
    if not path.is_file():
        return None
    with np.load(path) as z:
        a = dict(z)
    if list(a["classes"].astype(str)) != data.classes:
        raise DataError(
            f"{path}: of the classes {', '.join(a['classes'])}, but those of {data.path} are {', '.join(data.classes)}"
        )
    rows = {str(key): n for n, key in enumerate(a["keys"])}
    order = [same_keys(rows, data.keys, path)[key] for key in data.keys]
    for name in ("clip", "frame"):
        if not ((a[name] >= 0) & (a[name] <= 1)).all():
            raise DataError(f"{path}: {name} holds values that are no probabilities")
    frames = [a["frame"][a["indptr"][n] : a["indptr"][n + 1]] for n in order]
    numbers = (int(a[name]) for name in ("time_pool", "n_fft", "hop"))
    return Activity(data.keys, a["clip"][order], frames, *numbers)


def weak_fingerprint(data: WeakData, outputs: Outputs) -> str:
    """Digest of names, sizes and times of all files that scores depend on."""
    tables = [
        data.path / "list.json",
        data.path / "mixtures" / "table.json",
        outputs.path / "about.json",
        outputs.path / "activity.npz",
    ]
    scps = [data.mix, *data.refs, data.rest or {}, *outputs.scps]
    audio = {re.sub(r":\d+$", "", ref) for scp in scps for ref in scp.values()}
    digest = hashlib.blake2b(digest_size=16)
    for name in [*map(str, tables), *sorted(audio)]:
        if os.path.isfile(name):
            stat = os.stat(name)
            digest.update(f"{name}\t{stat.st_size}\t{stat.st_mtime_ns}\n".encode())
    for scp in scps:
        digest.update(repr(sorted(scp.items())).encode())
    return digest.hexdigest()
