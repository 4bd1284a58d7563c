"""Make the bundle of a finished experiment: one file with all that using the model needs."""

import argparse

from espnet2_ext.cli.run import run


def get_parser() -> argparse.ArgumentParser:
    """Options of this step."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--exp_dir", required=True, help="experiment, with config.yaml")
    p.add_argument("--model_file", required=True, help="weights, such as valid.loss.best.pth")
    p.add_argument("--train_bank", required=True, help="clip bank of the training")
    p.add_argument(
        "--inference_dir", action="append", default=[], help="scored outputs, whose scores go along; may be given again"
    )
    p.add_argument("-o", "--output", required=True, help="a .zip file")
    return p


def main(cmd: list[str] | None = None) -> None:
    """Run the step."""
    a = get_parser().parse_args(cmd)
    from espnet2_ext.infer.experiment import pack_experiment

    pack_experiment(a.exp_dir, a.model_file, a.train_bank, a.inference_dir, a.output)
    print(a.output)


if __name__ == "__main__":
    run(main)
