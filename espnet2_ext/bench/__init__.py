"""What models cost: time, memory and operations; behind `espnet2-ext bench`."""
