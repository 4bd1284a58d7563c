"""espnet2_ext: separate any sound with ESPnet2."""

__version__ = "0.2.0"
