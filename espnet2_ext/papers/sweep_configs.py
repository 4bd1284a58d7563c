"""The YAMLs that a sweep makes of others: `configs` of `conf/sweeps/*.yaml`."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path

from espnet2_ext.errors import DataError
from espnet2_ext.papers.tables import check_keys
from espnet2_ext.util.config import read_config, set_value
from espnet2_ext.util.documents import dump_yaml, write_if_new

HEAD = "# Made by a sweep, see conf/sweeps; change it there.\n"  # the same in every sweep


class Configs:
    """The YAMLs that a sweep makes of others by setting some keys, by name.

    Args:
        entries: name -> {from: a YAML, or the `{name}` of another one; set: key.subkey -> value}.
        recipe: the recipe's folder; expdir: that of the sweep's experiments, seen from it.
        variables: names that may stand in braces in `from`.
        where: what messages begin with.

    Raises:
        DataError: a key that is wrong or missing, by name.
    """

    def __init__(self, entries: dict[str, dict], recipe: Path, expdir: str, variables: dict[str, str], where: str):
        self._entries, self._recipe, self._expdir = entries, recipe, expdir
        self._variables, self._where = variables, where
        for name, entry in entries.items():
            check_keys(entry, {"from", "set"}, {"from", "set"}, f"{where}.{name}")

    def __iter__(self) -> Iterator[str]:
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
            content = read_config(self._recipe / source)
        for key, value in entry["set"].items():
            try:
                set_value(content, str(key), copy.deepcopy(value))
            except DataError as e:
                raise DataError(f"{where}.set: {e}") from e
        return content

    def text(self, name: str) -> str:
        """Its file's text."""
        return HEAD + dump_yaml(self.content(name), allow_unicode=False)

    def write(self) -> None:
        """Write all of them where runs look for them."""
        for name in self:
            path, text = self._recipe / self.path(name), self.text(name)
            write_if_new(path, text)
