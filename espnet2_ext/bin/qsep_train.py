"""Train a query-based separator: `python -m espnet2_ext.bin.qsep_train`, ESPnet's habit."""

from espnet2_ext.cli.main import program
from espnet2_ext.cli.train import qsep_train as main

if __name__ == "__main__":
    program(main)
