"""What models cost: time, memory and operations; behind `python -m espnet2_ext.bin.bench`."""
