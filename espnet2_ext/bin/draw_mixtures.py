"""Draw a table of mixtures from a clip bank: `python -m espnet2_ext.bin.draw_mixtures --bank ...`.

Events by the rules of Pishdadian et al., section III-A; their Tables II and III are printed for
what was drawn. A table that is there for the same bank and options is left as it is.
"""

import argparse
from pathlib import Path

from espnet2_ext.cli.run import run
from espnet2_ext.core.mixing.events import LENGTHS
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.corpora.urbansound8k import CLASSES
from espnet2_ext.data.mixtures.draw import draw_table
from espnet2_ext.data.mixtures.stats import as_markdown, count


def get_parser() -> argparse.ArgumentParser:
    """Options of the command."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--bank", type=Path, required=True, help="folder of the clip bank")
    p.add_argument("--out", type=Path, required=True, help="folder of the table")
    p.add_argument("--mixtures", type=int, required=True, help="how many")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--classes", default=",".join(CLASSES), help="in the order of the labels")
    p.add_argument(
        "--known", default="strong", help="what may be used: strong, frame, clip, or strong:0.1,frame:0.3,clip:0.6"
    )
    p.add_argument(
        "--mean_events", type=float, default=5.0, help="of the Poisson distribution before its zeros are left out"
    )
    p.add_argument("--seconds", type=float, default=4.0, help="length of a mixture")
    p.add_argument(
        "--event_seconds",
        type=float,
        nargs=2,
        default=[0.5, 4.0],
        metavar=("MIN", "MAX"),
        help="shorter clips are left out, longer ones cut",
    )
    p.add_argument(
        "--lengths",
        choices=LENGTHS,
        default="uniform",
        help="of events: uniform from the shortest to the clip's, or whole clips",
    )
    p.add_argument("--lufs", type=float, nargs=2, default=[-30.0, -25.0], metavar=("MIN", "MAX"))
    p.add_argument("--background_classes", default="", help="sound of no labelled class")
    p.add_argument("--background_lufs", type=float, nargs=2, default=[-40.0, -35.0], metavar=("MIN", "MAX"))
    p.add_argument("--background_share", type=float, default=1.0, help="of mixtures with one")
    p.add_argument("--n_fft", type=int, default=512, help="frame of the labels in samples")
    p.add_argument("--hop", type=int, default=128, help="from frame to frame")
    p.add_argument("--num_workers", type=int, help="processes; default: one a core")
    p.add_argument("--scheduler", help="address of a Dask scheduler")
    return p


def main(cmd: list[str] | None = None) -> None:
    """Draw the table, print what it holds."""
    args = vars(get_parser().parse_args(cmd))
    classes, background = (
        [name for name in args.pop(key).split(",") if name] for key in ("classes", "background_classes")
    )
    bank, out = ClipBank(args.pop("bank")), args.pop("out")
    table = draw_table(bank, out, args.pop("mixtures"), args.pop("seed"), classes, background=background, **args)
    print(f"{out}: {as_markdown(count(table))}")


if __name__ == "__main__":
    run(main)
