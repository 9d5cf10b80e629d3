"""Keeps bad values from ruining a run: a non-finite update is skipped and counted, odd images are named."""

from __future__ import annotations

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn

from iodine_pl.result import Trace

__all__ = ["NonFiniteError", "NonFiniteGuard", "poison_if_nonfinite", "warn_of_values"]


class NonFiniteError(RuntimeError):
    """Says that too many updates in a row had a non-finite loss or gradient."""


def warn_of_values(images: Tensor, model: str, binary: bool) -> None:
    """Warns of float images out of [0, 1], and of gray ones where pixels are 0 or 1.

    Args:
        images: of any shape.
        model: its name, for the message.
        binary: pixels are 0 or 1.
    """
    low, high = images.aminmax()
    if low < 0 or high > 1:
        rank_zero_warn(
            f"{model} takes float images in [0, 1], but the first are in [{low:g}, {high:g}]: divide those of 0 to 255 "
            "by 255, or give them as uint8"
        )
    elif binary and ((images > 0) & (images < 1)).any():
        rank_zero_warn(
            "Bernoulli pixels are 0 or 1, but the first images have values between: round them, or take "
            "pixel_distribution='gaussian'"
        )


def poison_if_nonfinite(loss: Tensor) -> Tensor:
    """Returns ``loss`` with NaN for every gradient where it is not finite.

    An infinite loss can have finite gradients. NaN goes through the averaging of gradients over processes, so that all
    of them skip the same update, without a word exchanged.
    """
    return loss * torch.where(torch.isfinite(loss.detach()), 1.0, torch.nan)


class NonFiniteGuard:
    """Decides which updates to skip, counts them, and names the first term that was not finite.

    Args:
        limit: so many skipped updates in a row are borne; the next raises :class:`NonFiniteError`.
    """

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"max_skipped_updates must not be negative, got {limit}")
        self.limit = limit
        self.skipped = 0
        self.in_a_row = 0
        self._watched: list[Trace] = []

    def watch(self, trace: Trace) -> None:
        """Keeps the terms of a micro-batch's loss until the next update."""
        self._watched.append(trace)

    def must_skip(self, gradient_norm: Tensor, module: nn.Module) -> bool:
        """Returns whether the update with this global gradient norm must be skipped.

        Raises:
            NonFiniteError: if more than ``limit`` in a row had to be.
        """
        watched, self._watched = self._watched, []
        if torch.isfinite(gradient_norm):
            self.in_a_row = 0
            return False
        self.skipped += 1
        self.in_a_row += 1
        cause = _first_nonfinite(watched, module)
        if self.in_a_row > self.limit:
            raise NonFiniteError(
                f"{self.in_a_row} updates in a row had a non-finite loss or gradient; first in the last one: {cause}. "
                "Lower learning_rate, look at the images (float ones must be in [0, 1]), or raise max_skipped_updates."
            )
        rank_zero_warn(f"Skipped an update ({self.skipped} so far, {self.in_a_row} in a row): {cause} is not finite.")
        return True

    def state_dict(self) -> dict[str, int]:
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]


def _first_nonfinite(traces: list[Trace], module: nn.Module) -> str:
    """Names the first non-finite term in the order of computation: NLL and KL step by step, then the gradients."""
    for trace in traces:
        for t, (nll, kl) in enumerate(zip(trace.nll, trace.kl, strict=True)):
            for name, term in (("KL", kl.sum(dim=-1)), ("NLL", nll)):
                bad = (~torch.isfinite(term)).nonzero()
                if len(bad):
                    image = int(bad[0])
                    return f"the {name} at refinement step {t} (image {image} of the batch: {float(term[image])})"
    for parameter_name, parameter in module.named_parameters():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"the gradient of {parameter_name}"
    return "the gradient norm"
