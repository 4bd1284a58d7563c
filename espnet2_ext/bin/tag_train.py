"""Train a tagger with ESPnet's trainer: `python -m espnet2_ext.bin.tag_train`."""

from espnet2_ext.cli.run import run
from espnet2_ext.tasks.common import train
from espnet2_ext.tasks.tagging import TaggingTask


def get_parser():
    """ESPnet's training options, with those of `TaggingTask`."""
    return TaggingTask.get_parser()


def main(cmd: list[str] | None = None) -> None:
    """Train; options and errors as in `espnet2_ext.tasks.common.train`."""
    train(TaggingTask, cmd)


if __name__ == "__main__":
    run(main)
