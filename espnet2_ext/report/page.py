"""A static page to read and listen: index.html (its template is page.html), with pictures and sounds beside it."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from espnet2_ext.report.examples import RANKS, Example, class_examples, query_examples
from espnet2_ext.report.experiment import class_set_facts, model_facts, ordering, query_set_facts
from espnet2_ext.report.figures import class_pictures, draw_training, query_pictures
from espnet2_ext.report.results import Report
from espnet2_ext.report.tables import class_tables, query_tables
from espnet2_ext.train.experiment import facts, training_curves
from espnet2_ext.util.files import write_text
from espnet2_ext.util.once import digest

VERSION = 2


class Kind(NamedTuple):
    """What differs between the pages of queries and of classes; `scored` is a test set's list of `Scored`.

    text: of scored.  facts: of a summary.  tables, pictures, examples: of scored.  model: facts of an experiment.
    """

    text: Callable
    facts: Callable
    tables: Callable
    pictures: Callable
    examples: Callable
    model: Callable


QUERIES = Kind(
    lambda scored: "",
    query_set_facts,
    lambda scored: query_tables(scored[0].summary),
    query_pictures,
    query_examples,
    lambda experiment: facts(experiment.folder),
)
CLASSES = Kind(ordering, class_set_facts, class_tables, class_pictures, class_examples, model_facts)


def write_page(report: Report, out: Path, kind: Kind, data_dirs: Sequence[str] | None = None) -> Path:
    """Write `out`/index.html with `out`/figures and a folder for each test set.

    Nothing is loaded from elsewhere: the folder can be copied and opened as it is. The page of the same scores is not
    made again.

    Args:
        data_dirs: the test sets in the report's order, where they are not where scoring found them.
    Raises:
        DataError: a test set or output that is missing.
    """
    index = out / "index.html"
    models = [(e.label, kind.model(e), training_curves(e.folder)) for e in report.experiments]
    scores = [(name, s.label, s.summary) for name, scored in report.sets.items() for s in scored]
    stamp = digest(VERSION, scores, models)
    if index.is_file() and stamp in index.read_text(encoding="utf-8"):
        return index
    index.unlink(missing_ok=True)
    shutil.rmtree(out / "figures", ignore_errors=True)
    sections = []
    for n, (name, scored) in enumerate(report.sets.items()):
        shutil.rmtree(out / name, ignore_errors=True)
        tables = kind.tables(scored)
        sections.append(
            {
                "title": name,
                "text": kind.text(scored),
                "facts": kind.facts(scored[0].summary),
                "tables": tables,
                "pictures": kind.pictures(scored, out / name / "figures"),
                "listening": kind.examples(scored, out / name, data_dirs[n] if data_dirs else None),
            }
        )
    trainings = [
        {"label": e.label, "facts": about, "curves": draw_training(e.folder, out / "figures" / e.label)}
        for e, (_, about, _) in zip(report.experiments, models)
    ]
    text = render(out, title=report.name, stamp=stamp, sections=sections, trainings=trainings, formulas=report.formulas)
    write_text(index, text)
    return index


def render(out: Path, **content) -> str:
    """The page in folder `out`; every value is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["link"] = lambda path: quote(path.relative_to(out).as_posix())
    return environment.get_template("page.html").render(ranks=RANKS, by_rank=by_rank, **content)


def by_rank(examples: Sequence[Example]) -> dict[str, list[Example]]:
    """Rank -> its examples, in order."""
    found: dict[str, list[Example]] = {}
    for example in examples:
        found.setdefault(example.rank, []).append(example)
    return found
