"""ESPnet's tables of names (`ClassChoices`), with two kinds that ESPnet has none for.

Classifiers are those of `core.nets.sed` themselves, query networks those of `core.nets.tagger`.
"""

from collections.abc import Callable

from espnet2.tasks import enh, enh_tse
from espnet2.train.class_choices import ClassChoices
from espnet2.utils.types import str_or_none
from torch import nn

from espnet2_ext.core.nets.tagger import Tagger

classifier_choices = ClassChoices(name="classifier", classes={}, type_check=nn.Module, default="crnn")
query_net_choices = ClassChoices(name="query_net", classes={}, type_check=Tagger, default="hts_at")


def table(kind: str) -> ClassChoices:
    """ESPnet's table of a kind of `registry.TABLE`, or `preprocessor`s of its extraction task."""
    if kind in ("classifier", "query_net"):
        return {"classifier": classifier_choices, "query_net": query_net_choices}[kind]
    return getattr(enh_tse if kind == "extractor" else enh, f"{kind}_choices")


def add(choices: ClassChoices, name: str, cls: type) -> None:
    """Put one class into a table; again changes nothing.

    Raises:
        ValueError: a name that is not lower case, is taken by another class, or a class of the
            wrong kind.
    """
    if name != name.lower():
        raise ValueError(f"{choices.name} {name!r}: names must be lower case")
    if choices.base_type is not None and not issubclass(cls, choices.base_type):
        raise ValueError(f"{choices.name} {name!r}: {cls.__name__} is not a {choices.base_type.__name__}")
    if choices.classes.setdefault(name, cls) is not cls:
        raise ValueError(f"{choices.name} {name!r} is already {choices.classes[name].__name__}")


class OrPath(tuple):
    """Names that an option takes; a class path, `package.module:Class`, is one as well."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or ":" in str(name)


def name_or_path(text: str) -> str | None:
    """A name in lower case, a class path as it is."""
    return text if ":" in text else str_or_none(text.lower())


class PluginChoices(ClassChoices):
    """A table whose option takes class paths, too.

    Args:
        choices: ESPnet's table, whose names are shared.
        resolve: (kind, class path) to a class for ESPnet.
    """

    def __init__(self, choices: ClassChoices, resolve: Callable[[str, str], type]):
        super().__init__(choices.name, {}, choices.base_type, choices.default, choices.optional)
        self.classes, self.resolve = choices.classes, resolve

    def choices(self) -> tuple[str | None, ...]:
        return OrPath(super().choices())

    def get_class(self, name: str | None) -> type | None:
        return self.resolve(self.name, name) if name is not None and ":" in name else super().get_class(name)

    def add_arguments(self, parser) -> None:
        super().add_arguments(parser)
        option = parser._option_string_actions[f"--{self.name}"]
        option.type, option.help = name_or_path, f"{option.help}, or a class path: my_package.my_net:MyNet"
