"""Make the bundles of scored weak-label experiments: each one file, to separate with."""

import argparse
from pathlib import Path

from espnet2_ext.cli.run import run


def get_parser() -> argparse.ArgumentParser:
    """Options of this step."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("exp_dirs", nargs="+", metavar="EXP", help="gets EXP/NAME.zip, NAME its own")
    p.add_argument("--model_file", default="valid.loss.best.pth", help="its weights (%(default)s)")
    p.add_argument("--test_set", action="append", default=[], help="whose scores go along; may be given again")
    return p


def main(cmd: list[str] | None = None) -> None:
    """Run the step."""
    a = get_parser().parse_args(cmd)
    from espnet2_ext.infer.weak_bundle import pack_weak

    for exp in map(Path, a.exp_dirs):
        out = exp / f"{exp.absolute().name}.zip"
        pack_weak(exp, a.model_file, a.test_set, out)
        print(out)


if __name__ == "__main__":
    run(main)
