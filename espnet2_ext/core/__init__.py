"""Plain PyTorch: importable without ESPnet, Asteroid or Lightning.

Axes, as every docstring below this package names them:
B batch, S source, C channel, T sample, F frequency bin, L frame, K class, Q query, D width of a
feature, E width of a query embedding, N band, W bins in a band, H head.
"""
