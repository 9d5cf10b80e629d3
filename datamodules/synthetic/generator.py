"""The interface of all scene generators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Generator", "Scenes"]

Scenes = tuple[NDArray[np.uint8], NDArray[np.uint8], dict[str, NDArray[Any]]]
"""``image`` (n, H, W, C), ``label`` (n, H, W) and factors, each (n, L, ...)."""


class Generator(ABC):
    """Makes scenes, each a function of the seed and its position. It is pickled for other processes.

    Attributes:
        name: contains everything that the scenes depend on.
        shard: number of scenes in a file.
        names: factor -> names of its codes.
        parallel: whether several processes are worth their start-up time.
    """

    name: str
    shard: int
    names: Mapping[str, tuple[str, ...]] = {}
    parallel: bool

    @abstractmethod
    def scenes(self, start: int, stop: int) -> Iterator[Scenes]:
        """Yields the scenes ``start`` to ``stop``, some at a time; ``start`` is a multiple of :attr:`shard`."""
