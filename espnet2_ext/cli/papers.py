"""`espnet2-ext tables`, `sweep` and `bench`: the papers' tables, the experiments that fill them, the costs."""

import argparse
import shlex
from pathlib import Path

from espnet2_ext.util.documents import write_json
from espnet2_ext.util.names import Parser, shipped
from espnet2_ext.util.parallel import cores

DEFAULT = [f"train_qsep_care_sep_{size}.yaml" for size in ("small", "768", "2048")]


def tables(argv: list[str] | None = None) -> None:
    """The papers' tables: the command for each row (--list), or your results beside the published ones (--table).

    Without --exp_dirs, experiments are looked for below egs2/*/exp: those recorded by a sweep, and those in a folder
    named after a row's cell, such as qsep_C_seed0. A cell stays empty where nothing was run.
    """
    from espnet2_ext.papers.tables import PAPERS

    p = Parser(description=tables.__doc__)
    p.add_argument("--list", action="store_true", help="every row and figure with the command that fills it")
    text = "care_sep or weak (default with --list: both; with --table: the one that has it, of fig3 care_sep)"
    p.add_argument("--paper", choices=PAPERS, help=text)
    text = "such as 1, fig3 or VII; all: every table and figure of --paper"
    p.add_argument("--table", nargs="+", default=[], metavar="NUMBER", help=text)
    text = "folders to search, or the experiment to use for a CELL"
    p.add_argument("--exp_dirs", nargs="+", default=[], metavar="[CELL=]FOLDER", help=text)
    p.add_argument("-o", "--output", help="write the Markdown there as well")
    args = p.parse_args(argv)
    if args.list == bool(args.table):
        p.error("give --list, or --table with its number")
    from espnet2_ext.papers.fill import fill_tables
    from espnet2_ext.papers.tables import listing
    from espnet2_ext.util.files import write_text

    text = listing(args.paper) if args.list else fill_tables(args.table, args.paper, args.exp_dirs)
    print(text)
    if args.output:
        write_text(args.output, text + "\n")


def sweep(argv: list[str] | None = None) -> None:
    """Train and score the cells of a sweep one after the other; run again to resume.

    Sweeps are in `conf/sweeps`. Beside the experiments (RECIPE/exp/NAME), `sweep_*.md` holds the
    table, updated after each cell, and log/ the output of each cell.
    """
    p = sweep_parser()
    args = p.parse_args(argv)
    try:
        run_options = shlex.split(args.run_options)
    except ValueError as e:
        p.error(f"--run_options {args.run_options}: {e}")
    from espnet2_ext.papers.experiments import Notes
    from espnet2_ext.papers.run_sweep import run_sweep, shell_line, write_sweep_table
    from espnet2_ext.papers.sweep import Sweep
    from espnet2_ext.recipe.steps import end

    chosen = Sweep(args.sweep, recipe=args.recipe, size=args.size, folder=args.folder, run_options=run_options)
    runs = chosen.runs(args.only, args.max_seeds)
    if args.dry_run:
        for one in runs:
            print(shell_line(chosen, one))
        for name in chosen.configs:
            print(f"# made when the sweep runs: {chosen.recipe}/{chosen.configs.path(name)}")
    elif args.table_only:
        print(write_sweep_table(Notes(chosen)))
    else:
        end(lambda: run_sweep(chosen, runs, max_minutes=args.max_minutes))


def sweep_parser() -> argparse.ArgumentParser:
    """The options of `sweep`."""
    p = Parser(description=sweep.__doc__)
    p.add_argument("sweep", help="such as conf/sweeps/side_by_side.yaml")
    p.add_argument("--recipe", help="the recipe's folder (default: as the sweep says)")
    text = "more options of every run.sh, such as the path of a corpus"
    p.add_argument("--run_options", default="", metavar="'--OPTION VALUE ...'", help=text)
    p.add_argument("--size", help="which of the sweep's sizes (default: the first)")
    text = "name of the folder in the recipe's exp/ (default: as the sweep says; _SIZE is put behind it where there "
    text += "are sizes); another corpus needs another one"
    p.add_argument("--folder", help=text)
    p.add_argument("--only", nargs="+", default=[], metavar="CELL", help="only these cells and what they need")
    p.add_argument("--max_seeds", type=int, metavar="N", help="at most N seeds per cell (default: all)")
    p.add_argument("--max_minutes", type=float, metavar="N", help="start no new cell after N minutes")
    p.add_argument("--dry_run", action="store_true", help="print the commands, run nothing")
    p.add_argument("--table_only", action="store_true", help="rewrite the table, run nothing")
    return p


def bench(argv: list[str] | None = None) -> None:
    """What each model costs: time, memory and operations.

    Separation by query (conf/train_qsep_*.yaml): parameters, operations, time and memory; with `--against plain` also
    how CaRE-SEP compares with the two-network route, and with `--data BANK` whether a clip bank keeps up with training.
    `--costs` prints one table of every system and tagger of the papers.

    Separation from weak labels (conf/train_weak_*.yaml): training step, the classifier's share of it,
    memory, inference of a clip and of a song; with `--against plain` also how the step compares with a
    plain version of it, and with `--rendering` how fast mixtures are rendered.
    """
    parser = Parser(description=bench.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    text = "model configurations; default: CaRE-SEP small, 768 and 2048; with --costs all query systems and taggers; "
    text += "with --rendering alone none"
    parser.add_argument("yaml", nargs="*", type=Path, help=text)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the mixture in seconds (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs; the median is shown (%(default)s)")
    parser.add_argument("--threads", type=int, default=cores(), help="default: all cores")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (%(default)s)")
    parser.add_argument("--no_train", action="store_true", help="leave out the training step")
    text = "plain: plain HTS-AT and U-Net, or a plain training from weak labels, in turns with the models; a commit, "
    text += "or the folder of a checkout: the same models there, in turns, and nothing else"
    parser.add_argument("--against", metavar="plain|REV", help=text)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    _add_queries(parser.add_argument_group("separation by query"))
    _add_weak(parser.add_argument_group("separation from weak labels"))
    args = parser.parse_args(argv)
    if not args.yaml and not args.costs and args.rendering is None:
        args.yaml = [shipped("conf") / name for name in DEFAULT]
    from espnet2_ext.bench import report
    from espnet2_ext.cli.main import keep_memory

    result = report.bench(args, keep_memory)
    if args.json:
        write_json(args.json, result)


def _add_queries(group) -> None:
    text = "one table: parameters, operations, time and memory of a query of 2 s and of --seconds, for each system"
    group.add_argument("--costs", action="store_true", help=text)
    text = "with --costs: only systems whose name contains one of these, such as care_sep"
    group.add_argument("--only", nargs="+", metavar="NAME", help=text)
    group.add_argument("--conf", type=Path, default=None, help="folder whose YAMLs --costs takes when none is named")
    text = "fp32, bf16, int8, 'fp32 compiled', 'bf16 compiled'; default: all on a GPU, else fp32; in training bf16 is "
    text += "autocast"
    group.add_argument("--variants", nargs="+", metavar="VARIANT", help=text)
    group.add_argument("--data", metavar="BANK", help="clip bank to measure")
    text = "of training with the YAML's batch size; default: as measured"
    group.add_argument("--steps_per_second", type=float, help=text)


def _add_weak(group) -> None:
    group.add_argument("--batch", type=int, default=10, help="mixtures in a training step (%(default)s)")
    group.add_argument("--clip", type=float, default=4.0, help="seconds per mixture (%(default)s)")
    text = "seconds of the song that is separated in chunks (%(default)s)"
    group.add_argument("--song", type=float, default=210.0, help=text)
    text = "mixtures rendered per second and core, of a table and its clip bank; without them of sounds made for it"
    group.add_argument("--rendering", nargs="*", metavar=("TABLE", "BANK"), help=text)
