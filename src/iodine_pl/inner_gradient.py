"""Autograd inside the forward pass: the inner gradient of iterative inference, wherever the forward pass is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["differentiation_allowed", "usable_in_graph"]


@contextmanager
def differentiation_allowed() -> Iterator[None]:
    """Turns gradients on, also inside ``no_grad`` and ``inference_mode`` (Lightning evaluates under these)."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def usable_in_graph(x: Tensor) -> Tensor:
    """Returns ``x``, copied if it was made under ``inference_mode``: such a tensor cannot enter a graph."""
    return x.clone() if x.is_inference() else x
