"""What the ways over a folder share: the model, the tables, and the marks of what is done."""

import functools
import hashlib
import json
import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path

from espnet2_ext.audio.read import read_scp
from espnet2_ext.data.tables import file_digest
from espnet2_ext.errors import DataError

VERSION = 1  # of what is written; another one makes everything anew


@dataclass(frozen=True)
class ModelFiles:
    """Where a model is: a bundle, or `config.yaml` and weights; and where it runs."""

    bundle: str | None = None
    train_config: str | None = None
    model_file: str | None = None
    device: str = "auto"

    def load(self):
        """The `Separator`, once a process (until a file changes)."""
        stats = [os.stat(f) for f in (self.bundle, self.train_config, self.model_file) if f]
        return _load(self, tuple((s.st_mtime_ns, s.st_size) for s in stats))

    def digest(self) -> str:
        """Of what decides the answers: the files' content.

        Raises:
            DataError: neither a bundle nor both other files, or one that is not there.
        """
        files = [self.bundle] if self.bundle else [self.train_config, self.model_file]
        if not all(files):
            raise DataError("which model? Give --bundle, or --train_config and --model_file")
        for file in files:
            if not Path(file).is_file():
                raise DataError(f"{file}: no such file")
        return " ".join(file_digest(file) for file in files)


@functools.lru_cache(maxsize=1)
def _load(files: ModelFiles, stats: tuple):
    import torch

    from espnet2_ext.infer.query_separator import Separator

    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # the worker processes are what runs side by side
    if files.bundle:
        return Separator.from_bundle(files.bundle, files.device)
    return Separator.from_exp(files.train_config, files.model_file, device=files.device)


def read_table(path: Path) -> dict[str, str]:
    """An scp that must not be empty."""
    table = read_scp(path)
    if not table:
        raise DataError(f"{path}: is empty")
    return table


def is_done(about: Path, digest: str, *files: Path) -> bool:
    """Whether `about` says that `files` were written whole for `digest`."""
    try:
        told = json.loads(about.read_text(encoding="utf-8"))["digest"]
    except (OSError, ValueError, KeyError):
        return False
    return told == digest and all(f.exists() for f in files)


def digest_of(*stamp) -> str:
    return hashlib.blake2b(json.dumps(stamp, sort_keys=True).encode(), digest_size=16).hexdigest()
