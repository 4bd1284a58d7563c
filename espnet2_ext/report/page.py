"""One static page to read and listen: report/index.html, with pictures and sounds beside it."""

import hashlib
import os
import shutil
from pathlib import Path

from espnet2_ext.report.examples import Example, make_examples, rank_note
from espnet2_ext.report.experiment import load_rows, load_summary, scored_sets
from espnet2_ext.report.figures import draw_scores, draw_training
from espnet2_ext.report.html_parts import document, fact_list, link, picture, print_table, text
from espnet2_ext.report.results import set_facts, set_tables
from espnet2_ext.report.tables import PROTOCOL_NOTE
from espnet2_ext.scores.test_set import load_outputs, load_test_set
from espnet2_ext.train.experiment import facts, training_curves
from espnet2_ext.util.files import write_text


def write_page(
    exp_dir: str | os.PathLike, inference_dirs: list[str] | None = None, data_dirs: list[str] | None = None
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
    body = [f"<h1>{text(name)}</h1>", fact_list(facts(exp_dir))]
    for n, folder in enumerate(folders):
        shutil.rmtree(index.parent / folder.name, ignore_errors=True)
        body += _section(folder, index.parent, data_dirs[n] if data_dirs else None)
    if curves := draw_training(exp_dir, index.parent):
        body += ["<h2>Training</h2>", picture(curves, index.parent, "Training curves")]
    write_text(index, document(name, f"<!-- {stamp} -->\n" + "\n".join(body)))
    return index


def _stamp(exp_dir: Path, folders: list[Path]) -> str:
    """Digest of what the page is made from."""
    made_from = [(f.name, load_summary(f)) for f in folders]
    curves = training_curves(exp_dir)
    return hashlib.blake2b(repr([made_from, curves, facts(exp_dir)]).encode()).hexdigest()[:32]


def _section(folder: Path, out: Path, data_dir: str | None) -> list[str]:
    """Tables, figures and sounds of one test set."""
    summary, rows = load_summary(folder), load_rows(folder)
    data = load_test_set(data_dir or summary["data_dir"])
    outputs = load_outputs(folder, data).systems
    name, by_key = folder.name, {row["key"]: row for row in rows}
    links = "".join(f'<a href="#{text(name)}-{p}">Listen: query {p}</a>' for p in outputs)
    body = [f"<h2>{text(name)}</h2>", f"<nav>{links}</nav>", fact_list(set_facts(summary))]
    *tables, classes = set_tables(summary)
    body += [print_table(table) for table in tables]
    for title, path in draw_scores(rows, summary, out / name / "figures").items():
        body += [f"<h3>{text(title)}</h3>", picture(path, out, title)]
    body += [f"<details><summary>All {len(classes.rows)} classes</summary>", print_table(classes)]
    body.append("</details>")
    for protocol, passes in outputs.items():
        body.append(f'<h2 id="{text(name)}-{protocol}">Listen: query {protocol}</h2>')
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
    body.append(fact_list(summary["formulas"]))
    return body


def _card(example: Example, out: Path) -> str:
    scores = example.scores
    players = "".join(
        f"<figure><figcaption>{text(name)}</figcaption>"
        f'<audio controls preload="metadata" src="{link(path, out)}"></audio></figure>'
        for name, path in example.sounds.items()
    )
    figures = f"SDR {example.mixture_sdr:.1f} → {scores['sdr']:.1f} dB, "
    figures += f"gain {scores['sdr_gain']:.1f} dB"
    if scores["si_sdr_gain"] is not None:
        figures += f", SI-SDR gain {scores['si_sdr_gain']:.1f} dB"
    shown = picture(example.picture, out, f"Spectrograms of {example.key}")
    return (
        f'<div class="card"><h4>{text(example.title)}</h4><div class="note">{figures}; key '
        f'{text(example.key)}</div>{shown}<div class="players">{players}</div></div>'
    )
