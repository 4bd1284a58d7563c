"""Score separation by queries."""

from espnet2_ext.cli.main import program
from espnet2_ext.cli.score import score as main

if __name__ == "__main__":
    program(main)
