"""What an experiment measured, whichever driver made it, as metrics by name with their data."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet2_ext.data.tables import read_tsv
from espnet2_ext.errors import DataError

QSEP = ("sdr", "sdr_gain", "si_sdr", "si_sdr_gain", "clean_sdr", "silence_sdr")
_LAMBDA = re.compile(r"_lambda([\d.]+)$")


class Scores(NamedTuple):
    """Scores of one experiment (or the mean of several seeds') on one test set.

    Attributes:
        test: name of the set, without its lambda; mean_events: that lambda, as its name says.
        protocol: of the query, or None. data: what tells the test set, as text.
        values: metric -> statistic (mean, median) -> value; None: not defined.
    """

    test: str
    mean_events: str | None
    protocol: str | None
    data: str
    values: dict[str, dict[str, float | None]]


def read_scores(exp_dir: Path) -> list[Scores]:
    """All scored sets of an experiment; empty where nothing was scored.

    Raises:
        DataError: a file of scores that is broken, by name.
    """
    found = []
    for path in sorted(exp_dir.glob("inference_*/scores/summary.json")):
        summary, test = load_json(path), path.parents[1].name.removeprefix("inference_")
        try:
            found += _qsep(summary, test) if "protocols" in summary else [_weak(summary, test)]
        except (KeyError, TypeError) as e:
            raise DataError(f"{path}: not the scores of a test set: {e!r} is missing") from e
    for path in sorted(exp_dir.glob("tagging_*/scores.json")):
        found.append(_tagging(load_json(path), path.parent.name.removeprefix("tagging_"), path))
    return found


def load_json(path: Path) -> dict:
    """Content of a JSON file; a DataError names one that is not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise DataError(f"{path}: not a whole JSON file ({e})") from e


def _qsep(summary: dict, test: str) -> list[Scores]:
    info, found = summary["list"], []
    data = f"{summary['data_dir']}: {summary['keys']} targets in {info.get('pairs', '?')} " \
           f"mixtures, list {info.get('list_hash', '?')}"  # fmt: skip
    for protocol, figures in summary["protocols"].items():
        values = {m: _stats(figures[m]) for m in QSEP if m in figures}
        found.append(Scores(test, None, protocol, data, values))
    return found


def _weak(summary: dict, test: str) -> Scores:
    table, classes = summary["table"], summary["classes"]
    values = {}
    for cls, figures in [*summary["scores"].items(), ("overall", summary["overall"])]:
        values |= {f"{m}.{cls}": _stats(figures[m]) for m in ("input", "gain") if m in figures}
    for level, figures in (summary["detection"] or {}).items():
        values |= {f"{level}_f.{c}": {"mean": f} for c, f in zip(classes, figures["f"])}
    data = f"{summary['data_dir']}: {summary['keys']} mixtures, table {table['table_hash']}"
    match = _LAMBDA.search(test)
    return Scores(_LAMBDA.sub("", test), match and match[1], None, data, values)


def _tagging(scores: dict, test: str, path: Path) -> Scores:
    if "map" not in scores:
        raise DataError(f"{path}: map is missing")
    data = f"{scores.get('bank', test)}: {scores.get('keys', '?')} clips, " \
           f"manifest {scores.get('manifest_hash', '?')}"  # fmt: skip
    return Scores(test, None, None, data, {"map": {"mean": scores["map"]}})


def _stats(figures: dict) -> dict:
    return {"mean": figures["mean"], "median": figures["median"]}


def read_statistics(table: Path) -> Scores:
    """Tables II and III of a table of mixtures, as its preparation counted them.

    Raises:
        DataError: no statistics there.
    """
    info = load_json(table / "table.json")
    events = info["settings"].get("mean_events")
    values = {f"{kind}.{name}": {"mean": float(value)}
              for _, (kind, name, value) in read_tsv(table / "statistics.tsv",
                                                ("table", "name", "value"))}
    data = f"{table}: {info['mixtures']} mixtures, table {info['table_hash']}"
    return Scores(table.parent.name, None if events is None else f"{events:g}", None, data, values)


def trained_on(exp_dir: Path) -> str | None:
    """Size and hash of the training data, or None where the driver did not note them.

    Its first note is `clips in FOLDER: HASH`, the folder as seen from the recipe's. The size comes
    from there, and is left out where other data lie there now.
    """
    path = exp_dir / ".begun_with"
    if not path.is_file():
        return None
    what, _, digest = path.read_text(encoding="utf-8").partition("\n")[0].rpartition(": ")
    folder = what.partition(" in ")[2]
    for recipe in exp_dir.absolute().parents:
        for name, unit, key in (("bank.json", "clips", "manifest_hash"),
                                ("table.json", "mixtures", "table_hash")):
            about = recipe / folder / name
            if digest and folder and about.is_file() and load_json(about).get(key) == digest:
                return f"{load_json(about)[unit]} {unit}, {digest}"
    return digest or None


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
    return Spread(float(np.mean(known)), float(np.std(known, ddof=1)) if known[1:] else None,
                  len(known))
