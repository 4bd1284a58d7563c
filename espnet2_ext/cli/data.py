"""Commands on data: a corpus' lists, scan, clip bank, and lists and tables of mixtures."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from espnet2_ext.cli.options import add_frames, add_split, add_storage, add_workers, storage
from espnet2_ext.errors import DataError
from espnet2_ext.util.locks import hold
from espnet2_ext.util.names import Parser

SHOWN = 100  # problems that `validate-data` prints


class _Help(argparse.HelpFormatter):
    """Help that shows defaults."""

    def _get_help_string(self, action: argparse.Action) -> str:
        value = action.default
        shown = (value or value == 0) and value is not False and value != argparse.SUPPRESS
        return f"{action.help} (%(default)s)" if shown and "default" not in action.help else action.help


def _parser(prog: str | None = None, description: str | None = None) -> argparse.ArgumentParser:
    return Parser(prog, description=description, formatter_class=_Help)


def prepare(argv: list[str]) -> None:
    """Stage 1: write the lists of a corpus. Stage 4, for some: write its tables of mixtures."""
    corpus, name, argv = _corpus("prepare", prepare, argv)
    p = _parser(f"espnet2-ext prepare {name}", corpus.lists.about)
    lists = p
    if corpus.tables is not None:
        p.description = "`lists` of the corpus, and `tables` of mixtures from its clip bank."
        steps = p.add_subparsers(dest="step", required=True)
        lists, tables = (
            steps.add_parser(step, help=getattr(corpus, step).about, formatter_class=_Help)
            for step in ("lists", "tables")
        )
        tables.add_argument("data_dir", help="folder of the set's lists")
        tables.add_argument("--bank", required=True, help="its clip bank")
        tables.add_argument("--out", required=True, help="folder of the table")
        _step_options(tables, corpus.tables)
    _step_options(lists, corpus.lists)
    lists.add_argument("--data_dir", type=Path, default=Path("data"), help="where the lists go")
    a = p.parse_args(argv)
    step = vars(a).pop("step", "lists")
    with hold(*[a.data_dir] * (step == "lists")):
        print(getattr(corpus, step).run(a))
        if getattr(a, "hold_out", None) is not None:
            sides = (a.data_dir / side for side in ("train_all", "train", "valid"))
            _hold_out(*sides, share=a.hold_out, most=a.hold_out_most, seed=a.hold_out_seed)


def make_mini(argv: list[str]) -> None:
    """Make the embedded corpus in the layout of a published one."""
    corpus, name, argv = _corpus("make-mini", make_mini, argv)
    if corpus.embedded is None:
        raise DataError(f"corpus {name}: nothing is embedded in its layout")
    p = _parser(f"espnet2-ext make-mini {name}", corpus.embedded.about)
    p.add_argument("--out", type=Path, default=Path(f"downloads/mini_{name}"), help="folder")
    _step_options(p, corpus.embedded)
    p.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    add_workers(p)
    corpus.embedded.run(p.parse_args(argv))


def _corpus(command: str, function: Callable, argv: list[str]):
    """The corpus that is named first, its name, and the other arguments."""
    from espnet2_ext.data.corpora.corpus import CORPORA, find_corpus

    p = _parser(f"espnet2-ext {command}", function.__doc__)
    p.add_argument("corpus", metavar="CORPUS", choices=list(CORPORA), help=", ".join(CORPORA))
    p.add_argument("options", nargs=argparse.REMAINDER, help=f"see espnet2-ext {command} CORPUS --help")
    name = p.parse_args(argv[:1]).corpus
    return find_corpus(name), name, argv[1:]


def _step_options(p: argparse.ArgumentParser, step) -> None:
    step.add_options(p)
    known = {"workers": add_workers, "split": add_split, "frames": add_frames, "hold_out": _add_hold_out}
    for name in step.groups:
        known[name](p)


def _add_hold_out(p: argparse.ArgumentParser) -> None:
    text = "split the set train_all into train and valid, with this share for validation"
    p.add_argument("--hold_out", type=float, metavar="SHARE", help=text)
    p.add_argument("--hold_out_most", type=int, metavar="N", help="hold out about this many clips at most")
    p.add_argument("--hold_out_seed", type=int, default=0, metavar="SEED", help="seed of the split")


def hold_out(argv: list[str]) -> None:
    """Stage 1: keep a part of the training clips back for validation."""
    p = _parser(description=hold_out.__doc__)
    p.add_argument("whole", help="folder with the clips.tsv to split")
    p.add_argument("train", help="folder for the larger part")
    p.add_argument("held", help="folder for the part held out")
    p.add_argument("--share", type=float, default=0.05, help="part to hold out")
    p.add_argument("--most", type=int, help="hold out about this many clips at most")
    p.add_argument("--seed", type=int, default=0, help="seed of the split")
    _hold_out(**vars(p.parse_args(argv)))


def _hold_out(whole: Path | str, train: Path | str, held: Path | str, **how) -> None:
    from espnet2_ext.data.corpora import corpus

    with hold(train, held):
        counts = corpus.hold_out(whole, train, held, **how)
    print(f"{train}: {counts[0]} clips, {held}: {counts[1]} clips")


def validate_data(argv: list[str]) -> None:
    """Report all that is wrong with tables of labelled recordings, or with prepared folders."""
    from espnet2_ext.data.corpora.own_recordings import add_label_options

    p = _parser(description=validate_data.__doc__)
    text = "tables (path, labels or path, onset, offset, label) of one corpus; folders with clips.tsv, bank.json or"
    p.add_argument("paths", nargs="+", metavar="PATH", help=f"{text} mixtures.tsv")
    add_workers(p, scheduler=False)
    add_label_options(p)
    add_split(p)
    a = vars(p.parse_args(argv))
    from espnet2_ext.data.validate import validate

    problems, report = validate(a.pop("paths"), shares=(a.pop("valid_share"), a.pop("test_share")), **a)
    refused = [p for p in problems if p.fatal]
    for problem in refused[:SHOWN]:
        print(problem, file=sys.stderr)
    if len(refused) > SHOWN:
        print(f"... and {len(refused) - SHOWN} more", file=sys.stderr)
    for problem in problems:
        if not problem.fatal:
            print(f"note: {problem}")
    for line in report:
        print(line)
    if refused:
        raise DataError(f"{len(refused)} problem{'s' * (len(refused) > 1)}, see above")
    print("nothing is wrong with it")


def scan(argv: list[str]) -> None:
    """Stage 2: decode every clip of data/SET/clips.tsv and write manifest.tsv beside it.

    With --dump, stage 3 with the same options has nothing left to decode.
    """
    from espnet2_ext.data.bank import archive as library
    from espnet2_ext.data.bank.shards import Limits

    p = _parser(description=scan.__doc__)
    p.add_argument("data_dirs", nargs="+", metavar="DATA_DIR", help="folders with clips.tsv")
    p.add_argument("--min_seconds", type=float, default=Limits.min_seconds, help="shorter clips are left out")
    text = "clips with no 100 ms above this are left out"
    p.add_argument("--silence_db", type=float, default=Limits.silence_db, help=text)
    text = "stop when more than this share is left out"
    p.add_argument("--max_bad_share", type=float, default=0.2, help=text)
    p.add_argument("--redo", action="store_true", help="decode again though the list is the same")
    p.add_argument("--dump", type=Path, help="store the good clips of SET for its clip bank DUMP/SET in the same pass")
    add_storage(p)
    add_workers(p)
    a = vars(p.parse_args(argv))
    limits = Limits(a.pop("min_seconds"), a.pop("silence_db"))
    dump, settings = a.pop("dump"), storage(a)
    for data_dir in map(Path, a.pop("data_dirs")):
        library.scan(data_dir, limits=limits, bank=dump and dump / data_dir.resolve().name, settings=settings, **a)


def archive(argv: list[str]) -> None:
    """Stage 3: the good clips of data/SET/manifest.tsv -> a clip bank in dump/SET."""
    from espnet2_ext.data.bank import archive as library

    p = _parser(description=archive.__doc__)
    p.add_argument("data_dir", help="folder with manifest.tsv")
    p.add_argument("out_dir", help="where the bank goes")
    p.add_argument("--labels", help="labels.tsv (default: beside DATA_DIR)")
    add_storage(p)
    add_workers(p)
    a = vars(p.parse_args(argv))
    library.archive(a.pop("data_dir"), a.pop("out_dir"), settings=storage(a), **a)


def draw_lists(argv: list[str]) -> None:
    """Stage 4: draw a list of pairs from a clip bank.

    By default each clip is the first target once, with a drawn partner that shares no class with it, and whole clips
    are mixed. A list of the same bank and options is up to date and stays.
    """
    from espnet2_ext.core.mixing.pair_drawer import ANCHORS, BALANCES, QUERIES
    from espnet2_ext.data.mixtures.pair_list import PROTOCOLS, draw_list_file

    p = _parser(description=draw_lists.__doc__)
    p.add_argument("--bank", type=Path, required=True, help="folder of the clip bank")
    p.add_argument("--out", type=Path, required=True, help="the list, pairs.tsv")
    p.add_argument("--num_pairs", type=int, default=0, help="0: each clip is the first target once")
    p.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    p.add_argument("--segment", type=float, default=0.0, help="seconds; 0: the longer clip")
    p.add_argument("--anchor", choices=ANCHORS, help="default: peak, or whole without segment")
    text = "a tagger's anchors of this bank and length of segment; where it has none, --anchor decides"
    p.add_argument("--anchor_file", help=text)
    text = "clip of the queries; the targets themselves are written in any case"
    p.add_argument("--query_from", choices=sorted(QUERIES), default="other", help=text)
    p.add_argument("--balance", choices=BALANCES, default="class", help="what is drawn first, a class or a clip")
    text = "conditions: levels, targets alone, 3 and 4 sources, absent queries; dcase2024: 10 s at -15 to 15 dB"
    p.add_argument("--protocol", choices=PROTOCOLS, help=text)
    a = p.parse_args(argv)
    from espnet2_ext.data.bank.bank import ClipBank

    anchor = a.anchor or ("peak" if a.segment else "whole")
    options = {"segment": a.segment or None, "anchor": anchor, "query_from": a.query_from, "balance": a.balance}
    options |= {"anchor_file": a.anchor_file, "protocol": a.protocol}
    draw_list_file(ClipBank(a.bank), a.out, a.num_pairs or None, a.seed, **options)


def render_lists(argv: list[str]) -> None:
    """Stage 4: render a list of pairs into a data folder.

    A call that was stopped resumes; a folder of the same list is up to date and stays.
    """
    p = _parser(description=render_lists.__doc__)
    p.add_argument("--list", type=Path, required=True, help="pairs.tsv")
    p.add_argument("--query_bank", type=Path, help="bank for queries of classes with one clip in --bank: dump/train")
    _render_options(p)
    a = p.parse_args(argv)
    from espnet2_ext.data.bank.bank import ClipBank
    from espnet2_ext.data.mixtures.pair_list import about_list, read_list
    from espnet2_ext.data.mixtures.render import render_pairs

    bank, work = ClipBank(a.bank), {"num_workers": a.num_workers, "scheduler": a.scheduler}
    work |= {"query_bank": ClipBank(a.query_bank)} if a.query_bank else {}
    about = render_pairs(read_list(a.list, bank), bank, a.out, seed=about_list(a.list).get("seed"), **work)
    without = f"{about['without_other']} of {about['keys']} targets without another clip of the class"
    print(f"{a.out}: {about['pairs']} pairs, {about['scaled']} lowered to stay in range, {without}")


def draw_mixtures(argv: list[str]) -> None:
    """Stage 4: draw a table of mixtures from a clip bank.

    Events by the rules of Pishdadian et al., section III-A; their Tables II and III are printed for what was drawn. A
    table of the same bank and options is up to date and stays.
    """
    from espnet2_ext.core.mixing.events import LENGTHS
    from espnet2_ext.data.corpora.urbansound8k import CLASSES

    p = _parser(description=draw_mixtures.__doc__)
    p.add_argument("--bank", type=Path, required=True, help="folder of the clip bank")
    p.add_argument("--out", type=Path, required=True, help="folder of the table")
    p.add_argument("--mixtures", type=int, required=True, help="how many")
    p.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    p.add_argument("--classes", default=",".join(CLASSES), help="in the order of the labels")
    text = "what may be used: strong, frame, clip, or strong:0.1,frame:0.3,clip:0.6"
    p.add_argument("--known", default="strong", help=text)
    p.add_argument("--mean_events", type=float, default=5.0, help="lambda of the zero-truncated Poisson distribution")
    p.add_argument("--seconds", type=float, default=4.0, help="length of a mixture")
    _range(p, "--event_seconds", 0.5, 4.0, "shorter clips are left out, longer ones cut")
    text = "of events: uniform from the shortest to the clip's, or whole clips"
    p.add_argument("--lengths", choices=LENGTHS, default="uniform", help=text)
    _range(p, "--lufs", -30.0, -25.0, "loudness of an event")
    p.add_argument("--background_classes", default="", help="sound of no labelled class")
    _range(p, "--background_lufs", -40.0, -35.0, "loudness of the background")
    p.add_argument("--background_share", type=float, default=1.0, help="of mixtures with one")
    add_frames(p)
    add_workers(p)
    a = vars(p.parse_args(argv))
    from espnet2_ext.data.bank.bank import ClipBank
    from espnet2_ext.data.mixtures.draw import as_markdown, count, draw_table

    classes, background = ([v for v in a.pop(key).split(",") if v] for key in ("classes", "background_classes"))
    work = {name: a.pop(name) for name in ("num_workers", "scheduler")}
    bank, out, drawn = ClipBank(a.pop("bank")), a.pop("out"), (a.pop("mixtures"), a.pop("seed"))
    table = draw_table(bank, out, *drawn, classes, background=background, work=work, **a)
    print(f"{out}: {as_markdown(count(table))}")


def render_mixtures(argv: list[str]) -> None:
    """Stage 4: render a table of mixtures into a data folder.

    A call that was stopped resumes; a folder of the same table is up to date and stays.
    """
    p = _parser(description=render_mixtures.__doc__)
    p.add_argument("--table", type=Path, required=True, help="folder of the table")
    _render_options(p)
    a = p.parse_args(argv)
    from espnet2_ext.data.bank.bank import ClipBank
    from espnet2_ext.data.mixtures.event_table import MixtureTable
    from espnet2_ext.data.mixtures.render import render_mixtures as render

    work = {"num_workers": a.num_workers, "scheduler": a.scheduler}
    about = render(MixtureTable(a.table), ClipBank(a.bank), a.out, **work)
    print(f"{a.out}: {about['mixtures']} mixtures, {about['scaled']} lowered to stay in range")


def _render_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--bank", type=Path, required=True, help="folder of the clip bank")
    p.add_argument("--out", type=Path, required=True, help="the data folder")
    add_workers(p)


def _range(p: argparse.ArgumentParser, name: str, low: float, high: float, text: str) -> None:
    p.add_argument(name, type=float, nargs=2, default=[low, high], metavar=("MIN", "MAX"), help=text)
