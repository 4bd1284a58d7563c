"""All rows and figures of a paper with what trains them and the command that fills them."""

from espnet2_ext.report.paper.registry import Paper
from espnet2_ext.report.results import markdown
from espnet2_ext.report.tables import NONE, Table

CITED = "a figure that the paper cites; no system of its comparison"


def listing(paper: Paper) -> list[str]:
    """Markdown lines: a section a table or figure, a line a row."""
    lines = [f"# {paper.title}"]
    for table in paper.tables.values():
        rows = []
        for row in table.rows:
            model = row.yaml or NONE
            model += f" ({row.overrides})" if row.overrides else ""
            rows.append([row.name, model, f"`{c}`" if (c := table.command(row)) else CITED])
        head = Table("", "", ["row", "YAML", "command"], rows)
        lines += ["", f"## {table.name}: {table.title}", "", *markdown(head)]
    return lines
