"""Train a query-based separator with ESPnet's trainer: `python -m espnet2_ext.bin.qsep_train`."""

from espnet2_ext.cli.run import run
from espnet2_ext.tasks.common import train
from espnet2_ext.tasks.qsep import QSepTask


def get_parser():
    """ESPnet's training options, with those of `QSepTask`."""
    return QSepTask.get_parser()


def main(cmd: list[str] | None = None) -> None:
    """Train; options and errors as in `espnet2_ext.tasks.common.train`."""
    train(QSepTask, cmd)


if __name__ == "__main__":
    run(main)
