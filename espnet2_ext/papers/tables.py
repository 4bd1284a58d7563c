"""The papers' tables and figures as `care_sep.yaml` and `weak.yaml` beside this file list them."""

import functools
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from espnet2_ext.errors import DataError
from espnet2_ext.report.results import markdown
from espnet2_ext.report.tables import NONE, Table
from espnet2_ext.util.documents import mapping, read_yaml

HOW = """\
Each command is run in the project's top folder with its environment active
(`. .venv/bin/activate`), goes on where it was stopped, and also trains what its row needs; what
scores or draws models of another table (Table 3, Fig. 3 of CaRE-SEP) comes after that table.
Separators on AUDIOSET also train an HTS-AT 768 and take its anchors.
Names in capitals, such as AUDIOSET, are paths of yours. Trainings take one GPU or, without any,
the CPU; `--ngpu 8` within `--run_options` takes more. `espnet2-ext tables --table
NUMBER` then collects the scores."""
CITED = "a figure that the paper cites; no system of its comparison"
HERE = Path(__file__).parent
PAPERS = ("care_sep", "weak")
ADDRESS = {"cell", "label", "metric", "stats", "test", "class", "classifier", "level", "mean_events", "set"}
_PAPER_KEYS = {"paper", "title", "run_options", "size", "tables"}
_TABLE_KEYS = {"title", "recipe", "sweeps", "columns", "rows", "at", "run_options", "mixtures", "files", "zero_shot"}


class Column(NamedTuple):
    """A column of a paper's table. at: what it adds to the address of its values."""

    name: str
    at: dict


class Row(NamedTuple):
    """A row: the paper's values, one a column, and what trains it.

    Attributes:
        values: text (or a whole number), pair of them (mean, median), or None where the paper gives none.
        yaml, overrides: the model's YAML, and what is changed of it, in words.
        cited: a figure that the paper took from the literature; there is no such system here.
        command: in place of the sweep's.
        columns: column name -> what the row changes of the address there.
    """

    name: str
    values: list
    yaml: str | None = None
    overrides: str | None = None
    cited: bool = False
    command: str | None = None
    at: dict = {}
    columns: dict = {}


class PaperTable(NamedTuple):
    """A table or figure of a paper. key: its number; sweeps: names of files in conf/sweeps.

    run_options, size: of the sweep, for the paper's own data and sizes.
    mixtures: its values are counted from tables of mixtures, not measured on models.
    files: pattern of the pictures that the recipe's report draws, for a figure.
    zero_shot: it takes no model that was trained on the classes of its test set.
    """

    paper: str
    key: str
    title: str
    recipe: str
    sweeps: tuple[str, ...]
    columns: list[Column]
    rows: list[Row]
    run_options: str
    size: str | None
    at: dict = {}
    mixtures: bool = False
    files: str | None = None
    zero_shot: bool = False

    @property
    def name(self) -> str:
        """`Table VII` or `Fig. 3`."""
        return self.key if self.key.startswith("Fig") else f"Table {self.key}"

    @property
    def heading(self) -> str:
        """Of the table in Markdown."""
        return f"## {self.name}: {self.title}"

    def address(self, row: Row, column: Column | None, variables: Mapping | None = None) -> dict:
        """Where the value of a row and column is measured: cell, metric and so on.

        variables: names that may stand in braces, such as what the size of a sweep sets.
        """
        found = {**(variables or {}), **self.at, **(column.at if column else {}), **row.at}
        found |= row.columns.get(column.name, {}) if column else {}
        return {k: _fill(v, found) for k, v in found.items()}

    def cells(self, row: Row) -> list[str]:
        """Names of the cells that a row needs, in the order of its columns."""
        found = [self.address(row, c).get("cell") for c in self.columns or [None]]
        return list(dict.fromkeys(cell for cell in found if cell))

    def command(self, row: Row) -> str | None:
        """What fills a row, given the data, from the project's top folder; None: cited."""
        if row.cited:
            return None
        if row.command:
            return f"({row.command.replace('{run_options}', self.run_options)})"
        words = ["espnet2-ext sweep", f"conf/sweeps/{self.sweeps[0]}.yaml"]
        words += ["--size", self.size] if self.size else []
        return " ".join([*words, "--run_options", shlex.quote(self.run_options), "--only", *self.cells(row)])


class Paper(NamedTuple):
    """A paper's tables and figures by number."""

    title: str
    tables: dict[str, PaperTable]


def _fill(value: Any, names: Mapping) -> Any:
    """`value` with `{name}` replaced, where all names are known."""
    if not isinstance(value, str) or "{" not in value:
        return value
    try:
        return value.format_map(names)
    except KeyError:
        return value


@functools.cache
def load_paper(key: str, folder: Path = HERE) -> Paper:
    """One of `PAPERS`.

    Raises:
        DataError: an unknown paper; a file with a wrong key or number of values, naming both.
    """
    path = folder / f"{key}.yaml"
    if not path.is_file():
        raise DataError(f"--paper {key}: available: {', '.join(PAPERS)}")
    content = read_yaml(path, decimals=False)  # as written: the paper's 11.00 is not 11.0
    check_keys(content, _PAPER_KEYS, {"paper", "title", "tables"}, str(path))
    tables = {}
    for number, table in content["tables"].items():
        where = f"{path}: tables.{number}"
        check_keys(table, _TABLE_KEYS, {"title", "recipe", "columns", "rows"}, where)
        for at in [table.get("at", {}), *(c.get("at", {}) for c in table["columns"])]:
            check_keys(at, ADDRESS, set(), f"{where}.at")
        columns = [Column(c["name"], c.get("at", {})) for c in table["columns"]]
        rows = [_row(row, len(columns), f"{where}.rows[{n}]") for n, row in enumerate(table["rows"])]
        own = {"run_options": content.get("run_options", ""), "size": content.get("size")} | table
        own |= {"sweeps": tuple(table.get("sweeps", ())), "columns": columns, "rows": rows}
        tables[str(number)] = PaperTable(paper=key, key=str(number), **own)
    return Paper(content["title"], tables)


def _row(row: dict, columns: int, where: str) -> Row:
    check_keys(row, set(Row._fields), {"name", "values"}, where)
    if len(row["values"]) != columns:
        raise DataError(f"{where}.values: {len(row['values'])} for {columns} columns")
    for at in [row.get("at", {}), *row.get("columns", {}).values()]:
        check_keys(at, ADDRESS, set(), f"{where}.at")
    return Row(**row)


def check_keys(given: Any, known: set, needed: set, where: str) -> None:
    """Refuse a mapping with an unknown key, or without a needed one (DataError naming it)."""
    mapping(given, where)
    if unknown := sorted(map(str, given.keys() - known)):
        raise DataError(f"{where}: unknown key {', '.join(unknown)}; available: {', '.join(sorted(known))}")
    if missing := sorted(needed - given.keys()):
        raise DataError(f"{where}: {', '.join(missing)} is missing")


def paper_of(number: str) -> str:
    """The paper that has a table or figure of this number; the first one where both or none has."""
    wanted = plain_number(number)
    return next((key for key in PAPERS if wanted in map(plain_number, load_paper(key).tables)), PAPERS[0])


def find_table(paper: str, number: str) -> PaperTable:
    """A table or figure by number, such as `1`, `vii`, `fig3`.

    Raises:
        DataError: there is no such one; the message lists those there are.
    """
    tables = load_paper(paper).tables

    for key, table in tables.items():
        if plain_number(key) == plain_number(number):
            return table
    others = [f"--paper {other} has {', '.join(load_paper(other).tables)}" for other in PAPERS if other != paper]
    raise DataError(
        f"--table {number}: there is no such table; --paper {paper} has {', '.join(tables)}; {'; '.join(others)}"
    )


def plain_number(text: str) -> str:
    """`Table VII`, `7`, `Figure 3` as `vii`, `7`, `fig3`."""
    plain = "".join(c for c in text.lower() if c.isalnum())
    return plain.removeprefix("table").replace("figure", "fig")


def listing(paper: str | None = None) -> str:
    """Markdown of a paper, or of both: a section per table or figure, a line per row."""
    papers = [load_paper(key) for key in ([paper] if paper else PAPERS)]
    return "\n\n".join("\n".join(_lines(paper)) for paper in papers)


def _lines(paper: Paper) -> list[str]:
    lines = [f"# {paper.title}", "", HOW]
    for table in paper.tables.values():
        rows = []
        for row in table.rows:
            model = row.yaml or NONE
            model += f" ({row.overrides})" if row.overrides else ""
            rows.append([row.name, model, f"`{c}`" if (c := table.command(row)) else CITED])
        head = Table("", "", ["row", "YAML", "command"], rows)
        lines += ["", table.heading, "", *markdown(head, figures=False)]
    return lines
