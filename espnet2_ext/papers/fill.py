"""The papers' tables: what was measured beside what was published, or an empty cell."""

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.papers import experiments, measured
from espnet2_ext.papers.experiments import Trained
from espnet2_ext.papers.measured import Scores, Spread, over_seeds
from espnet2_ext.papers.tables import PAPERS, Column, PaperTable, Row, find_table, load_paper, paper_of
from espnet2_ext.report.results import markdown
from espnet2_ext.report.tables import NONE, PROTOCOL_NOTE, Table
from espnet2_ext.util.documents import check, read_json

HOW = "`espnet2-ext tables --list` has the commands."
_PICTURE = {"classes": [str], "clips": list, "kl_formula": str, "systems": [{"name": str, "kl": {str: float}}]}
SHARES = ("map", "_f.", "_prior.", "_sources.")  # metrics between 0 and 1


class Place(NamedTuple):
    """Where a filled table was measured.

    Attributes:
        folder: of experiments. test: set. protocol: of the query.
        digest: of the test set, where sets of one name differ; else "".
    """

    folder: Path
    test: str
    protocol: str | None
    digest: str = ""


class Found(NamedTuple):
    """An experiment and one of its scored sets."""

    trained: Trained
    scores: Scores


def fill_tables(numbers: Sequence[str], paper: str | None, exp_dirs: Sequence[str]) -> str:
    """Markdown of tables and figures by number, `all` for those of a paper.

    Args:
        paper: of `PAPERS`; None: the one that has the number.
        exp_dirs: where experiments are searched, see `find_trained`; none: below egs2.
    """
    experiments.check_names(exp_dirs)
    if "all" in map(str.lower, numbers):
        paper = paper or PAPERS[0]
        numbers = list(load_paper(paper).tables)
    return "\n\n".join("\n".join(_by_number(n, paper or paper_of(n), exp_dirs)) for n in numbers)


def _by_number(number: str, paper: str, exp_dirs: Sequence[str]) -> list[str]:
    table, top = find_table(paper, number), Path(os.path.relpath(Path(__file__).parents[2]))
    if table.mixtures:
        data = top / table.recipe / "data"
        return fill_mixtures(table, experiments.find_tables_of(exp_dirs or [data] * data.is_dir()))
    roots = exp_dirs or experiments.default_roots(top)
    trained = experiments.find_trained(roots)
    if table.files:
        folders = [folder for name, folder in map(experiments.split_root, map(str, roots)) if not name]
        return fill_figure(table, trained, folders)
    return fill(table, trained)


def fill(table: PaperTable, trained: Sequence[Trained]) -> list[str]:
    """Markdown lines of a table: once for each place where something of it was measured.

    Where nothing was, the table is there once, with empty cells beside the paper's values.
    """
    found = [f for t in _accepted(table, trained) for f in _measured(table, t)]
    places: dict[Place, list[Found]] = {}
    for f in found:
        key = Place(f.trained.folder.parent, f.scores.test, f.scores.protocol)
        places.setdefault(key, []).append(f)
    places = _by_test_set(places)
    lines = [table.heading]
    for place, members in sorted(_with_taggers(places).items(), key=str):
        lines += ["", *_section(table, place, members)]
    return lines if places else [*lines, *_nothing(table, "measured")]


def _nothing(table: PaperTable, done: str) -> list[str]:
    """Empty cells beside the paper's values."""
    return ["", f"Nothing {done}. {HOW}", "", *markdown(_table(table, []))]


def _accepted(table: PaperTable, trained: Sequence[Trained]) -> list[Trained]:
    """Those experiments that a table takes, each once, as a sweep's rather than by its name."""
    found = {}
    for t in sorted(trained, key=lambda t: not t.sweep):
        if t.sweep and t.sweep not in table.sweeps or _is_elsewhere(t.folder, table.recipe):
            continue
        if table.zero_shot and measured.scored_model(t.folder).get("zero_shot") is False:
            continue
        found.setdefault((t.folder.resolve(), t.name), t)
    return list(found.values())


def _by_test_set(places: dict[Place, list[Found]]) -> dict[Place, list[Found]]:
    """Scores on different test sets of one name (and lambda) are kept apart."""
    parted: dict[Place, list[Found]] = {}
    for place, found in places.items():
        digests: dict[str | None, set[str]] = {}
        for f in found:
            digests.setdefault(f.scores.mean_events, set()).add(f.scores.digest)
        differ = any(len(v) > 1 for v in digests.values())
        for f in found:
            key = place._replace(digest=f.scores.digest if differ else "")
            parted.setdefault(key, []).append(f)
    return parted


def _with_taggers(places: dict[Place, list[Found]]) -> dict[Place, list[Found]]:
    """What has no protocol stands beside all protocols of its folder and test set."""
    queried = {(p.folder, p.test) for p in places if p.protocol}
    kept = {}
    for place, found in places.items():
        if place.protocol or (place.folder, place.test) not in queried:
            kept[place] = found + (places.get(place._replace(protocol=None, digest=""), []) if place.protocol else [])
    return kept


def _measured(table: PaperTable, trained: Trained) -> list[Found]:
    """The scored sets of an experiment that a table has a place for."""
    wanted = [table.address(row, column, trained.variables) for row in table.rows for column in table.columns]
    if not any(_fits(a, trained) for a in wanted):
        return []
    return [
        Found(trained, s)
        for s in measured.read_scores(trained.folder)
        if any(_fits(a, trained) and _fits_set(a, s) for a in wanted)
    ]


def _is_elsewhere(folder: Path, recipe: str) -> bool:
    """Whether a model is scored, trained elsewhere (`model.json`), in another recipe than this."""
    parts = folder.resolve().parts
    return (folder / "model.json").is_file() and "egs2" in parts and Path(recipe).name not in parts


def _fits(address: dict, trained: Trained) -> bool:
    return address.get("cell") == trained.name and address.get("label", "") in ("", trained.label)


def _fits_set(address: dict, scores: Scores) -> bool:
    """Whether a value is measured on this set: by its name, and by its lambda where that varies."""
    return address.get("set", scores.test) == scores.test and address.get("test") == scores.mean_events


def _section(table: PaperTable, place: Place, found: list[Found]) -> list[str]:
    query = ""
    if place.protocol:
        query = f", query `{place.protocol}`: {PROTOCOL_NOTE.get(place.protocol, 'of its own')}"
    lines = [f"### {place.folder}: {place.test}{query}", ""]
    lines += [f"- data: `{d}`" for d in sorted({f.scores.data for f in found})]
    data = sorted({d for f in found if (d := measured.trained_on(f.trained.folder))})
    lines += [f"- training data: `{d}`" for d in data or [NONE]]
    models = {
        f"{f.trained.folder.name}: `{path}`"
        for f in found
        if (path := measured.scored_model(f.trained.folder).get("facts", {}).get("scored model"))
    }
    lines += [f"- model of {m}" for m in sorted(models)]
    sizes = {f"{k} {v}" for f in found for k, v in f.trained.variables.items() if k != "folder"}
    lines += [f"- the sweep's size: {', '.join(sorted(sizes))}"] * bool(sizes)
    filled = _table(table, found)
    if any("±" in cell for row in filled.rows for cell in row):
        lines += ["- mean ± standard deviation over seeds, their number behind"]
    return [*lines, "", *markdown(filled)]


def _table(table: PaperTable, found: list[Found]) -> Table:
    return _filled(table, lambda row, column: _cell(table, row, column, found))


def _filled(table: PaperTable, ours: Callable[[Row, Column], str]) -> Table:
    """The paper's table; beside each value the cell `ours(row, column)`."""
    columns, rows = [""], []
    for c in table.columns:
        columns += [c.name, "paper"]
    for row in table.rows:
        cells = [row.name]
        for column, value in zip(table.columns, row.values):
            cells += [ours(row, column), published(value)]
        rows.append(cells)
    return Table(table.name, "", columns, rows)


def _cell(table: PaperTable, row: Row, column: Column, found: Iterable[Found]) -> str:
    kept, address = [], {}
    for f in found:
        a = table.address(row, column, f.trained.variables)
        if _fits(a, f.trained) and _fits_set(a, f.scores):
            kept.append(f.scores.values.get(a["metric"], {}))
            address = a
    spreads = [over_seeds([v.get(s) for v in kept]) for s in address.get("stats", ["mean"])]
    return " / ".join(number(s, address.get("metric", "")) for s in spreads if s)


def number(spread: Spread | None, metric: str) -> str:
    """`13.14`, or `13.14 ± 0.20 (3)` over seeds; shares with three decimals."""
    if spread is None:
        return ""
    digits = 3 if any(s in metric for s in SHARES) else 2
    text = f"{spread.mean:.{digits}f}"
    text = text.removeprefix("-") if float(text) == 0 else text
    return text if spread.std is None else f"{text} ± {spread.std:.{digits}f} ({spread.count})"


def published(value) -> str:
    """A paper's value as it stands there."""
    if isinstance(value, list):
        return " / ".join(map(published, value))
    return NONE if value is None else str(value)


# ---- tables of mixtures, figures -----------------------------------------------------------------


def fill_mixtures(table: PaperTable, folders: Sequence[Path]) -> list[str]:
    """Tables II and III from tables of mixtures, each in a section of its own."""
    lines = [table.heading]
    for folder in folders:
        scores = measured.read_statistics(folder)
        filled = _filled(table, functools.partial(_share, table, scores))
        filled.rows.extend(_other_lambda(table, scores))
        lines += ["", f"### {scores.data}", "", *markdown(filled)]
    return lines if folders else [*lines, *_nothing(table, "prepared")]


def _share(table: PaperTable, scores: Scores, row: Row, column: Column) -> str:
    """The cell of a share in mixtures of the row's lambda; empty where they are of another."""
    a = table.address(row, column)
    same = str(a["mean_events"]) == scores.mean_events
    value = scores.values.get(a["metric"], {}).get("mean") if same else None
    return number(over_seeds([value]), a["metric"])


def _other_lambda(table: PaperTable, scores: Scores) -> list[list[str]]:
    """Rows for a lambda that the paper has not."""
    if scores.mean_events in {str(row.at["mean_events"]) for row in table.rows}:
        return []
    rows = []
    for level in dict.fromkeys(row.at.get("level", "") for row in table.rows):
        row = next(r for r in table.rows if r.at.get("level", "") == level)
        cells = [f"{level} lambda {scores.mean_events or NONE}".strip()]
        for column in table.columns:
            metric = table.address(row, column)["metric"]
            value = scores.values.get(metric, {}).get("mean")
            cells += [number(over_seeds([value]), metric), NONE]
        rows.append(cells)
    return rows


def fill_figure(table: PaperTable, trained: Sequence[Trained], roots: Iterable[Path] = ()) -> list[str]:
    """A figure: the pictures there are, and numbers beside the paper's where it has some.

    Pictures lie beside the experiments, or in `roots`.
    """
    folders = sorted({t.folder.parent for t in trained} | set(roots))
    pattern = table.files or ""
    if table.columns:
        return _numbers_of_pictures(table, [f for d in folders for f in sorted(d.glob(pattern))])
    cells = {c for row in table.rows for c in table.cells(row)}
    lines = [table.heading, ""]
    tags = {
        (t.folder.parent, t.folder.name.removesuffix(f"_{t.label}"))
        for t in trained
        if t.name in cells and (not t.sweep or t.sweep in table.sweeps)
    }
    found = [p for d, tag in sorted(tags) for p in sorted((d / f"{tag}_report").glob(f"**/{pattern}"))]
    return lines + ([f"- {p}" for p in found] or [f"Nothing drawn. {HOW}"])


def _numbers_of_pictures(table: PaperTable, files: Sequence[Path]) -> list[str]:
    lines = [table.heading]
    for path in files:
        if not path.with_suffix(".png").is_file():
            continue  # not the figures beside a picture
        content = read_json(path)
        if not isinstance(content, dict) or "kl_formula" not in content:
            continue
        check(content, _PICTURE, path)
        found, data = [], f"{', '.join(content['classes'])}: {len(content['clips'])} clips"
        for system in content["systems"]:
            values = {k: {"mean": float(v)} for k, v in system["kl"].items()}
            name, seed = experiments.cell_of(system["name"])
            found.append(Found(Trained(name, seed, "", path, "", {}), Scores("", None, None, data, "", values)))
        facts = [f"- data: `{data}`", f"- KL: {content['kl_formula']}"]
        lines += ["", f"### {path.with_suffix('.png')}", "", *facts, "", *markdown(_table(table, found))]
    return lines if lines[1:] else [*lines, *_nothing(table, "drawn")]
