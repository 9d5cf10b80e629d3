"""Loads batches: the dataset reads arrays, here or in workers, and this process makes tensors of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

__all__ = ["ResumableLoader", "SceneLoader", "leave_group", "to_tensors", "unchanged"]


class SceneLoader(DataLoader[Any]):
    """Yields batches of tensors, in pinned memory where there is a GPU.

    Its ``collate_fn`` must be :func:`unchanged`, so that workers hand over arrays. A batch has many fields, and as a
    tensor each would be a file in shared memory: a small batch would take ten times as long.
    """

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        pin = torch.cuda.is_available()
        return (to_tensors(batch, pin) for batch in super().__iter__())


class ResumableLoader(SceneLoader):
    """Tells Lightning that training may resume in the middle of an epoch.

    There is nothing to save: the sampler takes its position from the Trainer's own count of batches.
    """

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def leave_group(worker: int) -> None:
    """Keeps from a worker the signals that are sent to the whole group of processes, as Ctrl-C in a terminal is.

    The process that reads from the workers decides when they end: it may want one more batch before it stops.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


def unchanged(batch: Any) -> Any:
    """Returns the batch as it is."""
    return batch


def to_tensors(batch: dict[str, Any], pin: bool = False) -> dict[str, Any]:
    """Makes tensors of a batch of arrays, of which they share the memory.

    Args:
        batch: ``image`` (..., H, W, C), ``factors``, a dict of arrays, and other arrays.
        pin: copy to pinned memory, from which a GPU copies without waiting.

    Returns:
        The same, but ``image`` is (..., C, H, W).
    """

    def tensor(values: NDArray[Any]) -> torch.Tensor:
        made = torch.from_numpy(values)
        return made.pin_memory() if pin else made

    tensors = {name: tensor(values) for name, values in batch.items() if name != "factors"}
    factors = {name: tensor(values) for name, values in batch["factors"].items()}
    return tensors | {"image": tensors["image"].movedim(-1, -3), "factors": factors}
