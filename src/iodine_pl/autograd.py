"""Gradients inside the forward pass, and tensors that join the autograd graph after they were computed outside of it.

A refinement step differentiates the loss in the forward pass, also under ``no_grad``. The gradients of a tensor that
was computed outside of the graph are either known already or recomputed in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from iodine_pl.device import Late, autocast_as, autocast_of, being_recorded, reading_waits

__all__ = [
    "differentiation_allowed",
    "recomputed",
    "refuse_tracing",
    "refusing_gradients",
    "usable_in_graph",
    "with_known_gradients",
]

_is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)  # not in torch 2.6


def refuse_tracing(what: str, instead: str) -> None:
    """Checks that ``torch.export``, ``torch.jit.trace`` or ``torch.onnx.export`` is not recording a graph.

    Args:
        what: name of the model, for the message.
        instead: what to do, for the message.

    Raises:
        RuntimeError: if one of them is; none of their graphs can hold a gradient taken in the forward pass.
    """
    if _is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        raise RuntimeError(
            f"{what} can be neither exported nor traced: it differentiates its loss inside the forward pass, and no "
            f"graph of torch.export, torch.jit.trace or ONNX holds that. {instead}"
        )


@contextmanager
def differentiation_allowed() -> Iterator[None]:
    """Turns gradients on, also inside ``no_grad`` and ``inference_mode`` (Lightning evaluates under these)."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def usable_in_graph(x: Tensor) -> Tensor:
    """Returns ``x``, copied if it was made under ``inference_mode``: such a tensor cannot enter a graph."""
    return x.clone() if x.is_inference() else x


def recomputed(
    function: Callable[..., tuple[Tensor, ...]],
    outputs: tuple[Tensor, ...],
    inputs: tuple[Tensor, ...],
    parameters: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """Returns ``outputs`` as differentiable functions of ``inputs`` and ``parameters``, without keeping activations.

    The backward pass calls ``function`` again, with a graph and the forward pass's autocast, and differentiates it.

    Args:
        function: computes the outputs from the inputs.
        outputs: ``function(*inputs)``, already computed, without a graph.
        inputs: tensors that get gradients if they require them.
        parameters: leaf tensors that ``function`` uses; they get gradients too.
    """
    result: tuple[Tensor, ...] = _Recomputed.apply(function, outputs, len(inputs), *inputs, *parameters)  # type: ignore[no-untyped-call]
    return result


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., tuple[Tensor, ...]], outputs: tuple[Tensor, ...], count: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.function = function
        ctx.count = count
        ctx.device_type = outputs[0].device.type
        ctx.autocast = autocast_of(ctx.device_type)
        ctx.save_for_backward(*tensors)
        return tuple(x.view_as(x) for x in outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        inputs = [x.detach().requires_grad_(need) for x, need in zip(tensors[: ctx.count], needed, strict=False)]
        leaves = (*inputs, *tensors[ctx.count :])
        with torch.enable_grad(), autocast_as(ctx.device_type, ctx.autocast):
            outputs = ctx.function(*inputs)
        wanted = [x for x, need in zip(leaves, needed, strict=True) if need]
        found = iter(torch.autograd.grad(outputs, wanted, gradients, allow_unused=True))
        return (None, None, None, *(next(found) if need else None for need in needed))


def with_known_gradients(
    value: Tensor, weights: Tensor, inputs: Sequence[Tensor], parameters: Sequence[Tensor], gradients: Sequence[Tensor]
) -> Tensor:
    """Returns ``value`` as a differentiable function of inputs and parameters whose gradients are known already.

    Args:
        value: ``(N, B)``: N numbers for each of B images.
        weights: ``(N,)``: the weight of each number in the loss, up to one factor for all images.
        inputs: N tensors ``(B, ...)``; each number depends on its own.
        parameters: tensors that all numbers depend on.
        gradients: for each input its gradient, unweighted; then for each parameter the weighted sum over N and B.

    Raises:
        RuntimeError: if the loss has other weights. On the CPU the backward pass raises it. On a GPU this check would
            wait for the device, so all gradients become NaN and the next call raises it.
    """
    if _unread and not being_recorded(value):
        _refuse_weights(_unread.pop().read())
    result: Tensor = _KnownGradients.apply(value, weights, len(inputs), gradients, *inputs, *parameters)  # type: ignore[no-untyped-call]
    return result


_unread: list[Late] = []  # whether the last loss on a GPU had other weights


def _refuse_weights(others: Tensor) -> None:
    if others:
        raise RuntimeError(
            "the gradients of this likelihood were taken with the weights t/T of the refinement steps t, the same "
            "for every image, but the loss gives it others: use the model's own loss, or input_gradients='full'"
        )


class _KnownGradients(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, weights: Tensor, count: int, gradients: Sequence[Tensor], *_: Tensor
    ) -> Tensor:
        ctx.count = count
        ctx.save_for_backward(weights, *gradients)
        return value.view_as(value)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        weights, *gradients = ctx.saved_tensors
        factor = given[-1, 0] / weights[-1]
        error = (given - factor * weights.unsqueeze(1)).abs().max()
        others = error > 1e-4 * factor.abs()  # False for NaN, which is passed on
        if being_recorded(others):
            pass  # the model records its own loss
        elif reading_waits(others):
            _unread[:] = [Late(others)]
            factor, given = (torch.where(others, torch.nan, x) for x in (factor, given))
        else:
            _refuse_weights(others)
        of_inputs = [g * w.view(-1, *(1,) * (g.ndim - 1)) for w, g in zip(given, gradients[: ctx.count], strict=True)]
        of_parameters = torch._foreach_mul(gradients[ctx.count :], factor) if gradients[ctx.count :] else ()
        return (None, None, None, None, *of_inputs, *of_parameters)


def refusing_gradients(value: Tensor, source: Tensor, reason: str) -> Tensor:
    """Returns ``value``, which has no graph, so that a loss that uses it raises instead of training nothing.

    Args:
        value: a tensor outside of the graph.
        source: a tensor in the graph.
        reason: message of the RuntimeError that the backward pass raises.
    """
    result: Tensor = _RefusedGradients.apply(value, source, reason)  # type: ignore[no-untyped-call]
    return result


class _RefusedGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, source: Tensor, reason: str) -> Tensor:
        ctx.reason = reason
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(ctx.reason)
