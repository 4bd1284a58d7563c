"""Train a tagger: `python -m espnet2_ext.bin.tag_train`, ESPnet's habit."""

from espnet2_ext.cli.main import program
from espnet2_ext.cli.train import tag_train as main

if __name__ == "__main__":
    program(main)
