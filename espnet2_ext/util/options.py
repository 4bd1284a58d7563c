"""Options of commands: written in full, and a wrong one is answered with the nearest."""

import argparse
import difflib
from collections.abc import Iterable
from typing import NoReturn

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
