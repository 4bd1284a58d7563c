"""`espnet2-ext bench`: what each model costs."""

import argparse
import json
from pathlib import Path

from espnet2_ext.util.files import shipped, write_text
from espnet2_ext.util.parallel import cores

DEFAULT = [f"train_qsep_care_sep_{size}.yaml" for size in ("small", "768", "2048")]


def bench(argv: list[str] | None = None) -> None:
    """What each model costs: time, memory and operations.

    Separation by query (conf/train_qsep_*.yaml): parameters, operations, time and memory; with
    `--against plain` also how CaRE-SEP compares with the two-network route, and with `--data BANK`
    whether a clip bank keeps up with training. `--costs` prints one table of every system and tagger
    of the papers.

    Separation from weak labels (conf/train_weak_*.yaml): training step, the classifier's share of it,
    memory, inference of a clip and of a song; with `--against plain` also how the step compares with a
    plain version of it, and with `--rendering` how fast mixtures are rendered.
    """
    parser = argparse.ArgumentParser(description=bench.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "yaml",
        nargs="*",
        type=Path,
        help="model configurations; default: CaRE-SEP small, 768 and 2048; with "
        "--costs all query systems and taggers; with --rendering alone none",
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the mixture in seconds (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs; the median is shown (%(default)s)")
    parser.add_argument("--threads", type=int, default=cores(), help="default: all cores")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (%(default)s)")
    parser.add_argument("--no_train", action="store_true", help="leave out the training step")
    parser.add_argument(
        "--against",
        choices=["plain"],
        help="plain: plain HTS-AT and U-Net, or a plain training from weak labels, in turns with the models",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    _add_queries(parser.add_argument_group("separation by query"))
    _add_weak(parser.add_argument_group("separation from weak labels"))
    args = parser.parse_args(argv)
    if not args.yaml and not args.costs and args.rendering is None:
        args.yaml = [shipped("conf") / name for name in DEFAULT]
    from espnet2_ext.bench import report
    from espnet2_ext.cli.run import keep_memory

    result = report.bench(args, keep_memory)
    if args.json:
        write_text(args.json, json.dumps(result, indent=1) + "\n")


def _add_queries(group) -> None:
    group.add_argument(
        "--costs",
        action="store_true",
        help="one table: parameters, operations, time and memory of a query of 2 s and of --seconds, for each system",
    )
    group.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="with --costs: only systems whose name contains one of these, such as care_sep",
    )
    group.add_argument("--conf", type=Path, default=None, help="folder whose YAMLs --costs takes when none is named")
    group.add_argument(
        "--variants",
        nargs="+",
        metavar="VARIANT",
        help="fp32, bf16, 'fp32 compiled', 'bf16 compiled'; default: all on a GPU, else fp32; not with --costs",
    )
    group.add_argument("--data", metavar="BANK", help="clip bank to measure")
    group.add_argument(
        "--steps_per_second", type=float, help="of training with the YAML's batch size; default: as measured"
    )


def _add_weak(group) -> None:
    group.add_argument("--batch", type=int, default=10, help="mixtures in a training step (%(default)s)")
    group.add_argument("--clip", type=float, default=4.0, help="seconds per mixture (%(default)s)")
    group.add_argument(
        "--song", type=float, default=210.0, help="seconds of the song that is separated in chunks (%(default)s)"
    )
    group.add_argument(
        "--rendering",
        nargs="*",
        metavar=("TABLE", "BANK"),
        help="mixtures rendered per second and core, of a table and its clip bank; without them of sounds made for it",
    )
