"""What scoring and the report read: a rendered test set, and the outputs that inference made of it.

A set for queries (`QuerySet`) has a key per target, a set for classes (`ClassSet`) a key per mixture.
"""

import dataclasses
import hashlib
import os
import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from espnet2_ext.audio.read import read_audio
from espnet2_ext.data.mixtures.event_table import MixtureTable
from espnet2_ext.data.mixtures.pair_list import LEVELS, condition_of, read_list
from espnet2_ext.data.outputs import INPUTS, PROTOCOLS, RESIDUAL, read_about, read_estimates, same_keys
from espnet2_ext.data.tables import read_labels, split_mids
from espnet2_ext.errors import DataError
from espnet2_ext.util.documents import read_fields
from espnet2_ext.util.files import verified
from espnet2_ext.util.tables import read_header, read_scp

MODEL = "model"  # the one system of a folder of class-wise outputs


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Outputs of inference in the folder `path`: system -> output -> key -> place of the estimate.

    The systems are the protocols and their outputs the passes, or there is one system (MODEL) with an output per class.
    tags: system -> file of the probabilities of classes, where there is one.
    """

    path: Path
    systems: dict[str, dict[str, dict[str, str]]]
    tags: dict[str, Path]


@dataclasses.dataclass(frozen=True)
class TestSet:
    """A test set as it was rendered.

    keys: sorted.  scp: name of a table -> key -> place of the audio.  info: list.json.
    """

    kind: ClassVar[str]
    path: Path
    keys: list[str]
    scp: dict[str, dict[str, str]]
    info: dict

    @property
    def tables(self) -> list[Path]:
        """Files that scores depend on besides the audio."""
        raise NotImplementedError

    def items(self, outputs: Outputs) -> list[dict]:
        """What is scored, in the order of the keys, as plain values."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class QuerySet(TestSet):
    """A test set for queries: one key per target.

    classes: key -> class asked for (mid); labels: key -> all classes of the target's clip; names: mid -> name, in the
    order of the model's classes; conditions: key -> `pair_list.condition_of`, empty where all mixtures are plain.
    """

    kind: ClassVar[str] = "query"
    classes: dict[str, str]
    labels: dict[str, list[str]]
    names: dict[str, str]
    conditions: dict[str, str]

    @property
    def tables(self) -> list[Path]:
        return [self.path / "list.json", self.path / "utt2class"]

    def keys_of(self, protocol: str) -> list[str]:
        """Keys that have a query: under `other`, the keys of a class with one clip have none."""
        queries = self.scp.get(f"enroll_{protocol}.scp")
        return self.keys if queries is None else [key for key in self.keys if key in queries]

    def items(self, outputs: Outputs) -> list[dict]:
        """key, class, condition, mix, ref, absent (places of audio), est: protocol -> pass -> place of the estimate."""
        items = []
        for key in self.keys:
            item = {"key": key, "class": self.classes[key], "mix": self.scp["wav.scp"][key]}
            item |= {"condition": self.conditions[key]} if self.conditions else {}
            item |= {"ref": self.scp["spk1.scp"][key], "absent": self.scp.get("absent.scp", {}).get(key)}
            # a key without a query of a protocol is in none of its passes
            answered = {p: passes for p, passes in outputs.systems.items() if key in passes["mixture"]}
            item["est"] = {p: {name: scp[key] for name, scp in passes.items()} for p, passes in answered.items()}
            items.append(item)
        return items


@dataclasses.dataclass(frozen=True)
class ClassSet(TestSet):
    """A test set of class mixtures: one key per mixture, `wav.scp`, with a reference `spkN.scp` per class.

    classes: their names in order; table: what is in each mixture.
    """

    kind: ClassVar[str] = "classes"
    classes: list[str]
    table: MixtureTable

    @property
    def tables(self) -> list[Path]:
        return [self.path / "list.json", self.path / "mixtures" / "table.json"]

    @property
    def references(self) -> dict[str, dict[str, str]]:
        """Class (and the residual, where there is one) -> key -> place; no class where only labels are known."""
        named = {name: self.scp.get(f"spk{s}.scp") for s, name in enumerate(self.classes, 1)}
        named[RESIDUAL] = self.scp["rest.scp"]
        return {name: places for name, places in named.items() if places}

    def items(self, outputs: Outputs) -> list[dict]:
        """key, mix (place of audio), targets: class, place of its reference and its estimate, where it has both."""
        estimates, references = outputs.systems[MODEL], self.references
        known = [(name, references[name], estimates[name]) for name in estimates if name in references]
        return [
            {
                "key": key,
                "mix": self.scp["wav.scp"][key],
                "targets": [(name, refs[key], ests[key]) for name, refs, ests in known],
            }
            for key in self.keys
        ]


def load_test_set(path: str | os.PathLike) -> TestSet:
    """Read the tables of a rendered test set (no audio): a `ClassSet` where it has a table of mixtures.

    Raises:
        DataError: a file that is missing, empty or broken; keys that differ between its files.
    """
    path = Path(path)
    info = read_fields(path / "list.json", {}, hint="a test set is a folder that was rendered")
    return _load_class_set(path, info) if (path / "mixtures").is_dir() else _load_query_set(path, info)


def _load_query_set(path: Path, info: dict) -> QuerySet:
    targets = _some(path / "spk1.scp")
    keys = sorted(targets)
    scp = {"spk1.scp": targets, "wav.scp": same_keys(_scp(path / "wav.scp"), keys, path / "wav.scp")}
    if (path / "absent.scp").is_file():
        scp["absent.scp"] = same_keys(_scp(path / "absent.scp"), keys, path / "absent.scp")
    for name in (f"enroll_{protocol}.scp" for protocol in PROTOCOLS):
        if (path / name).is_file():
            scp[name] = _scp(path / name)
    classes = same_keys(_scp(path / "utt2class"), keys, path / "utt2class")
    names = {label.mid: label.name for label in read_labels(verified(path / "labels.tsv", path / "list.json"))}
    labels = {}
    if (path / "utt2labels").is_file():
        table = same_keys(_scp(path / "utt2labels"), keys, path / "utt2labels")
        labels = {k: list(split_mids(v)) for k, v in table.items()}
    for key, mid in [(k, m) for k in keys for m in [classes[k], *labels.get(k, [])]]:
        if mid not in names:
            raise DataError(f"{path}: key {key} has the class {mid}, which is not in labels.tsv")
    return QuerySet(path, keys, scp, info, classes, labels, names, _conditions(path / "pairs.tsv", classes, labels))


def _conditions(path: Path, classes: dict[str, str], labels: dict[str, list[str]]) -> dict[str, str]:
    """Key -> condition, by the list of a set; none where each mixture is two sounds of one level, both asked for."""
    if not path.is_file() or tuple(read_header(verified(path, path.with_name("list.json")))) != LEVELS:
        return {}
    targets = ((f"{pair.id}-{i}", pair, i) for pair in read_list(path) for i in (1, 2)[: 2 - pair.alone])
    try:
        return {key: condition_of(pair, i, classes[key] not in labels[key]) for key, pair, i in targets}
    except KeyError as e:
        raise DataError(f"{path}: its target {e.args[0]} is not in utt2class or utt2labels beside it") from e


def _load_class_set(path: Path, info: dict) -> ClassSet:
    scp = {"wav.scp": _some(path / "wav.scp")}
    table, keys = MixtureTable(path / "mixtures"), sorted(scp["wav.scp"])
    names = [f"spk{s}.scp" for s in range(1, len(table.classes) + 1)]
    for name in names if (path / names[0]).is_file() else []:  # none: recordings of which only labels are known
        scp[name] = same_keys(_scp(path / name), keys, path / name)
    rest = path / "rest.scp"
    scp["rest.scp"] = same_keys(_scp(rest), keys, rest) if rest.is_file() else {}
    return ClassSet(path, keys, scp, info, table.classes, table)


def _scp(path: Path) -> dict[str, str]:
    return read_scp(verified(path, path.with_name("list.json")))


def _some(path: Path) -> dict[str, str]:
    table = _scp(path)
    if not table:
        raise DataError(f"{path}: the set is empty, there is nothing to score")
    return table


def load_outputs(path: str | os.PathLike, data: TestSet) -> Outputs:
    """Read the tables of the outputs that inference made of `data` (no audio).

    Raises:
        DataError: no outputs; keys other than those of `data` (that have a query); a protocol without its `mixture`
            pass; outputs of other classes, or in another order, than those of `data`.
    """
    load = _load_class_outputs if isinstance(data, ClassSet) else _load_query_outputs
    return load(Path(path), data)


def _load_query_outputs(path: Path, data: QuerySet) -> Outputs:
    systems: dict = {}
    for protocol in PROTOCOLS:
        found = {p: path / protocol / p for p in INPUTS if (path / protocol / p / "spk1.scp").is_file()}
        if not found:
            continue
        if "mixture" not in found:
            raise DataError(f"{path / protocol}: no mixture/spk1.scp; run inference first")
        if "silence" in found and "absent.scp" not in data.scp:
            raise DataError(f"{data.path}: no absent.scp, the input of {found['silence']}")
        keys = data.keys_of(protocol)
        systems[protocol] = {p: read_estimates(folder, keys)[0] for p, folder in found.items()}
    if not systems:
        wanted = " or ".join(f"{p}/mixture/spk1.scp" for p in PROTOCOLS)
        raise DataError(f"{path}: no {wanted}; run inference first")
    return Outputs(path, systems, _existing({p: path / p / "tags.npz" for p in systems}))


def _load_class_outputs(path: Path, data: ClassSet) -> Outputs:
    names = read_about(path / "about.json", {"outputs": [str]})["outputs"]
    if names not in (data.classes, [*data.classes, RESIDUAL]):
        raise DataError(
            f"{path}: holds the outputs {', '.join(names)}, but the classes of "
            f"{data.path} are {', '.join(data.classes)}"
        )
    estimates = dict(zip(names, read_estimates(path, data.keys, len(names))))
    return Outputs(path, {MODEL: estimates}, _existing({MODEL: path / "activity.npz"}))


def _existing(files: dict[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in files.items() if path.is_file()}


def fingerprint(data: TestSet, outputs: Outputs) -> str:
    """Digest of names, sizes and times of all files that scores depend on."""
    scps = [*data.scp.values(), *(scp for passes in outputs.systems.values() for scp in passes.values())]
    audio = {re.sub(r":\d+$", "", place) for scp in scps for place in scp.values()}
    digest = hashlib.blake2b(digest_size=16)
    tables = [*data.tables, outputs.path / "about.json", *outputs.tags.values()]
    for name in [*map(str, tables), *sorted(audio)]:
        if os.path.isfile(name):
            stat = os.stat(name)
            digest.update(f"{name}\t{stat.st_size}\t{stat.st_mtime_ns}\n".encode())
    for scp in scps:
        digest.update(repr(sorted(scp.items())).encode())
    return digest.hexdigest()


def read_signal(place: str, key: str, like: np.ndarray | None = None, fs: int | None = None) -> tuple[np.ndarray, int]:
    """Mono audio [T] and its rate in Hz.

    Args:
        key: stands in errors.
        like, fs: audio [T] and its rate in Hz, whose length and rate it must have.
    Raises:
        DataError: names the key and the file.
    """
    try:
        audio, rate = read_audio(place)
    except DataError as e:
        raise DataError(f"key {key}: {e}") from e
    if audio.shape[1] != 1:
        raise DataError(f"key {key}: {place}: expected one channel, got {audio.shape[1]}")
    if like is not None and (rate != fs or len(audio) != len(like)):
        sizes = f"{len(audio)} samples at {rate} Hz, expected {len(like)} at {fs} Hz"
        raise DataError(f"key {key}: {place}: {sizes}")
    return audio[:, 0], rate
