"""Score separation by queries."""

from espnet2_ext.cli.main import run
from espnet2_ext.cli.score import score as main

if __name__ == "__main__":
    run(main)
