"""What differs between devices: when reading a number waits, how numbers travel, autocast, and CUDA graphs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["Late", "autocast_as", "autocast_of", "being_recorded", "reading_waits", "sent"]


def reading_waits(x: Tensor) -> bool:
    """Returns whether the host must wait to read a number of ``x``, since the device works through a queue.

    That is so on CUDA. A tensor on ``meta``, which has no numbers, stands for one there.
    """
    return x.is_cuda or x.is_meta


class Late:
    """Holds numbers on their way from the device to the host.

    Reading waits for what made them, not for what the device was given to do since then.

    Args:
        numbers: of any shape.
    """

    def __init__(self, numbers: Tensor) -> None:
        self._numbers = numbers.detach().to("cpu", non_blocking=True)  # to pinned memory, which torch chooses for that
        self._arrived = torch.cuda.current_stream(numbers.device).record_event() if numbers.is_cuda else None

    def read(self) -> Tensor:
        """Returns the numbers, on the CPU."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._numbers


def sent(x: Tensor, device: torch.device) -> Tensor:
    """Returns ``x``, made on the CPU, on its way to ``device``; nobody waits for it."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def autocast_as(device_type: str, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Computes under autocast to ``dtype``, or without autocast where that is None.

    Devices without autocast, such as ``meta``, compute as they do anyway.
    """
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, dtype, enabled=dtype is not None, cache_enabled=False)


def autocast_of(device_type: str) -> torch.dtype | None:
    """Returns the type that autocast is computing in; None where it is off or unknown to the device."""
    enabled = torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)
    return torch.get_autocast_dtype(device_type) if enabled else None


def being_recorded(x: Tensor) -> bool:
    """Returns whether what is done with ``x`` goes into a CUDA graph, so that nothing of it can be read now."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()
