"""What differs between devices: when reading a number waits, how numbers travel, autocast, and CUDA graphs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

__all__ = ["Late", "autocast_as", "begin_graphs", "reading_waits", "sent"]


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


def begin_graphs(device: torch.device) -> None:
    """Tells the CUDA graphs of compiled modules that a new forward pass begins, which may write over the last one's.

    Raises:
        MisconfigurationException: if the device has no CUDA graphs.
    """
    if device.type != "cuda":
        raise MisconfigurationException(
            f"compile_networks='graphs' needs an NVIDIA GPU, and the images are on the device {device.type!r}: give "
            "compile_networks=true, or leave it out"
        )
    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
