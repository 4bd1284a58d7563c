"""GPUs that training asks for."""

import torch

from espnet2_ext.errors import DataError


def need_gpus(number: int) -> None:
    """Refuse a training on more GPUs than PyTorch finds (DataError)."""
    found = torch.cuda.device_count() if number else 0
    if number > found:
        there = f"{found} GPU{'s' * (found > 1)}" if found else "no GPU"
        raise DataError(f"--ngpu {number}: PyTorch finds {there} on this machine; give --ngpu {found}")
