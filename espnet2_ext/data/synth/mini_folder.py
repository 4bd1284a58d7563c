"""The folder of an embedded corpus: which settings it was made with, so that a call can go on."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from espnet2_ext.errors import DataError
from espnet2_ext.util.files import write_text


def is_same(root: Path, settings: dict) -> bool:
    """Whether `root` was begun with these settings.

    Raises:
        DataError: settings that cannot be read, or a folder with other files.
    """
    file = root / "settings.json"
    if file.is_file():
        try:
            return json.loads(file.read_text(encoding="utf-8")) == settings
        except ValueError as e:
            raise DataError(f"{file}: not JSON ({e}); remove the folder to make it anew") from e
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root}: holds files that are not from here; name a new folder")
    return False


def start(root: Path, settings: dict, folders: Iterable[str]) -> None:
    """Clear the `folders` that other settings left, and write these settings."""
    (root / "done.json").unlink(missing_ok=True)
    for folder in folders:
        shutil.rmtree(root / folder, ignore_errors=True)
    write_text(root / "settings.json", json.dumps(settings, indent=1) + "\n")
