"""Rows of numbers, one for each image, joined over batches and processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Columns", "as_array", "of_all_processes"]

Columns = dict[str, NDArray[Any]]
"""Name -> array with one row per image."""


def as_array(values: Tensor) -> NDArray[Any]:
    """Returns the same numbers on the CPU; numpy has no bfloat16."""
    values = values.detach().cpu()
    array: NDArray[Any] = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return array


def of_all_processes(mine: Columns, processes: int) -> Columns:
    """Joins the rows of all processes, in the order of ``index`` if they have it.

    Args:
        mine: the rows of this process; empty if it had no image.
        processes: number of processes; each must call this.
    """
    parts: list[Columns | None] = [mine]
    if processes > 1:
        parts = [None] * processes
        torch.distributed.all_gather_object(parts, mine)
    full = [part for part in parts if part]  # a process may have had no image
    rows = {name: np.concatenate([part[name] for part in full]) for name in full[0]}
    if "index" not in rows:
        return rows
    order = np.argsort(rows["index"], kind="stable")
    return {name: values[order] for name, values in rows.items()}
