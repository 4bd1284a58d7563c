"""Pieces of HTML that the report's pages are made of."""

import html
from pathlib import Path
from urllib.parse import quote

from espnet2_ext.report.tables import Table

_STYLE = """
:root { --ink: #1c1f23; --soft: #5b6470; --line: #dde2e8; --back: #f6f7f9; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 1.5rem 1.2rem 4rem; color: var(--ink);
       font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; background: #fff; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; }
h2 { font-size: 1.35rem; margin: 2.6rem 0 .6rem; border-bottom: 2px solid var(--line); }
h3 { font-size: 1.1rem; margin: 1.8rem 0 .3rem; }
p { margin: .3rem 0 .7rem; } .note { color: var(--soft); font-size: .9rem; }
nav a { margin-right: 1.1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
th { background: var(--back); font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; height: auto; display: block; margin: .6rem 0; }
.card { background: var(--back); border: 1px solid var(--line); border-radius: 8px;
        padding: .8rem 1rem 1rem; margin: .9rem 0; }
.card h4 { margin: 0; font-size: 1rem; } .card img { border-radius: 4px; }
.players { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: .7rem; }
.players figure { margin: 0; } figcaption { font-size: .85rem; color: var(--soft); }
audio { width: 100%; height: 38px; }
table.sounds audio { width: 190px; }
summary { cursor: pointer; font-weight: 600; margin: .6rem 0; }
"""


def print_table(table: Table) -> str:
    """HTML of a table with its title and note."""
    head = "".join(f"<th>{text(c)}</th>" for c in table.columns)
    rows = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>\n" for row in table.rows)
    note = text(table.note).replace("`", "")
    return (
        f'<h3>{text(table.title)}</h3><p class="note">{note}</p><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>"
    )


def fact_list(values: dict[str, str]) -> str:
    """A list of names and values."""
    items = "".join(f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in values.items())
    return f"<dl>{items}</dl>"


def picture(path: Path, out: Path, alt: str) -> str:
    """An image; `out` is the folder of the page."""
    return f'<img src="{link(path, out)}" alt="{text(alt)}" loading="lazy">'


def link(path: Path, out: Path) -> str:
    """Address of a file, as seen from the page in `out`."""
    return quote(path.relative_to(out).as_posix())


def text(value: str) -> str:
    """`value` with what HTML would take for its own written out."""
    return html.escape(str(value))


def document(title: str, body: str) -> str:
    """A whole page."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )
