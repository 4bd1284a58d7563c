"""What an experiment measured, whichever driver made it, as metrics by name with their data."""

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet2_ext.errors import DataError
from espnet2_ext.recipe.training import begun_data
from espnet2_ext.util.tables import read_tsv

QSEP = ("sdr", "sdr_gain", "si_sdr", "si_sdr_gain", "clean_sdr", "silence_sdr")
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
        summary, test = load_json(path), path.parents[1].name.removeprefix("inference_")
        with reading(path, "the scores of a test set"):
            found += _qsep(summary, test) if "protocols" in summary else [_weak(summary, test)]
    for path in sorted(exp_dir.glob("tagging_*/scores.json")):
        scores, test = load_json(path), path.parent.name.removeprefix("tagging_")
        with reading(path, "a tagger's scores"):
            found.append(_tagging(scores, test))
    return found


@contextlib.contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Of a file whose content is another than expected, raise a DataError that says so."""
    try:
        yield
    except DataError:  # says so already
        raise
    except KeyError as e:
        raise DataError(f"{path}: not {what}: {e.args[0]} is missing") from e
    except (TypeError, ValueError, AttributeError) as e:
        raise DataError(f"{path}: not {what}: {e}") from e


def load_json(path: Path) -> dict:
    """Content of a JSON file; a DataError names one that is not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise DataError(f"{path}: not a whole JSON file ({e})") from e


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
    return Scores(test, None, None, data, "", {"map": {"mean": float(scores["map"])}})


def _stats(figures: dict) -> dict:
    return {"mean": figures["mean"], "median": figures["median"]}


def read_statistics(table: Path) -> Scores:
    """Tables II and III of a table of mixtures, as its preparation counted them.

    Raises:
        DataError: no statistics there, or broken ones.
    """
    info, path = load_json(table / "table.json"), table / "statistics.tsv"
    with reading(path, "the statistics of mixtures"):
        values = {
            f"{kind}.{name}": {"mean": float(value)}
            for _, (kind, name, value) in read_tsv(path, ("table", "name", "value"))
        }
    with reading(table / "table.json", "the note of a table of mixtures"):
        events = info["settings"].get("mean_events")
        events = None if events is None else f"{events:g}"
        data = f"{table}: {info['mixtures']} mixtures, table {info['table_hash']}"
        return Scores(table.parent.name, events, None, data, info["table_hash"], values)


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
            if digest and folder and about.is_file() and load_json(about).get(key) == digest:
                return f"{load_json(about).get(unit, '?')} {unit}, {digest}"
    return digest or None


def scored_model(exp_dir: Path) -> dict:
    """What `model.json` says of a model that was trained elsewhere; {} of one trained here."""
    path = exp_dir / "model.json"
    model = load_json(path) if path.is_file() else {}
    if not isinstance(model, dict):
        raise DataError(f"{path}: not a description of a model")
    return model


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
