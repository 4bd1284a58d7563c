"""Train a separator by query from weak labels: `python -m espnet2_ext.bin.qweak_train`, ESPnet's habit."""

from espnet2_ext.cli.main import program
from espnet2_ext.cli.train import qweak_train as main

if __name__ == "__main__":
    program(main)
