"""A model from its configuration: plain PyTorch for our own networks and plugins, without a trainer.

`build_model` is what inference takes. Tasks build the same parts as classes for ESPnet (`Find`), and
in the same order, so that a seed gives the same initial weights.
"""

import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from espnet2_ext import registry
from espnet2_ext.core.nets import contracts
from espnet2_ext.core.nets.contracts import Tagger, TaggingModel
from espnet2_ext.core.separators import ClassSeparator, QuerySeparator, frame_sizes
from espnet2_ext.errors import DataError, refusing
from espnet2_ext.util.documents import mapping, short

SHARED = "shared"  # query_net: the separator's own encoder embeds the queries
WEAK = "weak_label"
TRUSTED = ("espnet2_ext.", "espnet2.")  # modules of networks that are not checked: tests do that for ours
TASKS = ("qsep", "weak", "tag")
Find = Callable[[str, str], type]  # (kind, name) to the class of a model's part

MOST = 1 << 24  # a whole number in a configuration is smaller
_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
_LISTS = (list, tuple, set, Sequence, Collection, Iterable)


def build_model(config: Mapping[str, Any], task: str, trusted: bool = False) -> nn.Module:
    """The model that an experiment's `config.yaml` describes, with random weights.

    Args:
        task: `qsep` gives a `QuerySeparator`, `weak` a `ClassSeparator`, `tag` a `TaggingModel`. The
            names of its weights are those of the model that ESPnet trains.
        trusted: the configuration is the user's own, so what it names by class path is imported (see `registry`).

    Raises:
        DataError: an unknown name, a key or value that a class does not take, parts that do not fit.
        PluginError: a plugin, or ESPnet for one of its own networks, that is not installed.
    """
    find = functools.partial(plain_class, trusted=trusted)
    if task == "qsep":
        return QuerySeparator(**query_parts(config, find), query_grad=config.get("query_grad", True))
    if task == "tag":
        return TaggingModel(query_network(config, find))
    parts, sizes = class_parts(config, find), stft_sizes(config)
    known = {k: config[k] for k in ("residual", "sample_rate") if k in config}
    return ClassSeparator(**parts, class_names=class_names(config), **known, **sizes)


def plain_class(kind: str, name: str, trusted: bool = False) -> type:
    """The class of a model's part in plain PyTorch; ESPnet's where only ESPnet has the name."""
    if registry.is_espnets(kind, name):
        return registry.espnet_class(kind, name)
    return registry.part(kind, name, trusted)


# ---- one object ----------------------------------------------------------------------------------


def make(find: Find, kind: str, name: str, conf: Mapping[str, Any] | None, **given) -> Any:
    """An object of the class that a YAML's `name` stands for, from `{kind}_conf` and what is `given`.

    Raises:
        DataError: an unknown name, or a key or value of `conf` that the class does not take.
    """
    cls = find(kind, name)
    made = construct(cls, conf, f"{kind}_conf of {name}", **given)
    if kind in contracts.CONTRACTS and not cls.__module__.startswith(TRUSTED):
        contracts.check(kind, made.net if kind in ("extractor", "separator") else made)
    return made


def construct(cls: Callable, conf: Mapping[str, Any] | None, where: str, **given) -> Any:
    """An object of `cls` from what a YAML says and what is `given`; errors begin with `where`: `check_arguments`."""
    conf = {} if conf is None else conf
    check_arguments(cls, conf, where, given)
    with refusing(where):
        return cls(**given, **conf)


def check_arguments(function: Callable, conf: Any, where: str, given: Collection[str] = ()) -> None:
    """Refuse (DataError, naming `where` and the key) what `function` does not take: keys that it has not or that are
    `given`, values of another type."""
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


def _part(config: Mapping[str, Any], find: Find, kind: str, **given) -> Any:
    if kind not in config:
        raise DataError(f"the configuration names no {kind}")
    return make(find, kind, config[kind], config.get(f"{kind}_conf"), **given)


def _decoder(config: Mapping[str, Any], find: Find, encoder: nn.Module) -> Any:
    """The decoder; refuses other frames than the encoder's (DataError)."""
    decoder = _part(config, find, "decoder")
    for name in ("n_fft", "hop", "hop_length"):
        sizes = [getattr(getattr(part, "stft", part), name, None) for part in (encoder, decoder)]
        if None not in sizes and sizes[0] != sizes[1]:
            raise DataError(f"{name} is {sizes[0]} in encoder_conf and {sizes[1]} in decoder_conf")
    return decoder


# ---- separation by query -------------------------------------------------------------------------


def query_parts(config: Mapping[str, Any], find: Find) -> dict[str, nn.Module | None]:
    """Encoder, extractor, decoder and query_net of a `QuerySeparator`; errors as in `build_model`."""
    encoder = _part(config, find, "encoder")
    query_net = None
    if config.get("query_net", SHARED) != SHARED:  # models older than the option share the encoder
        query_net = query_network(config, find, encoder.sample_rate)
    extractor = _extractor(config, find, encoder, query_net)
    return {
        "encoder": encoder,
        "extractor": extractor,
        "decoder": _decoder(config, find, encoder),
        "query_net": query_net,
    }


def query_network(config: Mapping[str, Any], find: Find, fs: int | None = None) -> Tagger:
    """The network of `query_net`; refuses another rate than the encoder's `fs` (DataError)."""
    try:
        net = _part(config, find, "query_net")
    except DataError as e:
        raise DataError(str(e).replace("there is: ", f"there is: {SHARED}, ", fs is not None)) from e
    if fs is not None and net.sample_rate != fs:
        raise DataError(
            f"query_net {config['query_net']} works at {net.sample_rate} Hz (query_net_conf "
            f"sample_rate), the encoder at {fs} Hz (encoder_conf sample_rate)"
        )
    return net


def _extractor(config: Mapping[str, Any], find: Find, encoder: Any, query_net: Tagger | None) -> nn.Module:
    """The extractor; where its width of queries is free and not given, it is the query network's.

    Raises:
        DataError: nothing makes query embeddings, or they are of another width; other bands than the encoder's.
    """
    name, conf = config.get("extractor"), config.get("extractor_conf") or {}
    known = {"sample_rate": encoder.sample_rate}
    if query_net is not None:
        known["query_dim"] = query_net.query_dim
    takes = inspect.signature(find("extractor", name)).parameters
    given = {"input_dim": encoder.output_dim} | {k: v for k, v in known.items() if k in takes and k not in conf}
    extractor = _part(config, find, "extractor", **given)
    bands = getattr(encoder, "num_bands", None), getattr(extractor.net, "num_bands", None)
    if None not in bands and bands[0] != bands[1]:
        raise DataError(f"num_bands is {bands[0]} in encoder_conf and {bands[1]} in extractor_conf")
    if query_net is None and not extractor.embeds:
        raise DataError(
            f"extractor {name} makes no query embeddings, so query_net cannot be "
            f"{SHARED}; there is: {', '.join(sorted(registry.TABLE['query_net']))}"
        )
    if query_net is not None and query_net.query_dim != extractor.net.query_dim:
        raise DataError(
            f"query_net {config['query_net']} gives embeddings of width "
            f"{query_net.query_dim}, extractor {name} takes {extractor.net.query_dim}"
        )
    return extractor


# ---- separation from weak labels -----------------------------------------------------------------


def class_parts(config: Mapping[str, Any], find: Find) -> dict[str, nn.Module | None]:
    """Encoder, separator, decoder and classifier of a `ClassSeparator`; errors as in `build_model`."""
    names = class_names(config)
    encoder = _part(config, find, "encoder")
    decoder = _decoder(config, find, encoder)
    classifier = separator = None
    if has_classifier(config):
        classifier = make_classifier(config, find, encoder)
    if config.get("part", "separator") == "separator":
        outputs = len(names) + bool(config.get("residual"))
        separator = _separator(config, find, encoder, outputs)
    return {"encoder": encoder, "separator": separator, "decoder": decoder, "classifier": classifier}


def class_names(config: Mapping[str, Any]) -> list[str]:
    """The classes of a model, in order; DataError where there are none."""
    if not config.get("class_names"):
        raise DataError("--class_names or --train_table is needed: the classes of the model")
    return list(config["class_names"])


def has_classifier(config: Mapping[str, Any]) -> bool:
    """Whether something asks for a classifier: a criterion `weak_label` on weak labels."""
    if config.get("part", "separator") == "classifier":
        return True
    return config.get("label_type", "frame") != "strong" and any(
        c["name"] == WEAK for c in config.get("criterions") or []
    )


def make_classifier(config: Mapping[str, Any], find: Find, encoder: nn.Module) -> nn.Module:
    """The classifier on what `encoder` gives; errors as in `build_model`."""
    n_fft, _ = frame_sizes(encoder, **stft_sizes(config))
    given = {"num_bins": n_fft // 2 + 1, "num_classes": len(class_names(config)), "fs": model_rate(config, encoder)}
    return _part(config, find, "classifier", **given)


def model_rate(config: Mapping[str, Any], encoder: nn.Module) -> int:
    """Sampling rate of a model in Hz: the encoder's, where it has one."""
    return getattr(encoder, "sample_rate", None) or config["sample_rate"]


def stft_sizes(config: Mapping[str, Any]) -> dict[str, int]:
    """`n_fft` and `hop_length` of `model_conf`, for the STFT that stands in for an encoder without."""
    conf = config.get("model_conf") or {}
    return {k: conf[k] for k in ("n_fft", "hop_length") if k in conf}


def _separator(config: Mapping[str, Any], find: Find, encoder: nn.Module, outputs: int) -> nn.Module:
    """The separator, given the number of outputs and the rate; any of ESPnet's will do."""
    name, conf = config.get("separator"), config.get("separator_conf") or {}
    takes = list(inspect.signature(find("separator", name)).parameters)
    known = {"num_spk": outputs, "sample_rate": model_rate(config, encoder)}
    given = {takes[0]: encoder.output_dim} | {k: v for k, v in known.items() if k in takes and k not in conf}
    separator = _part(config, find, "separator", **given)
    if separator.num_spk != outputs:
        raise DataError(
            f"separator {name} has {separator.num_spk} outputs, but the "
            f"classes{' and the residual' * bool(config.get('residual'))} are {outputs}: "
            f"{', '.join(class_names(config))}"
        )
    return separator
