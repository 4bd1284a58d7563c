"""Copies a recipe out of the installed package, so that it runs without a checkout."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from espnet2_ext.errors import DataError
from espnet2_ext.util.names import shipped
from espnet2_ext.util.options import Parser

_MADE = shutil.ignore_patterns("data", "dump", "exp", "downloads")  # by runs in a checkout
_SETUP = shutil.ignore_patterns("setup.sh", "start")  # for new recipes in a checkout
_TEMPLATES = {"qsep": ("qsep1", "tag1"), "weak": ("weak1",)}  # end of a recipe's name -> folders of its drivers


def recipes() -> list[str]:
    """Names of the recipes."""
    return sorted(path.parent.name for path in shipped("egs2").glob("*/run.sh"))


def copy_recipe(name: str, folder: Path) -> Path:
    """Copy a recipe with its drivers and all of `conf`, links as files.

    Raises:
        DataError: no such recipe, or `folder` exists.
    """
    if name not in recipes():
        raise DataError(f"no recipe {name}; there is {', '.join(recipes())}")
    if folder.exists():
        raise DataError(f"{folder} exists already: name another folder")
    egs2 = shipped("egs2")
    shutil.copytree(egs2 / name, folder, ignore=_MADE)
    for template in ("common", *_TEMPLATES[name.rpartition("_")[2]]):  # where the package holds no links
        shutil.copytree(egs2 / "TEMPLATE" / template, folder, ignore=_SETUP, dirs_exist_ok=True)
    shutil.copytree(shipped("conf"), folder / "conf", dirs_exist_ok=True)
    for script in [*folder.rglob("*.sh"), *folder.rglob("*.pl")]:
        script.chmod(0o755)  # which a wheel may have lost
    return folder


def main(argv: Sequence[str]) -> None:
    """`espnet2-ext recipe NAME [FOLDER]`."""
    p = Parser(description=f"Copy a recipe's folder to work in: {', '.join(recipes())}.")
    p.add_argument("name", help="recipe, such as audioset_qsep")
    p.add_argument("folder", nargs="?", type=Path, help="new folder (default: the recipe's name, here)")
    args = p.parse_args(argv)
    folder = copy_recipe(args.name, args.folder or Path(args.name))
    print(f"{folder}: now cd {folder} && ./run.sh --help")
