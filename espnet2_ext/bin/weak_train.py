"""Train a classifier or a separator from weak labels: `python -m espnet2_ext.bin.weak_train`, ESPnet's habit."""

from espnet2_ext.cli.main import program
from espnet2_ext.cli.train import weak_train as main

if __name__ == "__main__":
    program(main)
