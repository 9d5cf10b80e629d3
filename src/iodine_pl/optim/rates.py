"""The learning rate: its size for a batch, and how it falls."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

__all__ = ["learning_rate_decay", "square_root_rule"]


def square_root_rule(learning_rate: float, batch_size: int, reference_batch_size: int) -> float:
    """Returns ``learning_rate * sqrt(batch_size / reference_batch_size)``, the released code's rule.

    Example:
        >>> square_root_rule(3e-4, 64, 256)
        0.00015
    """
    return learning_rate * math.sqrt(batch_size / reference_batch_size)


def learning_rate_decay(kind: Literal["exponential", "cosine"], factor: float, steps: int) -> Callable[[int], float]:
    """Returns a function from the number of updates to the remaining share of the learning rate.

    Args:
        kind: ``exponential``: it falls by ``factor`` over each ``steps`` updates, as in the released code; ``cosine``:
            it falls to zero over ``steps`` updates, along half a cosine.
        factor: of ``exponential``.
        steps: updates.

    Raises:
        ValueError: for an unknown kind.

    Example:
        >>> decay = learning_rate_decay("cosine", 0.1, steps=100)
        >>> [round(decay(updates), 3) for updates in (0, 50, 100, 200)]
        [1.0, 0.5, 0.0, 0.0]
    """
    if kind == "exponential":
        return partial(_exponential, factor, steps)
    if kind == "cosine":
        return partial(_cosine, steps)
    raise ValueError(f"decay must be 'exponential' or 'cosine', got {kind!r}")


def _exponential(factor: float, steps: int, updates: int) -> float:
    return math.pow(factor, updates / steps)


def _cosine(steps: int, updates: int) -> float:
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, updates / steps))
