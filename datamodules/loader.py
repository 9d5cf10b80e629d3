"""Loads batches: the dataset reads arrays, here or in workers, and this process turns them into tensors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any

import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

__all__ = ["ResumableLoader", "SceneLoader", "live_with_parent", "to_tensors", "unchanged"]


class SceneLoader(DataLoader[Any]):
    """Yields batches of tensors, in pinned memory where there is a GPU.

    Its ``collate_fn`` must be :func:`unchanged`, so that workers send arrays. A batch has many fields, and each tensor
    would be a file in shared memory, so that a small batch would take ten times as long.
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


def live_with_parent(worker: int) -> None:
    """Lets the process that reads from a worker decide when the worker ends.

    The worker leaves the process group, so that it does not receive Ctrl-C in a terminal: its reader may need one more
    batch before it stops. And it ends when its reader was killed. PyTorch's workers look whether the reader is there,
    but before they end they try to send what they have read, and wait forever if the pipe is full.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    Thread(target=_end_after, args=(parent_process(),), daemon=True).start()


def _end_after(process: BaseProcess) -> None:
    process.join()
    os._exit(1)


def unchanged(batch: Any) -> Any:
    """Returns the batch unchanged."""
    return batch


def to_tensors(batch: dict[str, Any], pin: bool = False) -> dict[str, Any]:
    """Turns the arrays of a batch into tensors that share their memory.

    Args:
        batch: ``image`` (..., H, W, C), ``factors``, a dict of arrays, and other arrays.
        pin: copy to pinned memory, from which a GPU copies without waiting.

    Returns:
        The batch, with ``image`` as (..., C, H, W).
    """

    def tensor(values: NDArray[Any]) -> torch.Tensor:
        made = torch.from_numpy(values)
        return made.pin_memory() if pin else made

    tensors = {name: tensor(values) for name, values in batch.items() if name != "factors"}
    factors = {name: tensor(values) for name, values in batch["factors"].items()}
    return tensors | {"image": tensors["image"].movedim(-1, -3), "factors": factors}
