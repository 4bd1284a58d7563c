"""Configurations: YAML files, which may build on others by `include`."""

import copy
import os
from pathlib import Path
from typing import Any

from espnet2_ext.errors import DataError
from espnet2_ext.util.documents import mapping, read_yaml

INCLUDE = "include"


def read_config(path: str | os.PathLike) -> dict:
    """Content of a configuration with everything that it includes.

    `include: base/qsep.yaml`, a path relative to the file or a list of them, is replaced by the
    content of those files: later ones take precedence over earlier ones, and the file's own keys over
    all. Mappings are merged key by key; everything else, lists as well, is replaced as a whole.

    Raises:
        DataError: no such file, not YAML, not a mapping, or a file that includes itself.
    """
    return _read(Path(path), ())


def _read(path: Path, within: tuple[Path, ...]) -> dict:
    if path.resolve() in within:
        raise DataError(f"{path}: includes itself")
    content = _named(read_yaml(path), path)
    included = content.pop(INCLUDE, [])
    included = [included] if isinstance(included, str) else included
    if not isinstance(included, list) or not all(isinstance(name, str) for name in included):
        raise DataError(f"{path}: {INCLUDE}: expected a path or a list of paths, got {included!r}")
    merged: dict = {}
    for name in included:
        merged = merge(merged, _read(path.parent / name, (*within, path.resolve())))
    return merge(merged, content)


def _named(value: Any, where: object) -> dict:
    """`value`, a mapping, if all mappings in it are from texts."""
    for key, part in mapping(value, where).items():
        for one in part if isinstance(part, list) else [part]:
            if isinstance(one, dict):
                _named(one, f"{where}: key {key}")
    return value


def merge(base: dict, over: dict) -> dict:
    """A copy of `base` with the values of `over`; mappings in both are merged key by key."""
    merged = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def set_value(config: dict | list, key: str, value: object) -> None:
    """Set the value at `a.0.b` in nested mappings and lists.

    Raises:
        DataError: there is no such place.
    """
    *way, last = key.split(".")
    at: Any = config
    try:
        for part in way:
            at = at[int(part) if isinstance(at, list) else part]
        at[int(last) if isinstance(at, list) else last] = value
    except (KeyError, IndexError, ValueError, TypeError) as e:
        raise DataError(f"{key} leads nowhere in the YAML") from e
