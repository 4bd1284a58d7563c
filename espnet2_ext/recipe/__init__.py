"""Drivers of the recipes in egs2: ESPnet's stages and option names."""
