"""What each model costs: `python -m espnet2_ext.bin.bench [YAML ...]`.

Prints parameters, operations, time, memory; with `--against plain` also how CaRE-SEP compares with
the two-network route, and with `--data BANK` whether a clip bank keeps up with training.
"""

import argparse
import json
from pathlib import Path

from espnet2_ext.bin._cli import keep_memory, run
from espnet2_ext.data.parallel import cores
from espnet2_ext.files import write_text

CONF = Path(__file__).parents[2] / "conf"
DEFAULT = [CONF / f"train_qsep_care_sep_{size}.yaml" for size in ("small", "768", "2048")]


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("yaml", nargs="*", type=Path, default=DEFAULT,
                        help="model configurations; default: CaRE-SEP small, 768 and 2048")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the mixture")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs; the median is shown")
    parser.add_argument("--threads", type=int, default=cores(), help="default: all cores")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--variants", nargs="+", metavar="VARIANT",
                        help="fp32, bf16, 'fp32 compiled', 'bf16 compiled'; default: all on a "
                             "GPU, else fp32")
    parser.add_argument("--no_train", action="store_true", help="leave out the training step")
    parser.add_argument("--against", choices=["plain"],
                        help="plain: plain HTS-AT and U-Net, in turns with the models")
    parser.add_argument("--data", metavar="BANK", help="clip bank to measure")
    parser.add_argument("--steps_per_second", type=float,
                        help="of training with the YAML's batch size; default: as measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there too")
    return parser


def main(cmd: list[str] | None = None) -> None:
    """Measure and print."""
    args = get_parser().parse_args(cmd)
    from espnet2_ext.bench import report  # PyTorch is loaded after the options are known good

    result = report.bench(args, keep_memory)
    if args.json:
        write_text(args.json, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    run(main)
