"""What scoring and the report read: a rendered data folder and the outputs made from it."""

import dataclasses
import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np

from espnet2_ext.audio.read import read_audio, read_scp
from espnet2_ext.data.tables import read_labels, split_mids
from espnet2_ext.errors import DataError

PROTOCOLS = ("self", "other")
PASSES = ("mixture", "clean", "silence")
# The input of each pass; the reference is spk1.scp for the first two and silence for the third.
INPUTS = {"mixture": "wav.scp", "clean": "spk1.scp", "silence": "absent.scp"}


@dataclasses.dataclass(frozen=True)
class DataFolder:
    """A test set as it was rendered: one key a target.

    `scp` holds, by file name, key -> place of the audio; `classes` key -> asked class (mid);
    `labels` key -> all classes of the target's clip; `names` mid -> name, in the order of the
    model's classes; `info` is list.json.
    """

    path: Path
    keys: list[str]
    scp: dict[str, dict[str, str]]
    classes: dict[str, str]
    labels: dict[str, list[str]]
    names: dict[str, str]
    info: dict

    def keys_of(self, protocol: str) -> list[str]:
        """Keys that have a query: under `other`, a class of one clip leaves its keys without."""
        queries = self.scp.get(f"enroll_{protocol}.scp")
        return self.keys if queries is None else [key for key in self.keys if key in queries]


def load_data_folder(path: str | os.PathLike) -> DataFolder:
    """Read the tables of a data folder (no audio).

    Raises:
        DataError: a file that is missing, empty or broken; keys that differ between its files.
    """
    path = Path(path)
    if not (path / "list.json").is_file():
        raise DataError(f"{path}: no list.json; not a rendered data folder, or not whole")
    targets = read_scp(path / "spk1.scp")
    if not targets:
        raise DataError(f"{path / 'spk1.scp'}: the set is empty, there is nothing to score")
    keys = sorted(targets)
    scp = {"spk1.scp": targets}
    for name in ("wav.scp", "absent.scp"):
        if name == "wav.scp" or (path / name).is_file():
            scp[name] = same_keys(read_scp(path / name), keys, path / name)
    for name in (f"enroll_{protocol}.scp" for protocol in PROTOCOLS):
        if (path / name).is_file():
            scp[name] = read_scp(path / name)
    classes = same_keys(read_scp(path / "utt2class"), keys, path / "utt2class")
    names = {label.mid: label.name for label in read_labels(path / "labels.tsv")}
    labels = {}
    if (path / "utt2labels").is_file():
        table = same_keys(read_scp(path / "utt2labels"), keys, path / "utt2labels")
        labels = {k: list(split_mids(v)) for k, v in table.items()}
    for key, mid in [(k, m) for k in keys for m in [classes[k], *labels.get(k, [])]]:
        if mid not in names:
            raise DataError(f"{path}: key {key} has the class {mid}, which is not in labels.tsv")
    info = json.loads((path / "list.json").read_text(encoding="utf-8"))
    return DataFolder(path, keys, scp, classes, labels, names, info)


def load_outputs(path: str | os.PathLike, data: DataFolder) -> dict[str, dict[str, dict[str, str]]]:
    """Protocol -> pass -> key -> place of the estimate, for what is there.

    Raises:
        DataError: no protocol at all; a protocol without its `mixture` pass; keys that are not
            those of the data folder that have a query.
    """
    path = Path(path)
    outputs: dict = {}
    for protocol in PROTOCOLS:
        found = {p: path / protocol / p / "spk1.scp" for p in PASSES}
        found = {p: f for p, f in found.items() if f.is_file()}
        if not found:
            continue
        if "mixture" not in found:
            raise DataError(f"{path / protocol}: no mixture/spk1.scp; run inference first")
        if "silence" in found and "absent.scp" not in data.scp:
            raise DataError(f"{data.path}: no absent.scp, the input of {found['silence']}")
        keys = data.keys_of(protocol)
        outputs[protocol] = {p: same_keys(read_scp(f), keys, f) for p, f in found.items()}
    if not outputs:
        wanted = " or ".join(f"{p}/mixture/spk1.scp" for p in PROTOCOLS)
        raise DataError(f"{path}: no {wanted}; run inference first")
    return outputs


def read_tags(path: Path, data: DataFolder, wanted: list[str]) -> np.ndarray:
    """Class probabilities [N, K] of a tags.npz in the order of `wanted`.

    Raises:
        DataError: keys or number of classes that do not fit the data folder; values not finite.
    """
    with np.load(path) as z:
        if not {"keys", "clipwise"} <= set(z.files):
            raise DataError(f"{path}: expected the arrays keys and clipwise, got {z.files}")
        keys, clipwise = z["keys"].astype(str), z["clipwise"]
    if clipwise.shape != (len(keys), len(data.names)):
        raise DataError(f"{path}: clipwise is {clipwise.shape}, expected ({len(keys)}, {len(data.names)})")
    rows = same_keys({k: i for i, k in enumerate(keys)}, wanted, path)
    clipwise = clipwise[[rows[k] for k in wanted]]
    bad = ~np.isfinite(clipwise).all(axis=1)
    if bad.any():
        raise DataError(f"{path}: key {wanted[int(bad.argmax())]}: a probability is not finite")
    return clipwise


def read_signal(ref: str, key: str) -> tuple[np.ndarray, int]:
    """Mono audio [T] and its rate; a `DataError` names the key and the file."""
    try:
        audio, fs = read_audio(ref)
    except DataError as e:
        raise DataError(f"key {key}: {e}") from e
    if audio.shape[1] != 1:
        raise DataError(f"key {key}: {ref}: expected one channel, got {audio.shape[1]}")
    return audio[:, 0], fs


def fingerprint(data: DataFolder, inference_dir: Path, outputs: dict) -> str:
    """Digest of names, sizes and times of all files that scores depend on."""
    tables = [data.path / "list.json", data.path / "utt2class"]
    tables += [inference_dir / p / "tags.npz" for p in outputs]
    refs = [*data.scp.values(), *(s for passes in outputs.values() for s in passes.values())]
    audio = {re.sub(r":\d+$", "", ref) for scp in refs for ref in scp.values()}
    digest = hashlib.blake2b(digest_size=16)
    for name in [*map(str, tables), *sorted(audio)]:
        if os.path.isfile(name):
            stat = os.stat(name)
            digest.update(f"{name}\t{stat.st_size}\t{stat.st_mtime_ns}\n".encode())
    for scp in refs:
        digest.update(repr(sorted(scp.items())).encode())
    return digest.hexdigest()


def same_keys(table: dict, keys: list[str], path: Path) -> dict:
    """`table` if it has exactly `keys`; otherwise the error names the first that differs."""
    missing = next((k for k in keys if k not in table), None)
    if missing is not None:
        raise DataError(f"{path}: key {missing} is missing ({len(keys)} keys expected)")
    if len(table) > len(keys):
        known = set(keys)
        extra = next(k for k in table if k not in known)
        raise DataError(f"{path}: key {extra} is not a key of the data folder")
    return table
