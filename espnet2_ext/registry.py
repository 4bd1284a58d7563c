"""The table of names that a YAML can use, of ours and of plugins, and what puts them into ESPnet.

A new class is one line in `TABLE`. A name stands for a class path, `package.module:Class`, which is
imported when it is asked for: reading the table imports neither PyTorch nor ESPnet.

A plugin is a package of the user's own. It names its classes as entry points of the group `espnet2_ext.plugins`, each
called `KIND.NAME` (`extractor.my_net = "my_package.my_net:MyNet"`), or a YAML gives the class path in place of a name.
Nothing of a package is imported unless the user allows it: by installing it with such an entry point, by the
environment variable `ESPNET2_EXT_PLUGINS=my_package,other`, or by naming it in a YAML of his own (`trusted`).
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from espnet2_ext.errors import DataError, PluginError

TABLE: dict[str, dict[str, str]] = {
    "encoder": {
        "hann_stft": "espnet2_ext.core.layers.spectrum:HannSTFTEncoder",
        "mel_band_split": "espnet2_ext.core.layers.spectrum:MelBandSplitEncoder",
        "sqrt_hann_stft": "espnet2_ext.core.layers.spectrum:SqrtHannSTFTEncoder",
    },
    "decoder": {
        "hann_stft": "espnet2_ext.core.layers.spectrum:HannSTFTDecoder",
        "mel_band_merge": "espnet2_ext.core.layers.spectrum:MelBandMergeDecoder",
        "sqrt_hann_stft": "espnet2_ext.core.layers.spectrum:SqrtHannSTFTDecoder",
    },
    "extractor": {
        "care_components": "espnet2_ext.core.nets.care_sep:CaREComponents",
        "care_sep": "espnet2_ext.core.nets.care_sep:CaRESep",
        "query_unet": "espnet2_ext.core.nets.query_unet:QueryUNet",
    },
    "query_net": {
        "hts_at": "espnet2_ext.core.nets.hts_at:HTSAT",
        "cnn14": "espnet2_ext.core.nets.cnn14:CNN14",
        "care_cls": "espnet2_ext.core.nets.care_cls:CaRECLS",
    },
    "separator": {
        "mask_blstm": "espnet2_ext.core.nets.mask_nets:BLSTMMasker",
        "mask_conv": "espnet2_ext.core.nets.mask_nets:ConvMasker",
        "asteroid_masker": "espnet2_ext.enh.asteroid_parts:AsteroidMasker",
    },
    "classifier": {
        "rnn": "espnet2_ext.core.nets.sed:RNNClassifier",
        "crnn": "espnet2_ext.core.nets.sed:CRNNClassifier",
    },
    "criterion": {
        "wave_l1": "espnet2_ext.core.losses.separation:wave_l1",
        "neg_sdr": "espnet2_ext.core.losses.separation:neg_sdr",
        "tagging": "espnet2_ext.core.losses.tagging:tagging_bce",
        "mixture_tagging": "espnet2_ext.core.losses.tagging:mixture_tagging",
        "weak_label": "espnet2_ext.enh.losses:WeakLabelCriterion",
        "asteroid": "espnet2_ext.enh.asteroid_parts:AsteroidLoss",
    },
    "loss_wrapper": {
        "keyed_order": "espnet2_ext.enh.losses:KeyedOrderSolver",
        "all_sources": "espnet2_ext.enh.losses:AllSourcesSolver",
    },
}
NETWORKS = ("encoder", "decoder", "extractor", "query_net", "separator", "classifier")  # keys of a model's YAML
GROUP, VARIABLE = "espnet2_ext.plugins", "ESPNET2_EXT_PLUGINS"


# ---- names to classes ----------------------------------------------------------------------------


def find(kind: str, name: str, trusted: bool = False) -> Any:
    """What `name` stands for: of ours, of a plugin, or a class path. The one place that resolves it.

    Args:
        kind: a key of `TABLE`.
        trusted: the name comes from the user's own YAML, so its class path may be imported.

    Returns:
        A plain PyTorch class; of a criterion, it may be a function or a class for ESPnet.

    Raises:
        DataError: an unknown name, or a class path that leads to nothing.
        PluginError: a package that is not installed, or that the user does not allow.
    """
    if not isinstance(name, str):
        raise unknown(kind, name)
    if path := TABLE[kind].get(name.lower()):
        return _import(kind, path)
    if is_path(name):
        check_plugin(kind, name, trusted)
        return _network(kind, name)
    if entry := plugins().get((kind, name.lower())):
        return _network(kind, entry.value)
    raise unknown(kind, name)


def part(kind: str, name: str, trusted: bool = False) -> type:
    """The plain class of a model's part: of an extractor or a separator, what holds the network."""
    from espnet2_ext.core.nets import masking

    around = {"extractor": masking.extractor_of, "separator": masking.separator_of}.get(kind)
    found = find(kind, name, trusted)
    try:
        return found if around is None else around(found)
    except TypeError as e:
        raise DataError(f"{kind} {name}: {e}") from e


def unknown(kind: str, name: object, names: Mapping[str, Any] | None = None) -> DataError:
    """The error for a name that is not in `names` (default: `TABLE` and plugins)."""
    known = sorted(names or [*TABLE[kind], *(n for k, n in plugins() if k == kind)])
    return DataError(f"unknown {kind} {name!r}; there is: {', '.join(known)}")


def is_path(name: object) -> bool:
    """Whether a name of a YAML is a class path, `package.module:Class`."""
    return isinstance(name, str) and ":" in name


def _import(kind: str, path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except ModuleNotFoundError as e:
        if e.name is not None and not f"{module}.".startswith(f"{e.name}."):
            raise  # a package that the plugin itself needs
        raise DataError(f"{kind} {path}: there is no module {e.name}") from e
    except AttributeError as e:
        raise DataError(f"{kind} {path}: {module} has no {name}") from e


def _network(kind: str, path: str) -> Any:
    """A plugin's class, or its criterion; DataError for anything else, which must not be called."""
    from torch import nn

    found = _import(kind, path)
    if kind in NETWORKS and not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise DataError(f"{kind} {path}: is not a class of PyTorch modules")
    return found


# ---- plugins -------------------------------------------------------------------------------------


@functools.cache
def plugins() -> dict[tuple[str, str], importlib.metadata.EntryPoint]:
    """(kind, name) -> entry point of the installed plugins; nothing of them is imported.

    Raises:
        DataError: an entry point that is not called KIND.NAME.
    """
    found = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        kind, _, name = entry.name.partition(".")
        if kind not in TABLE or not name:
            raise DataError(
                f"entry point {entry.name!r} of {_requirement(entry)}: must be called KIND.NAME, KIND one of "
                f"{', '.join(TABLE)}"
            )
        found[kind, name.lower()] = entry
    return found


def _requirement(entry: importlib.metadata.EntryPoint) -> str:
    return f"{entry.dist.name}=={entry.dist.version}" if entry.dist else entry.value


def check_plugin(kind: str, path: str, trusted: bool = False) -> None:
    """Refuse (PluginError) a class path whose package is not installed or not allowed; see the module."""
    top = path.partition(":")[0].partition(".")[0]
    if not _on_path(top):
        raise PluginError(f"{kind} {path}: the package {top!r} is not installed; install the plugin that holds it")
    allowed = {t.strip() for t in os.environ.get(VARIABLE, "").split(",")}
    allowed |= {entry.module.partition(".")[0] for entry in plugins().values()}
    if not trusted and top not in allowed:
        raise PluginError(
            f"{kind} {path}: the package {top!r} is not allowed to be imported; if you trust it, set {VARIABLE}={top}"
        )


def _on_path(package: str) -> bool:
    """Whether a top-level package can be imported; it is not."""
    return package.isidentifier() and package != "__main__" and importlib.util.find_spec(package) is not None


def absent(requirements: Iterable[str]) -> list[str]:
    """Those of the packages that `plugins_of` named which are not installed here, whatever their version."""
    names = {r: r.partition("==")[0] for r in map(str, requirements)}
    return [r for r, name in names.items() if not (_on_path(name) or _is_distribution(name))]


def _is_distribution(name: str) -> bool:
    try:
        return bool(importlib.metadata.version(name))
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False


def plugins_of(config: Mapping[str, Any]) -> list[str]:
    """The packages that a model's configuration needs besides this one, `NAME==VERSION`.

    A package that is not installed as a distribution (a folder on the path) is named without a version.
    """
    needed = set()
    for kind in NETWORKS:
        name = config.get(kind)
        if is_path(name):
            top = name.partition(":")[0].partition(".")[0]
            dists = importlib.metadata.packages_distributions().get(top, [])
            needed |= {f"{d}=={importlib.metadata.version(d)}" for d in dists} or {top}
        elif isinstance(name, str) and (entry := _entry(kind, name)):
            needed.add(_requirement(entry))
    return sorted(needed)


def _entry(kind: str, name: str) -> importlib.metadata.EntryPoint | None:
    return None if name.lower() in TABLE[kind] else plugins().get((kind, name.lower()))


# ---- ESPnet --------------------------------------------------------------------------------------


def is_espnets(kind: str, name: object) -> bool:
    """Whether a name is neither ours nor a plugin's: then only ESPnet can know it."""
    return isinstance(name, str) and not is_path(name) and name.lower() not in TABLE[kind] and not _entry(kind, name)


def espnet_class(kind: str, name: str, trusted: bool = False) -> type:
    """The class for ESPnet that a name stands for, ESPnet's own names included; errors as `find`.

    Raises:
        PluginError: ESPnet is not installed.
    """
    try:
        from espnet2_ext.enh import adapt
    except ModuleNotFoundError as e:
        raise PluginError(
            f"{kind} {name!r}: there is none of this name here, and ESPnet, which may have one, cannot be imported "
            f"({e}); pip install espnet. Here is: {', '.join(sorted(TABLE[kind]))}"
        ) from e
    classes = adapt.table(kind).classes
    if isinstance(name, str) and name.lower() in classes:
        return classes[name.lower()]
    if is_espnets(kind, name) or not isinstance(name, str):
        raise unknown(kind, name, classes)
    return adapt.as_espnets(kind, find(kind, name, trusted), name)


@functools.cache
def register() -> None:
    """Put every name of `TABLE` and of installed plugins into ESPnet's tables.

    Raises:
        ValueError: a name that is not lower case, is taken by another class, or a class of the wrong kind.
    """
    from espnet2_ext.enh import adapt

    for kind, name in [*_ours(), *plugins()]:
        adapt.add(adapt.table(kind), name, adapt.as_espnets(kind, find(kind, name), name))


def _ours() -> Iterator[tuple[str, str]]:
    return ((kind, name) for kind, names in TABLE.items() for name in names)
