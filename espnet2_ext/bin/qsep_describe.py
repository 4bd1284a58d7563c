"""Tell in a folder of scores which trained model they are of, and whether it is zero-shot."""

import argparse

from espnet2_ext.cli.run import run


def get_parser() -> argparse.ArgumentParser:
    """Options of this step."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--exp_dir", required=True, help="gets config.yaml and model.json")
    p.add_argument("--labels", required=True, help="labels.tsv of the test set")
    p.add_argument("--bundle", help="the model as one file")
    p.add_argument("--train_config", help="or config.yaml of the experiment")
    p.add_argument("--model_file", help="with its weights, such as valid.loss.ave.pth")
    return p


def main(cmd: list[str] | None = None) -> None:
    """Run the step."""
    a = get_parser().parse_args(cmd)
    from espnet2_ext.data.tables import read_labels
    from espnet2_ext.infer.describe import describe_model
    from espnet2_ext.infer.work import ModelFiles

    about = describe_model(a.exp_dir, ModelFiles(a.bundle, a.train_config, a.model_file), read_labels(a.labels))
    print(f"zero-shot: {about['facts']['zero-shot']}")


if __name__ == "__main__":
    run(main)
