"""All rows and figures of a paper with what trains them and the command that fills them."""

from espnet2_ext.papers.tables import PAPERS, Paper, load_paper
from espnet2_ext.report.results import markdown
from espnet2_ext.report.tables import NONE, Table

HOW = """\
Each command is run in the project's top folder with its environment active
(`. .venv/bin/activate`), goes on where it was stopped, and also trains what its row needs; what
scores or draws models of another table (Table 3, Fig. 3 of CaRE-SEP) comes after that table.
Separators on AUDIOSET also train an HTS-AT 768 and take its anchors.
Names in capitals, such as AUDIOSET, are paths of yours. Trainings take one GPU or, without any,
the CPU; `--ngpu 8` within `--run_options` takes more. `espnet2-ext tables --table
NUMBER` then collects the scores."""
CITED = "a figure that the paper cites; no system of its comparison"


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
        lines += ["", f"## {table.name}: {table.title}", "", *markdown(head, figures=False)]
    return lines
