"""One static page to read and listen: report/index.html, with pictures and sounds beside it."""

import hashlib
import html
import os
import shutil
from pathlib import Path
from urllib.parse import quote

from espnet2_ext.files import write_text
from espnet2_ext.report.examples import Example, make_examples, rank_note
from espnet2_ext.report.experiment import (
    facts,
    load_rows,
    load_summary,
    scored_sets,
    training_curves,
)
from espnet2_ext.report.figures import draw_scores, draw_training
from espnet2_ext.report.folders import load_data_folder, load_outputs
from espnet2_ext.report.results import set_facts, set_tables
from espnet2_ext.report.tables import PROTOCOL_NOTE, Table

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
summary { cursor: pointer; font-weight: 600; margin: .6rem 0; }
"""


def write_page(
    exp_dir: str | os.PathLike,
    inference_dirs: list[str] | None = None,
    data_dirs: list[str] | None = None,
) -> Path:
    """Write exp_dir/report/ (index.html, figures/, audio/) from scored test sets.

    Nothing is loaded from elsewhere: the folder can be copied and opened as it is. Nothing is done
    when the page of the same scores is there already.

    Args:
        inference_dirs: folders to show; None: every scored `inference_*` of the experiment.
        data_dirs: their data folders, where these are not where scoring found them.
    Raises:
        DataError: nothing has been scored; a data folder or output that is gone.
    """
    exp_dir = Path(exp_dir)
    folders, name = scored_sets(exp_dir, inference_dirs), exp_dir.resolve().name
    index = exp_dir / "report" / "index.html"
    stamp = _stamp(exp_dir, folders)
    if index.is_file() and stamp in index.read_text(encoding="utf-8"):
        return index
    body = [f"<h1>{_text(name)}</h1>", _facts(facts(exp_dir))]
    for n, folder in enumerate(folders):
        shutil.rmtree(index.parent / folder.name, ignore_errors=True)
        body += _section(folder, index.parent, data_dirs[n] if data_dirs else None)
    if curves := draw_training(exp_dir, index.parent):
        body += ["<h2>Training</h2>", _picture(curves, index.parent, "Training curves")]
    write_text(index, _document(name, f"<!-- {stamp} -->\n" + "\n".join(body)))
    return index


def _stamp(exp_dir: Path, folders: list[Path]) -> str:
    """Digest of what the page is made from."""
    made_from = [(f.name, load_summary(f)) for f in folders]
    curves = training_curves(exp_dir)
    return hashlib.blake2b(repr([made_from, curves, facts(exp_dir)]).encode()).hexdigest()[:32]


def _section(folder: Path, out: Path, data_dir: str | None) -> list[str]:
    """Tables, figures and sounds of one test set."""
    summary, rows = load_summary(folder), load_rows(folder)
    data = load_data_folder(data_dir or summary["data_dir"])
    outputs = load_outputs(folder, data)
    name, by_key = folder.name, {row["key"]: row for row in rows}
    links = "".join(f'<a href="#{_text(name)}-{p}">Listen: query {p}</a>' for p in outputs)
    body = [f"<h2>{_text(name)}</h2>", f"<nav>{links}</nav>", _facts(set_facts(summary))]
    *tables, classes = set_tables(summary)
    body += [print_table(table) for table in tables]
    for title, path in draw_scores(rows, summary, out / name / "figures").items():
        body += [f"<h3>{_text(title)}</h3>", _picture(path, out, title)]
    body += [f"<details><summary>All {len(classes.rows)} classes</summary>", print_table(classes)]
    body.append("</details>")
    for protocol, passes in outputs.items():
        body.append(f'<h2 id="{_text(name)}-{protocol}">Listen: query {protocol}</h2>')
        body.append(
            f'<p class="note">Here {PROTOCOL_NOTE[protocol]}. Examples are picked by SDR gain: '
            "the worst, those in the middle, the best. The sounds of a row share one volume "
            "factor, the query has its own; the residual is mixture minus estimate.</p>"
        )
        made = make_examples(data, passes, by_key, protocol, summary, out / name)
        for rank, examples in made.items():
            body.append(f"<h3>{rank.capitalize()}: {rank_note(rank)}</h3>")
            body += [_card(example, out) for example in examples]
    body.append("<h2>Formulas</h2>")
    body.append(_facts(summary["formulas"]))
    return body


def _card(example: Example, out: Path) -> str:
    scores = example.scores
    players = "".join(
        f"<figure><figcaption>{_text(name)}</figcaption>"
        f'<audio controls preload="metadata" src="{_link(path, out)}"></audio></figure>'
        for name, path in example.sounds.items()
    )
    figures = f"SDR {example.mixture_sdr:.1f} → {scores['sdr']:.1f} dB, "
    figures += f"gain {scores['sdr_gain']:.1f} dB"
    if scores["si_sdr_gain"] is not None:
        figures += f", SI-SDR gain {scores['si_sdr_gain']:.1f} dB"
    picture = _picture(example.picture, out, f"Spectrograms of {example.key}")
    return (
        f'<div class="card"><h4>{_text(example.title)}</h4><div class="note">{figures}; key '
        f'{_text(example.key)}</div>{picture}<div class="players">{players}</div></div>'
    )


def print_table(table: Table) -> str:
    """HTML of a table with its title and note."""
    head = "".join(f"<th>{_text(c)}</th>" for c in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>\n"
        for row in table.rows
    )
    note = _text(table.note).replace("`", "")
    return (
        f'<h3>{_text(table.title)}</h3><p class="note">{note}</p><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>"
    )


def _facts(values: dict[str, str]) -> str:
    items = "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in values.items())
    return f"<dl>{items}</dl>"


def _picture(path: Path, out: Path, alt: str) -> str:
    return f'<img src="{_link(path, out)}" alt="{_text(alt)}" loading="lazy">'


def _link(path: Path, out: Path) -> str:
    return quote(path.relative_to(out).as_posix())


def _text(value: str) -> str:
    return html.escape(str(value))


def _document(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )
