"""Weights of published checkpoints, under our names: `convert(state)` gives a state dict."""
