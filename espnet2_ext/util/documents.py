"""Text, YAML and JSON: the one reader and writer of each.

A document is somebody else's word: it may be of another encoding, nested without end, or small on disk and huge in
memory. What is read here is plain values of a size in proportion to the file. Errors name the file, and are of the
class `error`, a `DataError`.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from espnet2_ext.errors import DataError
from espnet2_ext.util.files import atomic_path, write_text

MOST_BYTES = 1 << 28  # of a document; tables are read line by line and may be larger
MOST_VALUES = 4_000_000  # of a document in which aliases are written out
MOST_DEPTH = 100


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


# ---- YAML ----------------------------------------------------------------------------------------


def read_yaml(path: str | os.PathLike, error: type[DataError] = DataError) -> Any:
    """Content of a YAML file; raises as `read_bytes` and `parse_yaml`."""
    return parse_yaml(read_bytes(path, error), path, error)


def parse_yaml(data: bytes | str, where: object, error: type[DataError] = DataError) -> Any:
    """Content of YAML text.

    Raises:
        error: not UTF-8, not YAML, nested too deeply, or aliases that stand for more than a document can hold.
    """
    import yaml

    text = decode(data, where, error) if isinstance(data, bytes) else data
    try:
        value = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, AttributeError, LookupError, OverflowError) as e:
        mark = getattr(e, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise error(f"{where}{line}: is not valid YAML ({_first(getattr(e, 'problem', None) or e)})") from e
    _check_size(value, where, error)
    return value


def dump_yaml(value: Any) -> str:
    """Plain values as YAML text, keys in their order."""
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def mapping(value: Any, where: object, error: type[DataError] = DataError) -> dict:
    """`value`, if it is a mapping from texts; raises `error`, naming `where`, for anything else."""
    if not isinstance(value, dict) or not all(isinstance(k, str) for k in value):
        raise error(f"{where}: should hold `key: value` lines, not {_short(value)}")
    return value


# ---- JSON ----------------------------------------------------------------------------------------


def read_json(path: str | os.PathLike, error: type[DataError] = DataError) -> Any:
    """Content of a JSON file; raises as `read_bytes` and `parse_json`."""
    return parse_json(read_bytes(path, error), path, error)


def parse_json(data: bytes | str, where: object, error: type[DataError] = DataError) -> Any:
    """Value of JSON text; raises `error` where it is not UTF-8, not JSON, or nested too deeply."""
    text = decode(data, where, error) if isinstance(data, bytes) else data
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise error(f"{where}: is not valid JSON ({_first(e)})") from e
    _check_size(value, where, error)
    return value


def read_json_lines(path: str | os.PathLike, error: type[DataError] = DataError) -> Iterator[tuple[int, dict]]:
    """Yield (line number, mapping) of a file with a JSON mapping in each line; raises as `read_json`."""
    for number, line in enumerate(read_text(path, error).splitlines(), 1):
        if line.strip():
            where = f"{path}:{number}"
            yield number, mapping(parse_json(line, where, error), where, error)


def write_json(path: str | os.PathLike, value: Any, indent: int | None = 1) -> None:
    """Write a value as a JSON file."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def write_json_lines(path: str | os.PathLike, values: Iterable[Any]) -> None:
    """Write values as a JSON file of one line each."""
    with atomic_path(path) as tmp, open(tmp, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(value) + "\n" for value in values)


# ---- sizes ---------------------------------------------------------------------------------------


def _check_size(value: Any, where: object, error: type[DataError]) -> None:
    try:
        size = _size(value, {}, 0)
    except RecursionError:
        raise error(f"{where}: is nested more than {MOST_DEPTH} deep, or holds itself") from None
    if size > MOST_VALUES:
        raise error(f"{where}: its aliases stand for more than {MOST_VALUES} values")


def _size(value: Any, known: dict[int, int], depth: int) -> int:
    """Number of plain values, those behind an alias as often as it occurs; each is looked at once."""
    if not isinstance(value, dict | list):
        return 1
    if depth > MOST_DEPTH:
        raise RecursionError
    if id(value) not in known:
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(part, known, depth + 1) for part in parts)
    return known[id(value)]


def _first(text: object) -> str:
    return (str(text).strip().splitlines() or ["unreadable"])[0]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
