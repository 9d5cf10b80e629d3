"""What differs between devices: when reading a number waits, asynchronous copies, autocast, and CUDA graphs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["Late", "autocast_as", "autocast_of", "being_recorded", "reading_waits", "sent"]


def reading_waits(x: Tensor) -> bool:
    """Returns whether reading a number of ``x`` makes the host wait for the device's queue.

    This is so on CUDA. A tensor on ``meta``, which has no numbers, counts as one on CUDA.
    """
    return x.is_cuda or x.is_meta


class Late:
    """Holds numbers that are being copied from the device to the host.

    Reading waits for the work that computes them, not for work that was queued later.

    Args:
        numbers: of any shape.
    """

    def __init__(self, numbers: Tensor) -> None:
        self._numbers = numbers.detach().to("cpu", non_blocking=True)  # torch takes pinned memory for this
        self._arrived = torch.cuda.current_stream(numbers.device).record_event() if numbers.is_cuda else None

    def read(self) -> Tensor:
        """Returns the numbers, on the CPU."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._numbers


def sent(x: Tensor, device: torch.device) -> Tensor:
    """Copies ``x`` from the CPU to ``device`` without waiting for the copy."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def autocast_as(device_type: str, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Computes under autocast to ``dtype``; None turns autocast off.

    Where autocast is off already, or the device has none, such as ``meta``, this changes nothing: compiled networks are
    compiled again for another state of autocast.
    """
    if not torch.amp.is_autocast_available(device_type) or (dtype is None and autocast_of(device_type) is None):
        return nullcontext()
    return torch.autocast(device_type, dtype, enabled=dtype is not None, cache_enabled=False)


def autocast_of(device_type: str) -> torch.dtype | None:
    """Returns the dtype of autocast; None if it is off or the device has none."""
    enabled = torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)
    return torch.get_autocast_dtype(device_type) if enabled else None


def being_recorded(x: Tensor) -> bool:
    """Returns whether operations on ``x`` are recorded in a CUDA graph, so that no number can be read now."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()
