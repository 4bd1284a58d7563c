"""Names: of files and identifiers, of files that the package carries, and of the options of commands."""

import argparse
import difflib
import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn


def safe_id(text: str) -> str:
    """Letters, digits, `_`, `.` and `+` stay; a run of anything else becomes one `-`."""
    return re.sub(r"[^\w.+]+", "-", text).strip("-.") or "sound"


def file_name(text: str, most: int = 100) -> str:
    """A part of a file name that reads like `text`: no separator, control character or dot at its ends.

    Args:
        most: bytes that it may have in UTF-8; what is longer is cut and told apart by a digest.
    """
    name = re.sub(r"[\\/:*?\"<>|\x00-\x1f\x7f-\x9f\ud800-\udfff]", "_", text).strip(" .") or "_"
    if re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name):  # devices of Windows
        name = f"_{name}"
    if len(name.encode()) <= most:
        return name
    mark = hashlib.blake2b(text.encode(errors="replace"), digest_size=4).hexdigest()
    return name.encode()[: most - len(mark) - 1].decode(errors="ignore") + f"-{mark}"


def unique(names: Iterable[str]) -> list[str]:
    """The names in their order, made different where two are equal by a number at the end."""
    taken: dict[str, None] = {}
    for name in names:
        new, number = name, 1
        while new in taken:
            number += 1
            new = f"{name}-{number}"
        taken[new] = None
    return list(taken)


STARTER = "starter"  # what the model in the package is called
PACKAGE = Path(__file__).resolve().parents[1]
MODELS = PACKAGE / "models"


def shipped(name: str) -> Path:
    """The project's folder `egs2` or `conf`: in the installed package, or at the top of a checkout.

    Raises:
        FileNotFoundError: it is in neither.
    """
    for top in (PACKAGE, PACKAGE.parent):
        if (top / name).is_dir():
            return top / name
    raise FileNotFoundError(f"{PACKAGE}: the package was installed without its folder {name}")


def bundle_file(name: str | os.PathLike) -> str:
    """The file of a bundle: `name`, or for `starter` that in the package, which an installation may lack."""
    ours = str(name) == STARTER and not os.path.exists(name)
    return str(MODELS / f"{STARTER}.zip") if ours else str(name)


_UNKNOWN = "unrecognized arguments: "  # how argparse begins


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations, as they become other options when one is added."""

    def __init__(self, *args, **options):
        super().__init__(*args, **{"allow_abbrev": False} | options)

    def error(self, message: str) -> NoReturn:
        """End with the usage and the message; an unknown option is answered with the nearest."""
        if message.startswith(_UNKNOWN):
            given = [word.partition("=")[0] for word in message.removeprefix(_UNKNOWN).split()]
            meant = [nearest(word, options_of(self)) for word in given if word.startswith("--")]
            message += "".join(f"; did you mean --{name}?" for name in meant[:1] if name)
        super().error(message)


def options_of(parser: argparse.ArgumentParser) -> list[str]:
    """Long options of a parser and of its commands."""
    found = [name for name in parser._option_string_actions if name.startswith("--")]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [name for command in action.choices.values() for name in options_of(command)]
    return [name.removeprefix("--") for name in found]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The name that was probably meant: one that begins so, one that holds it as a word, or the most similar (two
    letters of three will do)."""
    known, name = list(known), name.removeprefix("--")
    found = [k for k in known if k.startswith(name)] or [k for k in known if name in k.split()]
    return next(iter(found or difflib.get_close_matches(name, known, 1, 0.66)), None)
