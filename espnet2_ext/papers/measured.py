"""What an experiment measured, whichever driver made it, as metrics by name with their data."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet2_ext.errors import refusing
from espnet2_ext.recipe.training import begun_data
from espnet2_ext.util.documents import read_fields
from espnet2_ext.util.tables import number, read_tsv

QSEP = ("sdr", "sdr_gain", "si_sdr", "si_sdr_gain", "clean_sdr", "silence_sdr")
_TABLE = {"settings": ({"mean_events?": (float, None)}, None), "mixtures": int, "table_hash": str}
_LAMBDA = re.compile(r"_lambda([\d.]+)$")


class Scores(NamedTuple):
    """Scores of one experiment (or the mean of several seeds') on one test set.

    Attributes:
        test: name of the set, without its lambda; mean_events: that lambda, as its name says.
        protocol: of the query, or None. data: the test set in words; digest: its hash,
            "" for taggers, whose clips need no list.
        values: metric -> statistic (mean, median) -> value; None: not defined.
    """

    test: str
    mean_events: str | None
    protocol: str | None
    data: str
    digest: str
    values: dict[str, dict[str, float | None]]


def read_scores(exp_dir: Path) -> list[Scores]:
    """All scored sets of an experiment; empty where nothing was scored.

    Raises:
        DataError: a file of scores that is broken, by name.
    """
    found = []
    for path in sorted(exp_dir.glob("inference_*/scores/summary.json")):
        summary, test = read_fields(path, {}), path.parents[1].name.removeprefix("inference_")
        with refusing(f"{path}: is not the scores of a test set"):
            found += _qsep(summary, test) if "protocols" in summary else [_weak(summary, test)]
    for path in sorted(exp_dir.glob("tagging_*/scores.json")):
        scores = read_fields(path, {"map": float})
        found.append(_tagging(scores, path.parent.name.removeprefix("tagging_")))
    return found


def _qsep(summary: dict, test: str) -> list[Scores]:
    info, found = summary["list"], []
    data = (
        f"{summary['data_dir']}: {summary['keys']} targets in {info.get('pairs', '?')} "
        f"mixtures, list {info.get('list_hash', '?')}"
    )
    for protocol, figures in summary["protocols"].items():
        values = {m: _stats(figures[m]) for m in QSEP if m in figures}
        digest = str(info.get("list_hash", "?"))
        found.append(Scores(test, None, protocol, data, digest, values))
    return found


def _weak(summary: dict, test: str) -> Scores:
    table, classes = summary["table"], summary["classes"]
    values = {}
    for cls, figures in [*summary["scores"].items(), ("overall", summary["overall"])]:
        values |= {f"{m}.{cls}": _stats(figures[m]) for m in ("input", "gain") if m in figures}
    for level, figures in (summary["detection"] or {}).items():
        values |= {f"{level}_f.{c}": {"mean": f} for c, f in zip(classes, figures["f"])}
    data = f"{summary['data_dir']}: {summary['keys']} mixtures, table {table['table_hash']}"
    if events := (table.get("settings") or {}).get("mean_events"):
        data += f", lambda {events:g}"
    match = _LAMBDA.search(test)
    return Scores(_LAMBDA.sub("", test), match and match[1], None, data, table["table_hash"], values)


def _tagging(scores: dict, test: str) -> Scores:
    data = f"{scores.get('bank', test)}: {scores.get('keys', '?')} clips, manifest {scores.get('manifest_hash', '?')}"
    return Scores(test, None, None, data, "", {"map": {"mean": scores["map"]}})


def _stats(figures: dict) -> dict:
    return {"mean": figures["mean"], "median": figures["median"]}


def read_statistics(table: Path) -> Scores:
    """Tables II and III of a table of mixtures, as its preparation counted them.

    Raises:
        DataError: no statistics there, or broken ones.
    """
    info, path = read_fields(table / "table.json", _TABLE), table / "statistics.tsv"
    values = {
        f"{kind}.{name}": {"mean": number(f"{path}:{line}: {kind} of {name}", value)}
        for line, (kind, name, value) in read_tsv(path, ("table", "name", "value"))
    }
    events = (info["settings"] or {}).get("mean_events")
    data = f"{table}: {info['mixtures']} mixtures, table {info['table_hash']}"
    return Scores(table.parent.name, None if events is None else f"{events:g}", None, data, info["table_hash"], values)


def trained_on(exp_dir: Path) -> str | None:
    """Size and hash of the training data, or None where nobody noted them.

    The driver's first note is `clips in FOLDER: HASH`, the folder as seen from the recipe's. The
    size comes from there, and is left out where other data lie there now.
    """
    if model := scored_model(exp_dir):
        return model.get("facts", {}).get("trained on")
    what, digest = begun_data(exp_dir) or ("", "")
    folder = what.partition(" in ")[2]
    for recipe in exp_dir.absolute().parents:
        for name, unit, key in (("bank.json", "clips", "manifest_hash"), ("table.json", "mixtures", "table_hash")):
            about = recipe / folder / name
            if digest and folder and about.is_file() and read_fields(about, {}).get(key) == digest:
                return f"{read_fields(about, {}).get(unit, '?')} {unit}, {digest}"
    return digest or None


def scored_model(exp_dir: Path) -> dict:
    """What `model.json` says of a model that was trained elsewhere; {} of one trained here."""
    path = exp_dir / "model.json"
    return read_fields(path, {"facts?": {str: str}}) if path.is_file() else {}


class Spread(NamedTuple):
    """A mean over seeds: mean, standard deviation (n - 1; None for one), number of seeds."""

    mean: float
    std: float | None
    count: int


def over_seeds(values: Sequence[float | None]) -> Spread | None:
    """Mean and spread; None where nothing was measured."""
    known = [v for v in values if v is not None]
    if not known:
        return None
    return Spread(float(np.mean(known)), float(np.std(known, ddof=1)) if known[1:] else None, len(known))
