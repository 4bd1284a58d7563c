"""The YAMLs that a sweep makes of others: `configs` of `conf/sweeps/*.yaml`."""

import copy
import re
from pathlib import Path
from typing import Any

import yaml

from espnet2_ext.errors import DataError
from espnet2_ext.papers.tables import check_keys, check_mapping
from espnet2_ext.util.files import write_text

HEAD = "# Made by a sweep, see conf/sweeps; change it there.\n"  # the same in every sweep


def read_yaml(path: Path) -> Any:
    """Content of a YAML file (DataError: none there, or not YAML, by name)."""
    if not path.is_file():
        raise DataError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise DataError(f"{path}: not a YAML file: {str(e).splitlines()[0]}") from e


class Configs:
    """YAMLs with some keys set, by name.

    Args:
        entries: name -> {from: a YAML, or the `{name}` of another one; set: key.subkey -> value}.
        recipe: the recipe's folder; expdir: that of the sweep's experiments, seen from it.
        variables: names that may stand in braces in `from`.
        where: what messages begin with.

    Raises:
        DataError: a key that is wrong or missing, by name.
    """

    def __init__(self, entries: dict[str, dict], recipe: Path, expdir: str, variables: dict[str, str], where: str):
        self._recipe, self._expdir, self._variables = recipe, expdir, variables
        self._where = f"{where}: configs"
        for name, entry in entries.items():
            check_keys(entry, {"from", "set"}, {"from", "set"}, f"{self._where}.{name}")
            check_mapping(entry["set"], f"{self._where}.{name}.set")
        self._entries = entries

    def __iter__(self):
        return iter(self._entries)

    def path(self, name: str) -> str:
        """Where runs look for it, seen from the recipe's folder."""
        return f"{self._expdir}/conf/{name}.yaml"

    def content(self, name: str, within: tuple[str, ...] = ()) -> dict:
        """What it holds.

        Raises:
            DataError: a key that leads nowhere, a YAML that is not there or made of itself.
        """
        entry, where = self._entries[name], f"{self._where}.{name}"
        if name in within:
            raise DataError(f"{where}: is made of itself")
        source = str(entry["from"])
        if (inner := source.strip("{}")) in self._entries and source == f"{{{inner}}}":
            content = self.content(inner, (*within, name))
        else:
            source = re.sub(r"\{(\w+)\}", lambda m: self._variables.get(m[1], m[0]), source)
            content = read_yaml(self._recipe / source)
        for key, value in entry["set"].items():
            _set(content, str(key), copy.deepcopy(value), f"{where}.set")
        return content

    def text(self, name: str) -> str:
        """Its file's text."""
        return HEAD + yaml.safe_dump(self.content(name), sort_keys=False)

    def write(self) -> None:
        """Write all of them where runs look for them."""
        for name in self:
            path, text = self._recipe / self.path(name), self.text(name)
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                write_text(path, text)


def _set(content: dict | list, key: str, value: object, where: str) -> None:
    """Set `a.0.b` in nested dicts and lists."""
    *way, last = key.split(".")
    try:
        for part in way:
            content = content[int(part) if isinstance(content, list) else part]
        content[int(last) if isinstance(content, list) else last] = value
    except (KeyError, IndexError, ValueError, TypeError) as e:
        raise DataError(f"{where}: {key} leads nowhere in the YAML") from e
