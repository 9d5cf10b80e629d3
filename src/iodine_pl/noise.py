"""Standard-normal noise that is a function of a key, so that a resumed run draws the same without saved state."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["keyed_normal"]


def keyed_normal(shape: tuple[int, ...], *key: int) -> Tensor:
    """Returns float32 noise of ``shape`` on the CPU: the same for the same key of non-negative integers, everywhere."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
