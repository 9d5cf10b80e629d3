"""A loss and its gradients as one CUDA graph, which the host launches at once instead of operation by operation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from iodine_pl.device import autocast_as, autocast_of
from iodine_pl.result import Decomposition

__all__ = ["Recordings"]

Loss = Callable[..., tuple[Tensor, Decomposition]]

_WARM_UPS = 3  # runs before a recording, in which the libraries choose their algorithms and allocate


class Recordings:
    """Keeps one recording for each batch shape, made when that shape first occurs.

    A recording reads the parameters at fixed addresses. If these have changed, all recordings are made again. A copy of
    this object has no recordings, so that a model can be copied and sent to another process.
    """

    def __init__(self) -> None:
        self._made: dict[object, _Recording] = {}
        self._addresses: list[int] = []

    def __reduce__(self) -> tuple[type[Recordings], tuple[()]]:
        return Recordings, ()

    @staticmethod
    def possible_on(device: torch.device) -> bool:
        """Returns whether a device has CUDA graphs."""
        return device.type == "cuda"

    def play(self, loss: Loss, parameters: Iterable[Tensor], *given: Tensor) -> tuple[Tensor, Decomposition]:
        """Returns ``loss(*given)``, computed by a recording.

        The loss has a graph to the parameters. Call ``backward()`` before the next loss overwrites the gradients.

        Args:
            loss: returns a loss with its graph and a decomposition without one; its constants are recorded too.
            parameters: those of the model.
            given: tensors on one device.
        """
        trained = [p for p in parameters if p.requires_grad]
        addresses = [p.data_ptr() for p in trained]
        if addresses != self._addresses:
            self._made, self._addresses = {}, addresses
        key = (autocast_of(given[0].device.type), *((x.shape, x.dtype) for x in given))
        if key not in self._made:
            self._made[key] = _record(loss, trained, given)
        recording = self._made[key]
        for held, x in zip(recording.given, given, strict=True):
            held.copy_(x)
        value: Tensor = _Played.apply(recording, *trained)  # type: ignore[no-untyped-call]
        return value, recording.result.clone()


class _Recording:
    """Holds a recorded computation and the tensors that each run reads and writes in place.

    Args:
        given: inputs.
        run: computes the outputs.
        loss, gradients, result: outputs; a gradient is None for a parameter that the loss does not use.
    """

    def __init__(self, given: list[Tensor], run: Callable[[], None], written: _Written) -> None:
        self.given = given
        self.run = run
        self.loss, self.gradients, self.result = written
        self.runs = 0


class _Written(NamedTuple):
    loss: Tensor
    gradients: tuple[Tensor | None, ...]
    result: Decomposition


class _Played(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, recording: _Recording, *_: Tensor) -> Tensor:
        recording.run()
        recording.runs += 1
        ctx.recording, ctx.run = recording, recording.runs
        return recording.loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.run != ctx.recording.runs:
            raise RuntimeError(
                "cuda_graphs keeps the gradients of one loss, and another has been computed since this one: call "
                "backward() first, or leave cuda_graphs out"
            )
        gradients = ctx.recording.gradients
        found = iter(torch._foreach_mul([g for g in gradients if g is not None], given))
        return (None, *(None if g is None else next(found) for g in gradients))


def _record(loss: Loss, parameters: Sequence[Tensor], given: Sequence[Tensor]) -> _Recording:
    held = [x.clone() for x in given]
    device = held[0].device
    dtype = autocast_of(device.type)

    def run() -> _Written:
        # Autocast's cache of weights would be filled outside of the recording, and never again.
        with torch.enable_grad(), autocast_as(device.type, dtype):
            value, result = loss(*held)
            gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        return _Written(value.detach(), gradients, result)

    graph, written = _captured(run, device)
    return _Recording(held, graph.replay, written)


def _captured(run: Callable[[], _Written], device: torch.device) -> tuple[torch.cuda.CUDAGraph, _Written]:
    """Returns the graph of a run, and its outputs."""
    aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UPS):
            run()
    torch.cuda.current_stream(device).wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # Other threads, which pin memory or monitor NCCL, may use CUDA meanwhile.
    with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        written = run()
    return graph, written
