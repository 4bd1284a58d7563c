"""Checkpoints that a kill cannot cut off."""

import contextlib
import os
from collections.abc import Iterator

import torch

from espnet2_ext.util.files import atomic_path


@contextlib.contextmanager
def whole_checkpoints() -> Iterator[None]:
    """While this lasts, `torch.save` to a path leaves the whole file or the one that was there.

    ESPnet's trainer writes `checkpoint.pth` in place; a kill in that moment would leave a part of
    it, from which nothing can be resumed.
    """
    save = torch.save

    def save_whole(obj, f, *args, **kwargs):
        if not isinstance(f, str | os.PathLike):
            return save(obj, f, *args, **kwargs)
        with atomic_path(f) as tmp:
            return save(obj, tmp, *args, **kwargs)

    torch.save = save_whole
    try:
        yield
    finally:
        torch.save = save
