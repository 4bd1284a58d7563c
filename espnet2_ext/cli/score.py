"""Scores and reports: `qsep-scoring`, `weak-scoring`, `tag-scoring`, the report of each, `embedding-figure`."""

import argparse
import logging
from pathlib import Path

from espnet2_ext.cli.options import add_batch_size, add_device, add_workers
from espnet2_ext.errors import DataError
from espnet2_ext.util.documents import write_json
from espnet2_ext.util.names import Parser

PICTURES = (".png", ".pdf", ".svg")


def score(argv: list[str] | None = None) -> None:
    """Score separated sounds against a rendered test set, of queries or of classes: scores.jsonl and summary.json.

    With --folds: the mean of the scores of folds, of separators of classes.
    """
    p = Parser(description=score.__doc__)
    p.add_argument("--data_dir", help="rendered test set (dump/SET or dump/SET_mix)")
    text = "outputs; the scores go to its folder scores/; repeatable"
    p.add_argument("--inference_dir", action="append", help=text)
    _add_folds(p, "INFERENCE_DIR")
    text = "keys that get the scores of espnet2.bin.enh_scoring too, drawn with a fixed seed; 0: none (default: all)"
    p.add_argument("--espnet_keys", type=int, help=text)
    text = "run espnet2.bin.enh_scoring itself for them: the same values, in ten times the time"
    p.add_argument("--espnet_tool", action="store_true", help=text)
    add_workers(p)
    args = p.parse_args(argv)
    _check_folds(p, args, "data_dir", "inference_dir")
    if args.folds:
        from espnet2_ext.report.folds import class_folds

        _write_folds(class_folds(args.folds), args.out)
        return
    from espnet2_ext.scores.score import score as score_folder

    run = {"espnet_keys": args.espnet_keys, "espnet_tool": args.espnet_tool}
    run |= {"num_workers": args.num_workers, "scheduler": args.scheduler}
    for folder in args.inference_dir:
        print(score_folder(args.data_dir, folder, **run))


def score_tags(argv: list[str] | None = None) -> None:
    """Score tags against the labels of a clip bank (scores.json), or take the mean of the scores of folds."""
    p = Parser(description=score_tags.__doc__)
    p.add_argument("--bank", help="the bank that was tagged")
    p.add_argument("--tags_dir", help="output of tag_inference; gets scores.json")
    _add_folds(p, "TAGS_DIR")
    args = p.parse_args(argv)
    _check_folds(p, args, "bank", "tags_dir")
    if args.folds:
        from espnet2_ext.report.folds import tag_folds

        _write_folds(tag_folds(args.folds), args.out)
        return
    from espnet2_ext.scores import tagging

    path = tagging.score_tags(args.bank, args.tags_dir)
    scores = tagging.load_tag_scores(path.parent)
    accuracy = "" if scores["accuracy"] is None else f", accuracy {scores['accuracy']:.4f}"
    print(f"{path}: mAP {scores['map']:.4f}{accuracy}, {scores['keys']} clips")


def _add_folds(p: argparse.ArgumentParser, folder: str) -> None:
    text = "instead of both: scored folders, one per fold, to take the mean of"
    p.add_argument("--folds", nargs="+", metavar=folder, help=text)
    p.add_argument("--out", help="with --folds: file for the means, such as scores.json")


def _check_folds(p: argparse.ArgumentParser, args: argparse.Namespace, one: str, other: str) -> None:
    if bool(args.folds) == bool(getattr(args, one) and getattr(args, other)):
        p.error(f"give either --{one} and --{other}, or --folds")


def _write_folds(found, out: str | None) -> None:
    """Print the table of `report.folds`, and write its JSON."""
    from espnet2_ext.report.results import table_lines

    mean, table = found
    if out:
        write_json(out, mean)
    print("\n".join(table_lines(table, 3)))


def report_queries(argv: list[str] | None = None) -> None:
    """Write RESULTS.md and the page of an experiment from its scores."""
    p = Parser(description=report_queries.__doc__)
    p.add_argument("--exp_dir", required=True, help="experiment, gets RESULTS.md and report/")
    text = "scored outputs; repeatable (default: every scored EXP_DIR/inference_*)"
    p.add_argument("--inference_dir", action="append", help=text)
    text = "test set of each --inference_dir, where it is not where scoring found it"
    p.add_argument("--data_dir", action="append", help=text)
    args = p.parse_args(argv)
    if args.data_dir and len(args.data_dir) != len(args.inference_dir or []):
        p.error("give one --data_dir for each --inference_dir, in the same order")
    from espnet2_ext.report.page import write_page
    from espnet2_ext.report.results import query_report, write_results

    report = query_report(args.exp_dir, args.inference_dir)
    print(write_results(report, git=True))
    print(write_page(report, report.folder / "report", args.data_dir))


def report_classes(argv: list[str] | None = None) -> None:
    """Write RESULTS.md, figures and the page of several experiments side by side; print which labels gave more."""
    p = Parser(description=report_classes.__doc__)
    p.add_argument("--output_dir", required=True, help="gets RESULTS.md and index.html")
    text = "a trained separator and what to call it, such as frame=exp/weak_x_frame; repeatable"
    p.add_argument("--experiment", action="append", required=True, metavar="LABEL=FOLDER", help=text)
    text = "name of a set: the scored outputs lie in FOLDER/inference_NAME; repeatable"
    p.add_argument("--test_set", action="append", required=True, help=text)
    args = p.parse_args(argv)
    from espnet2_ext.report.experiment import ordering, parse_experiments
    from espnet2_ext.report.page import write_page
    from espnet2_ext.report.results import class_report, write_results

    report = class_report(args.output_dir, parse_experiments(args.experiment), args.test_set)
    print(write_results(report))
    print(write_page(report, report.folder))
    for name, scored in report.sets.items():
        print(f"{name}: {ordering(scored)}")


def report_tags(argv: list[str] | None = None) -> None:
    """Write RESULTS.md of a tagger from its scores, with the training's curves."""
    p = Parser(description=report_tags.__doc__)
    p.add_argument("--exp_dir", required=True, help="experiment, gets RESULTS.md")
    text = "scored output of tag_inference, one per test set; repeatable"
    p.add_argument("--tags_dir", action="append", required=True, help=text)
    args = p.parse_args(argv)
    from espnet2_ext.report.results import tag_report, write_results

    print(write_results(tag_report(args.exp_dir, args.tags_dir)))


def figure_parser() -> argparse.ArgumentParser:
    """Options of `embedding-figure`."""
    p = Parser(description=embedding_figure.__doc__)
    text = "models of query-based separation; each gets a row, with the same clips"
    p.add_argument("--bundle", nargs="+", required=True, metavar="MODEL.zip", help=text)
    text = "clip bank (dump/SET), or a folder with a subfolder of sounds per class"
    p.add_argument("--data", required=True, help=text)
    text = "two classes of the data, by name or identifier"
    p.add_argument("--classes", nargs=2, required=True, metavar=("A", "B"), help=text)
    p.add_argument("--clips", type=int, default=70, help="clips of each class (%(default)s)")
    text = "use only the first N seconds of longer clips (%(default)s)"
    p.add_argument("--seconds", type=float, default=10.0, metavar="N", help=text)
    p.add_argument("--seed", type=int, default=0, help="seed of the clips drawn and of t-SNE")
    add_batch_size(p, 8)
    add_device(p)
    p.add_argument("-o", "--output", required=True, help="a .png, .pdf or .svg file")
    return p


def embedding_figure(argv: list[str] | None = None) -> None:
    """Draw two classes in embedding space: t-SNE of separation features and of query embeddings.

    Figure 3 of the CaRE-SEP paper; a JSON of the same name beside the picture holds its numbers.
    """
    args = figure_parser().parse_args(argv)
    out = Path(args.output)
    if out.suffix not in PICTURES:
        raise DataError(f"{out}: the name of the picture must end in {', '.join(PICTURES)}")
    for option in ("seconds", "batch_size"):
        if not getattr(args, option) > 0:
            raise DataError(f"--{option} must be more than 0, not {getattr(args, option)}")
    from espnet2_ext.report.embedding import draw_embeddings, record, save_embeddings

    systems = []
    for path in args.bundle:  # one model at a time is held
        system, clips = _system(path, args)
        systems.append(system)
        logging.info("%s: %s", system.name, ", ".join(f"{panel.what} {panel.kl:.2f}" for panel in system.panels))
    save_embeddings(draw_embeddings(systems, clips.names, clips.classes), out)
    write_json(out.with_suffix(".json"), record(systems, clips, args.seed), indent=None)
    print(out)


def _system(path: str, args: argparse.Namespace):
    """The `System` of a bundle, and the clips at its rate."""
    from espnet2_ext.infer.query_separator import Separator
    from espnet2_ext.infer.vectors.features import features_of
    from espnet2_ext.report.embedding import System, draw_clips, make_panel

    separator = Separator.from_bundle(path, args.device)
    clips = draw_clips(args.data, args.classes, args.clips, separator.fs, seconds=args.seconds, seed=args.seed)
    found = features_of(separator, clips.waves, args.batch_size)
    panels = (
        make_panel("separation feature", found.separation, clips.classes, args.seed),
        make_panel("query embedding", found.queries, clips.classes, args.seed),
    )
    about = {
        "bundle": str(path),
        "separation_feature": found.where,
        "query_width": found.queries.shape[1],
        "separation_feature_width": found.separation.shape[1],
    }
    return System(str(separator.info.get("name") or Path(path).stem), panels, about), clips
