"""Options of the drivers: `--name value`, as ESPnet's recipes take them, and the names of experiments that they make.

A driver declares its own as a dataclass. Needs nothing but Python, so that `./run.sh --help` works before anything is
installed.
"""

import dataclasses
import functools
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from espnet2_ext.errors import DataError
from espnet2_ext.util.names import STARTER, bundle_file, nearest

CALLER = "caller"  # `--caller DIR`: paths in the options after it are relative to DIR, where the user stands
NO_PATHS = (STARTER, "auto", "none")  # words in place of a path
_WIDTH = 18  # of an option's name in the help


def option(group: str, default: Any, text: str, *, path: bool = False, choices: Sequence[str] = ()) -> Any:
    """A field of an options class.

    Args:
        group: headline in the help. default: its type is what the option takes: true or false, a whole number, text.
        text: help. path: the value is a path, which a user means from where they stand. choices: the values it takes.
    """
    return dataclasses.field(default=default, metadata={"group": group, "text": text, "path": path, "choices": choices})


def group(name: str) -> Callable[..., Any]:
    """`option` with the headline `name`."""
    return functools.partial(option, name)


_general, _folders, _data, _use = map(group, ("General", "Folders", "Data", "Use of the model"))


@dataclasses.dataclass(kw_only=True)
class Options:
    """Options that all drivers have. `fs` may be written 32k; values of several words are split by `words`."""

    CONFIG: ClassVar[str] = ""  # name of the option that `--config` stands for
    USAGE: ClassVar[str] = ""  # first lines of the help

    stage: int = _general(1, "first stage")
    stop_stage: int = _general(100, "last stage")
    skip_data_prep: bool = _general(False, "skip the data stages")
    skip_train: bool = _general(False, "skip the training stages")
    skip_eval: bool = _general(False, "skip everything after training")
    ngpu: str = _general("auto", "GPUs per node for training; 0: CPU; auto: one if available")
    num_nodes: int = _general(1, "machines for training, started through cmd.sh")
    host: str = _general("", "machines by name, reached by ssh: host1,host2")
    nj: str = _general(str(os.cpu_count() or 1), "processes of data preparation and scoring")
    inference_nj: str = _general("1", "inference processes; each loads the model")
    gpu_inference: str = _general("auto", "inference on a GPU: true, false, or auto: if available")
    scheduler: str = _general("", "address of a Dask scheduler, whose cluster does all but training")
    python: str = _general("python", "Python that runs the steps")
    datadir: str = _folders("data", "lists, manifests and tables", path=True)
    dumpdir: str = _folders("dump", "archives of sound", path=True)
    expdir: str = _folders("exp", "models, outputs, results", path=True)
    local_data_opts: str = _data("", "options of local/data.sh")
    fs: str = _data("32000", "sample rate")
    audio_format: str = _data("flac", "archive format: flac, or the faster pcm16")
    max_bad_share: str = _data("0.1", "stop when more than this share of a set's clips cannot be used")
    train_set: str = _data("train", "name of the training set")
    valid_set: str = _data("valid", "name of the validation set; may be the training set")
    test_sets: str = _data("test", "names of the test sets")
    inference_model: str = _use("valid.loss.best.pth", "which checkpoint to use")
    inference_tag: str = _use("", "prefix of the names of outputs and scores")
    inference_args: str = _use("", "more options for inference")

    @classmethod
    def parse(cls, argv: Sequence[str]) -> Self:
        """Options of a command line; the last of repeated options counts. `--help` prints them and ends the process.

        Raises:
            DataError: an unknown option (the nearest is named), a missing value or one of another type.
        """
        fields = {f.name: f for f in dataclasses.fields(cls)}
        options = cls()
        for given, name, value in pairs(argv, [f.name for f in fields.values() if f.metadata["path"]] + ["config"]):
            if name == "help":
                print(options.help())
                sys.exit(0)  # with what the options before it set
            if not given.startswith("--"):
                raise DataError(f"what is '{given}'? Options are written --name value; see --help")
            name = cls.CONFIG if name == "config" else name
            if name not in fields:
                near = nearest(name, [*fields, "config", "help"])
                hint = f"did you mean --{near}?" if near else "--help lists the options"
                raise DataError(f"unknown option {given}; {hint}")
            if value is None:
                raise DataError(f"option {given} needs a value")
            setattr(options, name, _typed(given, value, fields[name]))
        if options.fs.endswith("k"):
            options.fs = options.fs[:-1] + "000"
        return options

    def help(self) -> str:
        """The options with their values."""
        lines, fields = [self.USAGE], dataclasses.fields(self)
        for heading in dict.fromkeys(f.metadata["group"] for f in fields):
            lines.append(heading)
            for f in fields:
                if f.metadata["group"] == heading:
                    value = str(getattr(self, f.name)).replace("True", "true").replace("False", "false")
                    alias = "; alias: --config" if f.name == self.CONFIG else ""
                    lines.append(f"  --{f.name:<{_WIDTH - 2}} {f.metadata['text']}{alias} ({value})")
        return "\n".join(lines)

    @property
    def sets(self) -> list[str]:
        """Names of all sets, each once."""
        return list(dict.fromkeys(f"{self.train_set} {self.valid_set} {self.test_sets}".split()))

    def words(self, name: str) -> list[str]:
        """Value of an option that holds several words, such as options for a step, split as a shell does.

        Raises:
            DataError: a quotation mark without its other half.
        """
        try:
            return shlex.split(getattr(self, name))
        except ValueError as e:
            raise DataError(f"--{name}: {e}: {getattr(self, name)}") from None


def pairs(argv: Sequence[str], paths: Sequence[str] = ()) -> list[tuple[str, str, str | None]]:
    """A command line as (option as given, its name, value or None); `--a-b=1` is `--a_b 1`, `-h` is `--help`.

    Args:
        paths: names of options whose value is a path; after `--caller DIR` a relative one is put behind DIR.
    """
    found, rest, caller = [], list(argv), ""
    while rest:
        given, equals, value = rest.pop(0).partition("=")
        name = given.removeprefix("--").replace("-", "_")
        if given in ("--help", "-h"):
            found.append((given, "help", None))
            continue
        if not given.startswith("--"):
            found.append((given + equals + value, "", None))
            continue
        value = value if equals else rest.pop(0) if rest else None
        if name == CALLER:
            caller = "" if value == os.getcwd() else value or ""
            continue
        if name in paths and value and caller and value not in NO_PATHS:
            value = os.path.join(caller, value)
        found.append((given, name, value))
    return found


def _typed(given: str, value: str, field: dataclasses.Field) -> str | int | bool:
    choices = ("true", "false") if field.type is bool else field.metadata["choices"]
    if choices and value not in choices:
        *others, last = choices
        raise DataError(f"option {given} takes {', '.join(others)} or {last}, not '{value}'")
    if field.type is int and not value.isdecimal():
        raise DataError(f"option {given} takes a number, not '{value}'")
    return int(value) if field.type is int else value == "true" if field.type is bool else value


def option_tag(*args: str) -> str:
    """What options for a training add to an experiment's name: `--lr 1 --seed=2` is `_lr1_seed2`."""
    return " ".join(args).replace("--", "_").translate(str.maketrans("", "", " |=/"))


def config_name(config: str) -> str:
    """A YAML's name without folder and suffix."""
    return Path(config).name.removesuffix(".yaml")


def query_tag(config: str, args: str = "") -> str:
    """Name of a query experiment, whose folder is `qsep_NAME`."""
    return config_name(config) + option_tag(args)


def tagger_tag(config: str, args: str = "") -> str:
    """Name of a tagger's experiment, whose folder is `tag_NAME`."""
    return (config_name(config) + option_tag(args)).removeprefix("tag_")


def bundle_tag(bundle: str) -> str:
    """Name of the experiment that uses a trained model: a bundle or a query experiment's folder."""
    return Path(bundle).name.removesuffix(".zip").removeprefix("qsep_")


BEGINS = "bundle that a training begins with; auto: the package's, if there is one"


def initial(init: str) -> Path | None:
    """The bundle that --init names: auto is that of the package, if there is one; none is none.

    Raises:
        DataError: no such file.
    """
    if init == "none":
        return None
    bundle = Path(bundle_file(STARTER if init == "auto" else init))
    if init != "auto" and not bundle.is_file():
        raise DataError(f"--init: there is no bundle {bundle}; none trains without")
    return bundle if bundle.is_file() else None


class WeakTags(NamedTuple):
    """Names of the experiments of one run on weak labels; folders are `weak_SEPARATOR_LABELTYPE` and
    `weak_CLASSIFIER_classifier_LABELTYPE`."""

    separator: str
    classifier: str


def weak_tags(
    config: str,
    *,
    weak_tag: str = "",
    weak_args: str = "",
    classifier_args: str = "",
    separator_args: str = "",
    trainer: str = "espnet",
    strategy: str = "fixed",
    trials: int = 1,
    init: str = "",
) -> WeakTags:
    """Names of the separators and classifiers that the options of `weak.sh` make.

    Args:
        strategy: that of the options or else of the YAML; empty: fixed.
        trials: several are told apart by their seeds, and the best of them is named after that.
        init: name of the bundle that they begin with; empty: with none.
    """
    if weak_tag:
        return WeakTags(weak_tag, weak_tag)
    best = "" if trials == 1 else "_best"
    classifier = (
        config_name(config) + (f"_from_{init}" if init else "") + best + option_tag(weak_args + classifier_args)
    )
    separator = classifier + option_tag(separator_args)
    end = "" if trainer == "espnet" else f"_{trainer}"
    kind = "" if strategy in ("", "fixed") else f"_{strategy}"
    return WeakTags(separator + end + kind, classifier + end)
