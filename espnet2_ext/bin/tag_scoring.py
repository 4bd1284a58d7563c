"""Score tags."""

from espnet2_ext.cli.main import program
from espnet2_ext.cli.score import score_tags as main

if __name__ == "__main__":
    program(main)
