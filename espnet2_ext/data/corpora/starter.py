"""The training sounds of the model in the box: ESC-10 and what `data/synth/starter.py` makes.

Of ESC-10, clips under CC BY or CC0 by its licence file. Folds 1 to 3 train, but for one recording or two a class that
are kept for validation, fold 4 tests. `sources.json` beside the lists says what was used, for the model's card.
"""

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from espnet2_ext.data.corpora.corpus import Corpus, Step, counted, rank, write_lists
from espnet2_ext.data.corpora.esc50 import read_meta
from espnet2_ext.data.synth.starter import is_unheard, make_starter, read_sounds, starter_table
from espnet2_ext.data.tables import Clip, Label
from espnet2_ext.errors import DataError
from espnet2_ext.util.documents import read_text, write_json
from espnet2_ext.util.files import write_text

FREE = ("CC0", "CC-BY")
_CREDIT = re.compile(  # as in LICENSE of ESC-50 or, with links, of ESC-10
    r"\[(\d-\d+-[A-Z])(?:-\d+)?\.\w+\].*?clip derived from +\[?(.+?)\]? ?\((https?://\S+)\)"
    r" +by +\*?(.+?)\*? +\(?\[(CC[\w+-]*)\]"
)
TEST_FOLD = 4  # of ESC-10; those before it train, the fifth is not used
HELD_OUT = 2  # clips of ESC-10 for validation, at least, of each class


def read_credits(root: Path) -> dict[str, str]:
    """Clips of ESC-10 that are free to use, `FOLD-SOURCE-TAKE`, and the line that credits each.

    Raises:
        DataError: no licence file, or none of its lines names a clip.
    """
    files = sorted(root.glob("LICENSE*"))
    credits = {}
    for file in files:
        for stem, title, url, author, licence in _CREDIT.findall(read_text(file)):
            if licence in FREE:
                credits[stem] = f"{stem}: {title} by {author}, {licence.replace('-', ' ')}, {url}"
    if not credits:
        where = f"{files[0]}: credits no clip" if files else f"{root}: holds no LICENSE file"
        raise DataError(f"{where} of ESC-10 in the form 'NAME.ogg: clip derived from TITLE by AUTHOR (LICENCE)'")
    return credits


def read_esc10(root: Path) -> tuple[dict[str, list[Clip]], list[str]]:
    """Clips of ESC-10 by set, and their credits."""
    credits, used = read_credits(root), []
    recordings: dict[str, dict[str, list[Clip]]] = defaultdict(lambda: defaultdict(list))
    sets: dict[str, list[Clip]] = {"train": [], "valid": [], "test": []}
    for row in read_meta(root):
        name = Path(row["filename"]).stem
        stem = "-".join(name.split("-")[:3])
        if row.get("esc10", "True") != "True" or stem not in credits or row["fold"] > TEST_FOLD:
            continue
        clip = Clip(name, (row["category"],), str(root / "audio" / row["filename"]))
        if row["fold"] == TEST_FOLD:
            sets["test"].append(clip)
        else:
            recordings[row["category"]][name.split("-")[1]].append(clip)
        used.append(credits[stem])
    for sources in recordings.values():
        held = 0
        for source in sorted(sources, key=lambda s: rank(s, 0)):
            sets["valid" if held < HELD_OUT else "train"] += sources[source]
            held += len(sources[source])
    return sets, used


def make_labels(names: Iterable[str]) -> list[Label]:
    """Labels of the classes; those in a line of the table's `related`, or of which one holds the other, are related."""
    order = {name: i for i, name in enumerate(sorted(names))}
    related = defaultdict(set)
    table = starter_table()
    holds = ((name, part) for name, parts in table["holds"].items() for part in parts)
    for group in (*table["related"], *holds):
        for name in group:
            related[name] |= {order[other] for other in group if other in order} - {order.get(name)}
    return [Label(i, name, name.replace("_", " "), tuple(sorted(related[name]))) for name, i in order.items()]


def _add_options(p: argparse.ArgumentParser) -> None:
    known = list(starter_table()["sources"])
    text = "what the sounds come from; default: all that train"
    heard = [name for name in known if not is_unheard(name)]
    p.add_argument("--sources", nargs="+", choices=known, default=heard, metavar="SOURCE", help=text)
    p.add_argument("--esc50", type=Path, help="folder with meta/esc50.csv, audio/ and the licence file")
    p.add_argument("--sounds", type=Path, default=Path("downloads/starter"), help="folder for the sounds that are made")
    p.add_argument("--packages", type=Path, default=Path("/"), help="where Debian packages are installed or unpacked")
    p.add_argument("--clips", type=int, default=40, help="training sounds made of each class")
    p.add_argument("--formula_clips", type=int, default=60, help="the same of those that formulas make")
    p.add_argument("--valid_clips", type=int, default=6, help="validation sounds of each class")
    p.add_argument("--clip_seconds", type=float, default=5.0, help="length of a sound that is made")
    p.add_argument("--classes", nargs="+", default=(), metavar="CLASS", help="default: all")
    p.add_argument("--seed", type=int, default=0, help="of all that is drawn")


def _prepare(a: argparse.Namespace) -> str:
    if len({is_unheard(name) for name in a.sources}) > 1:
        raise DataError("--sources: those of the set that is never trained on go into a data folder of their own")
    sets: dict[str, list[Clip]] = {"train": [], "valid": [], "test": [], "unheard": []}
    credits: list[str] = []
    counts: Counter = Counter()
    if "esc10" in a.sources:
        if a.esc50 is None:
            raise DataError("source esc10: where is it? --esc50 FOLDER, or name the other --sources")
        sets, credits = read_esc10(a.esc50)
        counts.update(("esc10", name) for name, clips in sets.items() for _ in clips)
    made = [name for name in a.sources if name != "esc10"]
    if made:
        options = ("packages", "clips", "formula_clips", "valid_clips", "clip_seconds", "classes", "seed")
        work = {name: getattr(a, name) for name in ("num_workers", "scheduler")}
        make_starter(a.sounds, sources=made, **{name: getattr(a, name) for name in options}, **work)
        for row in read_sounds(a.sounds):
            sets[row["set"]].append(Clip(row["id"], (row["class"],), row["path"]))
            counts[row["source"], row["set"]] += 1
    sets = {name: clips for name, clips in sets.items() if clips}
    labels = make_labels({clip.labels[0] for clips in sets.values() for clip in clips})
    text = counted(write_lists(a.data_dir, labels, sets))
    about = starter_table()["sources"]
    rows = [
        {"source": name, **{k: about[name][k] for k in ("title", "licence", "author", "url")}}
        | {"clips": {s: counts[name, s] for s in sets if counts[name, s]}}
        | ({"credits": credits} if name == "esc10" else {})
        for name in a.sources
    ]
    write_json(a.data_dir / "sources.json", rows)
    write_text(a.data_dir / "sources.md", as_markdown(rows))
    return text


def as_markdown(rows: list[dict]) -> str:
    """The table of sources, and the credits of single clips, for a model card."""
    sets = list(dict.fromkeys(name for row in rows for name in row["clips"]))
    lines = [["source", "licence", "author", *sets], ["---", "---", "---", *["---:"] * len(sets)]]
    for r in rows:
        lines.append([f"[{r['title']}]({r['url']})", r["licence"], r["author"], *(r["clips"].get(s, "") for s in sets)])
    credits = [f"- {line}" for row in rows for line in row.get("credits", ())]
    return "\n".join(
        [
            *(f"|{'|'.join(map(str, line))}|" for line in lines),
            *(["", "Clips of ESC-10:", "", *credits] if credits else []),
            "",
        ]
    )


CORPUS = Corpus(
    Step(
        "the model in the box: makes its sounds -> data/labels.tsv, data/SET/clips.tsv",
        _add_options,
        _prepare,
        ("workers",),
    )
)
