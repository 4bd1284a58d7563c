"""The listening page of several experiments: tables, figures, mixtures with all their outputs."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from espnet2_ext.report.examples import rank_note
from espnet2_ext.report.figures import draw_training, save
from espnet2_ext.report.html_parts import document, fact_list, link, picture, print_table, text
from espnet2_ext.report.weak_examples import REFERENCE, Example, make_weak_examples
from espnet2_ext.report.weak_figures import draw_density
from espnet2_ext.report.weak_sets import Experiment, Scored, model_facts, ordering, scored_on, set_facts
from espnet2_ext.report.weak_tables import set_tables
from espnet2_ext.scores.test_set import load_test_set
from espnet2_ext.train.experiment import training_curves
from espnet2_ext.util.files import write_text

VERSION = 1
LISTEN = (
    "Mixtures are ranked by their mean gain over classes and label types. All sounds of a mixture "
    "share one volume factor. Classes that are not in it have no reference; their outputs should "
    "be silent."
)


def write_weak_page(out_dir: str | os.PathLike, experiments: Sequence[Experiment], sets: Sequence[str]) -> Path:
    """Write out_dir/index.html with figures/ and a folder of examples for each test set.

    Nothing is loaded from elsewhere: the folder can be copied and opened as it is. Nothing is done
    when the page of the same scores is there already.

    Raises:
        DataError: an experiment that has not been scored, a data folder or output that is gone.
    """
    out_dir = Path(out_dir)
    scored = {name: scored_on(experiments, name) for name in sets}
    index, stamp = out_dir / "index.html", _stamp(experiments, scored)
    if index.is_file() and stamp in index.read_text(encoding="utf-8"):
        return index
    index.unlink(missing_ok=True)
    shutil.rmtree(out_dir / "figures", ignore_errors=True)
    name = out_dir.resolve().name
    body = [f"<h1>{text(name)}</h1>"]
    for test, found in scored.items():
        body += _section(test, found, out_dir)
    for experiment in experiments:
        body += [f"<h2>Labels: {text(experiment.label)}</h2>", fact_list(model_facts(experiment))]
        curves = draw_training(experiment.folder, out_dir / "figures" / experiment.label)
        if curves:
            body.append(picture(curves, out_dir, f"Training curves, {experiment.label}"))
    formulas = next(iter(scored.values()))[0].summary["formulas"]
    body += ["<h2>Formulas</h2>", fact_list(formulas)]
    write_text(index, document(name, f"<!-- {stamp} -->\n" + "\n".join(body)))
    return index


def _stamp(experiments: Sequence[Experiment], scored: dict[str, list[Scored]]) -> str:
    """Digest of what the page is made from."""
    made_from = [(test, s.label, s.summary) for test, found in scored.items() for s in found]
    about = [(model_facts(e), training_curves(e.folder)) for e in experiments]
    return hashlib.blake2b(repr([VERSION, made_from, about]).encode()).hexdigest()[:32]


def _section(test: str, found: list[Scored], out: Path) -> list[str]:
    """Tables, figure and sounds of one test set."""
    shutil.rmtree(out / test, ignore_errors=True)
    body = [
        f"<h2>{text(test)}</h2>",
        f'<nav><a href="#{text(test)}-listen">Listen</a></nav>',
        f"<p>{text(ordering(found))}</p>",
        fact_list(set_facts(found[0])),
    ]
    tables = [print_table(table) for table in set_tables(found)]
    if found[0].summary["overall"]["gain"]["count"]:
        figure = save(draw_density(found), out / "figures" / f"{test}_density.png")
        tables[1:1] = [
            "<h3>Improvement against the input</h3>",
            picture(figure, out, "Improvement against the input, by class and label type"),
        ]
    body += tables
    body += [f'<h2 id="{text(test)}-listen">Listen: {text(test)}</h2>', f'<p class="note">{LISTEN}</p>']
    data = load_test_set(found[0].summary["data_dir"])
    examples = make_weak_examples(data, found, out / test)
    for rank in dict.fromkeys(e.rank for e in examples):
        body.append(f"<h3>{rank.capitalize()}: {rank_note(rank)}</h3>")
        body += [_card(e, [s.label for s in found], out) for e in examples if e.rank == rank]
    return body


def _card(example: Example, labels: list[str], out: Path) -> str:
    columns = [REFERENCE, *labels]
    head = "".join(f"<th>{text(c)}</th>" for c in ["class", *columns])
    rows = ""
    for cls, cells in example.cells.items():
        shown = [cells.get(c) for c in columns]
        players = "".join(f"<td>{_player(cell.path, out, cell.note) if cell else ''}</td>" for cell in shown)
        rows += f"<tr><td>{text(cls.replace('_', ' '))}</td>{players}</tr>\n"
    image = picture(example.picture, out, f"Spectrograms of {example.key}")
    return (
        f'<div class="card"><h4>{text(example.title)}</h4><div class="note">mixture '
        f"{text(example.key)}</div>{_player(example.mixture, out, 'mixture')}{image}"
        f'<div class="scroll"><table class="sounds"><thead><tr>{head}</tr></thead><tbody>\n{rows}'
        "</tbody></table></div></div>"
    )


def _player(path: Path, out: Path, note: str) -> str:
    return f'<audio controls preload="none" src="{link(path, out)}"></audio><div class="note">{text(note)}</div>'
