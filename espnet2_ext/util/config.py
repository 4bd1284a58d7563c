"""Configurations: YAML files, which may build on others by `include`."""

import copy
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet2_ext.errors import DataError
from espnet2_ext.util.documents import mapping, read_yaml, short

INCLUDE = "include"
MOST = 1 << 24  # a whole number in a configuration is smaller
_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
_LISTS = (list, tuple, set, Sequence, Collection, Iterable)


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


# ---- arguments of a constructor ------------------------------------------------------------------


def check_arguments(function: Callable, conf: Any, where: str, given: Collection[str] = ()) -> None:
    """Refuse what `function` does not take: keys that it has not or that are `given`, values of another type.

    Raises:
        DataError: naming `where` and the key.
    """
    parameters = _parameters(function)
    free = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    takes = [k for k in parameters if k not in given]
    if unknown := [k for k in mapping(conf, where) if k in given or not (free or k in takes)]:
        raise DataError(f"{where}: unknown key {', '.join(map(repr, unknown))}; it takes: {', '.join(takes)}")
    for key, value in conf.items():
        hint = parameters[key].annotation if key in parameters else inspect.Parameter.empty
        if not (_fits(value, hint) or (key in parameters and value == parameters[key].default)):
            written = "; YAML writes it 1.0e-3" if isinstance(value, str) and _is_number(value) else ""
            raise DataError(f"{where}: key {key}: expected {_words(hint)}, not {short(value)}{written}")


def _parameters(function: Callable) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function, eval_str=True).parameters
    except (NameError, TypeError, AttributeError):  # a name that only type checkers know
        return inspect.signature(function).parameters


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of an annotated type, as far as that can be told."""
    origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, a) for a in _plain(args))
    if origin is typing.Literal:
        return value in args
    if origin is bool or isinstance(value, bool):
        return isinstance(value, bool) and origin not in (int, float, str)
    if origin is int:
        return isinstance(value, int) and abs(value) < MOST
    if origin is float:
        return isinstance(value, int | float) and math.isfinite(value) and abs(value) < 1e300
    if origin in (str, type(None)):
        return isinstance(value, origin)
    if origin in _LISTS:
        if not isinstance(value, list | tuple):
            return False
        if origin is tuple and args and args[-1] is not ...:
            return len(value) == len(args) and all(map(_fits, value, args))
        return not args or all(_fits(v, args[0]) for v in value)
    return isinstance(value, dict) if origin in (dict, Mapping) else True


def _plain(hints: Sequence) -> Sequence:
    """Of alternatives those that a YAML can hold."""
    return [h for h in hints if (typing.get_origin(h) or h) in (*_WORDS, *_LISTS, dict, typing.Literal)] or hints


def _words(hint: Any) -> str:
    origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_words, _plain(args))))
    if origin in _LISTS:
        return f"a list, each {_words(args[0])}" if args else "a list"
    return "keys with values" if origin in (dict, Mapping) else _WORDS.get(origin, str(hint))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
