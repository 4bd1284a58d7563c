"""Sounds rendered in parts, an archive each: what data folders made from a list have in common."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from espnet2_ext.audio.read import read_scp
from espnet2_ext.errors import DataError


def part_size_of(items: int) -> int:
    """Items of an archive: a 32nd of all, but 8 to 256."""
    return min(max(-(-items // 32), 8), 256)


def part_name(n: int) -> str:
    """Name of the archive of part `n`, without its ending."""
    return f"audio.{n:05d}"


def merge(parts: Sequence[Path], out_dir: Path) -> tuple[dict[str, str], int]:
    """Places of all sounds, and how many items were lowered.

    Args:
        parts: files of the parts, JSON with the archive's `bytes` and the number `scaled`.

    Raises:
        DataError: names an archive that is not as it was written; its part will be made anew.
    """
    places, scaled = {}, 0
    for n, part in enumerate(parts):
        about, ark = read_json(part), out_dir / f"{part_name(n)}.ark"
        if not ark.is_file() or ark.stat().st_size != about.get("bytes"):
            part.unlink()
            raise DataError(f"{ark}: was taken away or changed; start again to make it anew")
        places.update(read_scp(out_dir / f"{part_name(n)}.scp"))
        scaled += about["scaled"]
    return places, scaled


def clear(out_dir: Path, num_parts: int) -> None:
    """Remove what only served the making, and archives of an earlier list."""
    ours = {f"{part_name(n)}.ark" for n in range(num_parts)}
    for path in out_dir.glob("audio.[0-9]*"):
        if path.name not in ours:
            path.unlink()
    shutil.rmtree(out_dir / "parts")


def read_json(path: Path) -> dict:
    """What a file holds; nothing where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
