"""Text, YAML and JSON: the one reader and writer of each.

A document is somebody else's word: it may be of another encoding, nested without end, or small on disk and huge in
memory. What is read here is plain values of a size in proportion to the file. Errors name the file, and are of the
class `error`, a `DataError`.
"""

import functools
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from espnet2_ext.errors import DataError
from espnet2_ext.util.files import atomic_path, unsealed, write_text

MOST_BYTES = 1 << 28  # of a document; tables are read line by line and may be larger
MOST_VALUES = 4_000_000  # of a document in which aliases are written out
MOST_DEPTH = 100
_PLAIN = (str, int, float, bool, type(None))


# ---- text ----------------------------------------------------------------------------------------


def read_bytes(path: str | os.PathLike, error: type[DataError] = DataError) -> bytes:
    """Content of a file.

    Raises:
        error: no such file, something else than a file, or larger than a document can be.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "no such file"
        raise error(f"{path}: {what}")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise error(f"{path}: is too large for a document of text ({size / 1e6:.0f} MB)")
    return path.read_bytes()


def decode(data: bytes, where: object, error: type[DataError] = DataError) -> str:
    """UTF-8 text, with or without a byte order mark; raises `error`, naming `where`, for anything else."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        found = "UTF-16 text" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else f"byte {e.start}, line {line}"
        raise error(f"{where}: is not UTF-8 text ({found}); save it as UTF-8") from e
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise error(f"{where}: is not text: it holds a byte of zero, line {line}")
    return text


def read_text(path: str | os.PathLike, error: type[DataError] = DataError) -> str:
    """Content of a text file in UTF-8; raises as `read_bytes` and `decode`."""
    return decode(read_bytes(path, error), path, error)


def write_if_new(path: str | os.PathLike, text: str) -> None:
    """Write a text file, unless it holds that text; else it keeps its time."""
    if not os.path.isfile(path) or Path(path).read_bytes() != text.encode():
        write_text(path, text)


# ---- YAML ----------------------------------------------------------------------------------------


def read_yaml(path: str | os.PathLike, error: type[DataError] = DataError, *, decimals: bool = True) -> Any:
    """Content of a YAML file; raises as `read_bytes` and `parse_yaml`."""
    return parse_yaml(read_bytes(path, error), path, error, decimals=decimals)


def parse_yaml(data: bytes | str, where: object, error: type[DataError] = DataError, *, decimals: bool = True) -> Any:
    """Content of YAML text.

    Args:
        decimals: False leaves decimal numbers as text, as they were written.

    Raises:
        error: not UTF-8, not YAML, nested too deeply, or aliases that stand for more than a document can hold.
    """
    import yaml

    text = decode(data, where, error) if isinstance(data, bytes) else data
    try:
        value = yaml.load(text, _loader(decimals))
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, AttributeError, LookupError, OverflowError) as e:
        mark = getattr(e, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise error(f"{where}{line}: is not valid YAML ({_first(getattr(e, 'problem', None) or e)})") from e
    _check_size(value, where, error)
    return value


@functools.cache
def _loader(decimals: bool) -> type:
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):
        def flatten_mapping(self, node):
            super().flatten_mapping(node)
            if len(node.value) > MOST_VALUES // 100:  # merges of merges multiply
                raise yaml.constructor.ConstructorError(None, None, "merges too many keys", node.start_mark)

    text = ["tag:yaml.org,2002:timestamp", *([] if decimals else ["tag:yaml.org,2002:float"])]
    resolvers = Loader.yaml_implicit_resolvers.items()
    Loader.yaml_implicit_resolvers = {first: [r for r in found if r[0] not in text] for first, found in resolvers}
    return Loader


def dump_yaml(value: Any, **style) -> str:
    """Plain values as YAML text, keys in their order, what occurs twice written out twice; style: of PyYAML."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data) -> bool:
            return True

    options: Any = {"sort_keys": False, "allow_unicode": True} | style
    return yaml.dump(value, Dumper=Dumper, **options)


def mapping(value: Any, where: object, error: type[DataError] = DataError) -> dict:
    """`value`, if it is a mapping from texts; raises `error`, naming `where`, for anything else."""
    if not isinstance(value, dict) or not all(isinstance(k, str) for k in value):
        raise error(f"{where}: should hold `key: value` lines, not {short(value)}")
    return value


# ---- JSON ----------------------------------------------------------------------------------------


def read_json(path: str | os.PathLike, error: type[DataError] = DataError) -> Any:
    """Content of a JSON file; raises as `read_bytes` and `parse_json`."""
    return parse_json(read_bytes(path, error), path, error)


def parse_json(data: bytes | str, where: object, error: type[DataError] = DataError) -> Any:
    """Value of JSON text; of a record of `util.files`, its content.

    Raises:
        error: not UTF-8, not JSON, nested too deeply, or a record that changed.
    """
    text = decode(data, where, error) if isinstance(data, bytes) else data
    try:
        value = json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half a character is none
    except (ValueError, RecursionError) as e:
        raise error(f"{where}: is not valid JSON ({_first(e)})") from e
    _check_size(value, where, error)
    return unsealed(value, where, error)


def read_json_lines(path: str | os.PathLike, error: type[DataError] = DataError) -> Iterator[tuple[int, dict]]:
    """Yield (line number, mapping) of a file with a JSON mapping in each line; raises as `read_json`."""
    for number, line in enumerate(read_text(path, error).splitlines(), 1):
        if line.strip():
            where = f"{path}:{number}"
            yield number, mapping(parse_json(line, where, error), where, error)


def write_json(path: str | os.PathLike, value: Any, indent: int | None = 1) -> None:
    """Write a value as a JSON file."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def write_json_lines(path: str | os.PathLike, values: Iterable[Any]) -> None:
    """Write values, whose numbers must be finite, as a JSON file of one line each."""
    with atomic_path(path) as tmp, open(tmp, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(value, allow_nan=False) + "\n" for value in values)


# ---- shapes --------------------------------------------------------------------------------------


def read_fields(
    path: str | os.PathLike, fields: dict[str, Any], error: type[DataError] = DataError, hint: str = ""
) -> dict:
    """A JSON file that is a mapping with `fields`, see `check`; hint: what to do where there is none."""
    try:
        return check(read_json(path, error), fields, path, error)
    except error as e:
        raise error(f"{e}; {hint}") if hint else e from None


def check(value: Any, shape: Any, where: object, error: type[DataError] = DataError) -> Any:
    """`value`, if it is of a shape.

    Args:
        shape: a type or None (a whole number is a `float` too, which is finite; a bool is no number); `[shape]`: a
            list of such; `{"key": shape}`: a mapping with at least these keys, one that may be missing written `key?`,
            and `str: shape` what is behind all others; a tuple of shapes: one of them.

    Raises:
        error: it names `where` and the key.
    """
    if (fault := _misfit(value, shape)) is not None:
        key, text = fault
        raise error(f"{where}: {f'key {key}: ' if key else ''}{text}")
    return value


def _misfit(value: Any, shape: Any) -> tuple[str, str] | None:
    """Dotted key and what is wrong there; None where nothing is."""
    if isinstance(shape, dict):
        if not isinstance(value, dict) or not all(isinstance(k, str) for k in value):
            return "", f"expected keys with values, got {short(value)}"
        named = {k.removesuffix("?"): s for k, s in shape.items() if k is not str}
        if missing := [k for k in named if k in shape and k not in value]:
            return missing[0], "is missing"
        shapes = ((k, v, named.get(k, shape.get(str, object))) for k, v in value.items())
        return _first_misfit((k, v, s) for k, v, s in shapes if s is not object)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return "", f"expected a list, got {short(value)}"
        return _first_misfit((str(n), v, shape[0]) for n, v in enumerate(value))
    if not isinstance(shape, tuple):
        return None if _is(value, shape) else ("", f"expected {_name(shape)}, got {short(value)}")
    faults = [_misfit(value, one) for one in shape]
    if None in faults:
        return None
    inner = [fault for fault in faults if fault and fault[0]]
    return (inner or [("", f"expected {' or '.join(map(_name, shape))}, got {short(value)}")])[0]


def _first_misfit(parts: Iterable[tuple[str, Any, Any]]) -> tuple[str, str] | None:
    for name, value, shape in parts:
        if (fault := _misfit(value, shape)) is not None:
            return f"{name}.{fault[0]}".strip("."), fault[1]
    return None


def _is(value: Any, kind: type | None) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is None or isinstance(value, bool):
        return value is None if kind is None else kind in (bool, object)
    return isinstance(value, kind)


_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", None: "nothing"}


def _name(shape: Any) -> str:
    kind = shape if shape is None or isinstance(shape, type) else type(shape)
    return "a list" if kind is list else "keys with values" if kind is dict else _KINDS.get(kind, str(kind))


# ---- sizes ---------------------------------------------------------------------------------------


def _check_size(value: Any, where: object, error: type[DataError]) -> None:
    try:
        size = _size(value, {}, 0)
    except RecursionError:
        raise error(f"{where}: is nested more than {MOST_DEPTH} deep, or holds itself") from None
    except TypeError as e:
        raise error(f"{where}: holds something else than texts, numbers, lists and mappings: {e}") from None
    if size > MOST_VALUES:
        raise error(f"{where}: its aliases stand for more than {MOST_VALUES} values")


def _size(value: Any, known: dict[int, int], depth: int) -> int:
    """Number of plain values, those behind an alias as often as it occurs; each is looked at once."""
    if not isinstance(value, dict | list):
        if not isinstance(value, _PLAIN):
            raise TypeError(short(value))
        return 1
    if depth > MOST_DEPTH:
        raise RecursionError
    if id(value) not in known:
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(part, known, depth + 1) for part in parts)
    return known[id(value)]


def _first(text: object) -> str:
    return (str(text).strip().splitlines() or ["unreadable"])[0]


def short(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
