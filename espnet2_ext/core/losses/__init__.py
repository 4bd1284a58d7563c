"""Losses: `loss(*, est, ref, ...)` gives one value an item, `[B]`; the caller averages."""
