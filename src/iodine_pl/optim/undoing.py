"""An update that is undone on the device under a condition that the host does not wait for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

__all__ = ["Update"]


class Update:
    """Zeroes gradients and undoes the optimizer's step with them, unless a condition holds.

    Make it before the optimizer's step and call :meth:`settle` after it. torch's optimizers count their steps on the
    CPU. Read the condition before the next step, and if it does not hold, call :meth:`take_back_counters`. If there was
    no state yet, a step with zero gradients leaves the state of a new optimizer.

    Args:
        wanted: the condition, a bool ``()`` on the device.
        optimizer: its parameters have their gradients.
    """

    @torch.no_grad()
    def __init__(self, wanted: Tensor, optimizer: torch.optim.Optimizer) -> None:
        self._wanted = wanted
        self._optimizer = optimizer
        self._parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients = _Joined([p.grad for p in self._parameters])
        gradients.write(torch.where(wanted, gradients.read(), 0.0))
        self._counters = {(p, name): float(x) for p, name, x in self._state() if _counts(x)}
        self._changed = _Joined([*self._parameters, *(x for *_, x in self._state() if not _counts(x))])
        self._before = self._changed.read()

    @torch.no_grad()
    def settle(self) -> None:
        """Undoes the step's changes to parameters and moments on the device, unless the condition holds."""
        self._changed.write(torch.where(self._wanted, self._changed.read(), self._before))

    def take_back_counters(self) -> None:
        """Resets the optimizer's counters on the CPU."""
        for p, name, x in self._state():
            if _counts(x):
                x.fill_(self._counters.get((p, name), 0.0))

    def _state(self) -> Iterator[tuple[Tensor, str, Tensor]]:
        for p in self._parameters:
            for name, x in self._optimizer.state.get(p, {}).items():
                if isinstance(x, Tensor):
                    yield p, name, x


def _counts(x: Tensor) -> bool:
    return x.ndim == 0 and x.device.type == "cpu"


class _Joined:
    """Reads and writes many tensors as one vector, in their memory order, with a few kernels for all."""

    def __init__(self, tensors: Sequence[Tensor | None]) -> None:
        dense = [x.detach() for x in tensors if x is not None]
        self._vectors = [x.as_strided((x.numel(),), (1,)) for x in dense]

    def read(self) -> Tensor:
        return torch.cat(self._vectors)

    def write(self, joined: Tensor) -> None:
        parts = torch.split(joined, [len(vector) for vector in self._vectors])
        torch._foreach_copy_(self._vectors, list(parts))
