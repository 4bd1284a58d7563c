"""Inference: `python -m espnet2_ext.bin.tag_inference`, ESPnet's habit."""

from espnet2_ext.cli.infer import tag_inference as main
from espnet2_ext.cli.main import program

if __name__ == "__main__":
    program(main)
