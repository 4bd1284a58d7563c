"""Where a weak-label model is, for the processes that load it."""

import functools
import multiprocessing
import os
from dataclasses import dataclass

from espnet2_ext.infer.work import ModelFiles


@dataclass(frozen=True)
class WeakFiles(ModelFiles):
    """A bundle, or `config.yaml` and weights of an experiment; and where it runs."""

    def load(self):
        """The `WeakSeparator`, once a process (until a file changes)."""
        stats = [os.stat(f) for f in (self.bundle, self.train_config, self.model_file) if f]
        return _load(self, tuple((s.st_mtime_ns, s.st_size) for s in stats))


@functools.lru_cache(maxsize=1)
def _load(files: WeakFiles, stats: tuple):
    import torch

    from espnet2_ext.infer.class_separator import WeakSeparator

    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # the worker processes are what runs side by side
    if files.bundle:
        return WeakSeparator.from_bundle(files.bundle, files.device)
    return WeakSeparator.from_exp(files.train_config, files.model_file, files.device)
