"""Train from weak labels with ESPnet's trainer: `python -m espnet2_ext.bin.weak_train`."""

from espnet2_ext.cli.run import run
from espnet2_ext.tasks.common import train
from espnet2_ext.tasks.weak import WeakLabelTask


def get_parser():
    """ESPnet's training options, with those of `WeakLabelTask`."""
    return WeakLabelTask.get_parser()


def main(cmd: list[str] | None = None) -> None:
    """Train; options and errors as in `espnet2_ext.tasks.common.train`."""
    train(WeakLabelTask, cmd)


if __name__ == "__main__":
    run(main)
