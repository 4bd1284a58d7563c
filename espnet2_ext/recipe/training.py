"""What a training is made of: it is not done twice, and one that was begun with other options does not go on.

An experiment's folder holds two records (`util.files`): `.begun_with`, what a training begins with and keeps, and
`.done`, all that it was made of. Folders of earlier versions hold checksums instead; there the options are compared
with those in the trainer's own `config.yaml`.
"""

import contextlib
import math
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from espnet2_ext.errors import DataError
from espnet2_ext.util.documents import mapping, parse_yaml, read_text, read_yaml
from espnet2_ext.util.files import file_digest, made, read_record, write_record

BEGUN, DONE, CHECKED = ".begun_with", ".done", ".checked"
_CHECKPOINTS = ("checkpoint.pth", "lightning/last.ckpt")
# options that may change while a training goes on, besides use_*
_FREE = {"patience", "keep_nbest_models", "num_workers", "num_att_plot", "log_level", "log_interval"}
_FILES = {"init_param", "classifier_file", "anchor_file", "config"}  # options that name files


@dataclass(frozen=True)
class Training:
    """A training with its folder and all that it is made of.

    Args:
        exp: the experiment's folder.
        data: what it is trained on, such as `clips in dump/train`. data_digest: theirs. valid_digest: of the
            validation data.
        config: content of the YAML. args: further options, as words.
    """

    exp: Path
    data: str
    data_digest: str
    valid_digest: str
    config: dict
    args: Sequence[str]

    @cached_property
    def options(self) -> dict[str, Any]:
        """All options that the YAML and the further options set, by dotted names; without those that name files."""
        flat = flatten(self.config) | _flatten_given(given_options(self.args))
        return {k: v for k, v in flat.items() if k not in _FILES}

    @cached_property
    def files(self) -> dict[str, str]:
        """Digests of the weights, anchors and further YAMLs that the options name (`FILE:from:to` names FILE)."""
        named = [w.partition(":")[0] for k, words in given_options(self.args).items() if k in _FILES for w in words]
        return {path: file_digest(path) for path in named if os.path.isfile(path)}

    @property
    def begins_with(self) -> dict:
        """What the training begins with and keeps."""
        free = _FREE if "onecyclelr" in self.options.values() else _FREE | {"max_epoch"}  # as long as the training
        kept = {k: v for k, v in self.options.items() if k not in free and not k.startswith("use_")}
        return {self.data: self.data_digest, "files": self.files, "options": kept}

    @property
    def made_of(self) -> dict:
        """All that the training is made of."""
        facts = {self.data: self.data_digest, "files": self.files, "options": self.options}
        return facts | {"valid": self.valid_digest}

    def is_done(self) -> bool:
        """Whether the folder holds the result of this training."""
        done, facts = self.exp / DONE, self.made_of
        if made(done, facts):
            return True
        if not done.is_file() or read_record(done):
            return False
        return self._begun(self.options) | {"valid": self.valid_digest} == facts  # of an earlier version

    def is_checked(self) -> bool:
        """Whether data and model of this training were checked."""
        return made(self.exp / CHECKED, self.made_of) is not None or self.is_done()

    def is_begun(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return any((self.exp / file).exists() for file in _CHECKPOINTS)

    def mark(self, name: str) -> None:
        """Write the record `BEGUN`, `DONE` or `CHECKED`."""
        write_record(self.exp / name, self.begins_with if name == BEGUN else self.made_of)

    def refuse_another(self, tag_option: str) -> None:
        """Refuse a folder whose training was begun with something else.

        Raises:
            DataError: says what differs, each option with both values, and that `tag_option` names another folder.
        """
        now = self.begins_with
        then = self._begun(now["options"])
        other = [part for part in now if then.get(part) != now[part]]
        if other:
            lines = [line for part in other if part != self.data for line in _changes(then.get(part), now[part])]
            raise DataError(
                f"{self.exp} was begun with other {', '.join(other)}: give another {tag_option}, or remove that folder"
                + "".join(f"\n  {line}" for line in lines)
            )

    def _begun(self, options: dict) -> dict:
        """What the training in the folder was begun with; of an earlier version's, those options that are known."""
        begun, path = read_record(self.exp / BEGUN), self.exp / "config.yaml"
        if begun or not (self.exp / BEGUN).is_file():
            return begun
        sums = _earlier_record(self.exp)
        trained = flatten(mapping(read_yaml(path) or {}, path)) if path.is_file() else {}
        same = sums.get("files") == " ".join(_checksum(path) for path in self.files)
        then = {"files": self.files if same else {}, "options": {k: trained.get(k, v) for k, v in options.items()}}
        return {k: v for k, v in sums.items() if k == self.data} | then


def begun_data(exp: Path) -> tuple[str, str] | None:
    """What an experiment was trained on, such as `clips in dump/train`, and its digest; None where nobody noted it."""
    if not (exp / BEGUN).is_file():
        return None
    return next(iter((read_record(exp / BEGUN) or _earlier_record(exp)).items()), None)


def given_options(words: Sequence[str]) -> dict[str, list[str]]:
    """Words of ESPnet's options, `--a 1 --b=2 --c_conf d=3 e.f=4`, by the options' names.

    The last of repeated options counts, but for `*_conf`, which add up.
    """
    given: dict[str, list[str]] = {}
    values: list[str] = []
    for word in words:
        if word.startswith("--"):
            name, equals, word = word[2:].partition("=")
            name = name.replace("-", "_")
            values = given[name] = given.get(name, []) if name.endswith("_conf") else []
            if not equals:
                continue
        values.append(word)
    return given


def flatten(content: dict, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted names; text that is a number (`1e-3`) is one."""
    flat = {}
    for key, value in content.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": _number(value)}
    return flat


def _flatten_given(given: dict[str, list[str]]) -> dict[str, Any]:
    """Options of a command line as `flatten` gives those of a YAML; one without a value is true."""
    flat: dict[str, Any] = {}
    for name, values in given.items():
        for value in values if name.endswith("_conf") else []:
            key, equals, text = value.partition("=")
            flat |= flatten({name: {key: _value(name, text)} if equals else _value(name, value)})
        if not name.endswith("_conf"):
            flat |= flatten({name: _value(name, " ".join(values)) if values else True})
    return flat


def _value(name: str, text: str) -> Any:
    return parse_yaml(text, f"--{name}")


def _number(value: Any) -> Any:
    if isinstance(value, list):
        return [_number(v) for v in value]
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value) if math.isfinite(float(value)) else value
    return value


def _changes(then: dict | None, now: dict) -> list[str]:
    """Lines on the items that differ, with both values."""
    then, none = then or {}, "not given"
    names = [name for name in [*now, *then.keys() - now.keys()] if then.get(name, none) != now.get(name, none)]
    return [f"{name}: {then.get(name, none)} then, {now.get(name, none)} now" for name in names]


def _earlier_record(exp: Path) -> dict[str, str]:
    """Lines `what: checksum` that earlier versions wrote."""
    parts = [line.rpartition(": ") for line in read_text(exp / BEGUN).splitlines()]
    return {what: checksum for what, _, checksum in parts}


def _checksum(path: str) -> str:
    with open(path, "rb") as f:
        return subprocess.run(["cksum"], stdin=f, capture_output=True, text=True, check=True).stdout.strip()
