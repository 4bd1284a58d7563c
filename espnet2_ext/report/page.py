"""A static page to read and listen: index.html (its template is page.html), with pictures and sounds beside it."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from espnet2_ext.report.examples import RANKS, Example
from espnet2_ext.report.figures import draw_training
from espnet2_ext.report.results import Report
from espnet2_ext.train.experiment import training_curves
from espnet2_ext.util.files import digest, write_text

VERSION = 3


def write_page(report: Report, out: Path, data_dirs: Sequence[str] | None = None) -> Path:
    """Write `out`/index.html with `out`/figures and a folder for each test set.

    Nothing is loaded from elsewhere: the folder can be copied and opened as it is. The page of the same scores is not
    made again.

    Args:
        data_dirs: the test sets in the report's order, where they are not where scoring found them.
    Raises:
        DataError: a test set or output that is missing.
    """
    index, kind = out / "index.html", report.kind
    models = [(e.label, kind.model(e), training_curves(e.folder)) for e in report.experiments]
    scores = [(name, s.label, s.summary) for name, scored in report.sets.items() for s in scored]
    stamp = digest(VERSION, scores, models)
    if index.is_file() and stamp.encode() in index.read_bytes():
        return index
    index.unlink(missing_ok=True)
    shutil.rmtree(out / "figures", ignore_errors=True)
    sections = []
    for n, (name, scored) in enumerate(report.sets.items()):
        shutil.rmtree(out / name, ignore_errors=True)
        sections.append(
            {
                "id": name,
                "title": f"Test set: {name.removeprefix('inference_')}",
                "text": kind.text(scored),
                "facts": kind.facts(scored[0].summary),
                "tables": kind.tables(scored, None),
                "pictures": kind.pictures(scored, out / name / "figures"),
                "listening": kind.examples(scored, out / name, data_dirs[n] if data_dirs else None),
            }
        )
    trainings = [
        {"label": e.label, "facts": about, "curves": draw_training(e.folder, out / "figures" / e.label)}
        for e, (_, about, _) in zip(report.experiments, models)
    ]
    content = {"title": kind.title, "name": report.name, "stamp": stamp, "formulas": report.formulas}
    write_text(index, render(out, sections=sections, trainings=trainings, **content))
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
    """Rank -> its examples; ranks in the order of RANKS."""
    found = {rank: [e for e in examples if e.rank == rank] for rank in RANKS}
    return {rank: some for rank, some in found.items() if some}
