"""Keeps bad values from ruining a run: non-finite updates are skipped and counted."""

from __future__ import annotations

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn

from iodine_pl.device import Late
from iodine_pl.optim.undoing import Update
from iodine_pl.result import Trace

__all__ = ["NonFiniteError", "NonFiniteGuard", "poison_if_nonfinite"]


class NonFiniteError(RuntimeError):
    """Says that too many updates in a row had a non-finite loss or gradient."""


def poison_if_nonfinite(loss: Tensor) -> Tensor:
    """Returns ``loss`` with NaN for every gradient where it is not finite.

    An infinite loss can have finite gradients. NaN survives the averaging of gradients over processes, so all of them
    skip the same update without further communication.
    """
    return loss * torch.where(torch.isfinite(loss.detach()), 1.0, torch.nan)


class NonFiniteGuard:
    """Decides which updates to skip, counts them, and names the first term that was not finite.

    On the CPU :meth:`must_skip` reads the norm of the gradients. On a GPU this would wait for the backward pass, so
    :meth:`hold` zeroes non-finite gradients and :meth:`settle` undoes their update on the device. :meth:`read` counts
    it before the next update. Parameters, moments and counters are the same either way.

    Args:
        limit: number of consecutive updates that may be skipped; one more raises :class:`NonFiniteError`.
    """

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"max_skipped_updates must not be negative, got {limit}")
        self.limit = limit
        self.skipped = 0
        self.in_a_row = 0
        self._watched: list[Trace] = []
        self._update: Update | None = None
        self._unread: tuple[_Terms, Late, Update] | None = None

    def watch(self, trace: Trace) -> None:
        """Keeps the terms of a micro-batch's loss until the next update."""
        self._watched.append(trace)

    def must_skip(self, gradient_norm: Tensor, module: nn.Module) -> bool:
        """Returns whether the update with this global gradient norm must be skipped.

        Raises:
            NonFiniteError: if more than ``limit`` in a row were skipped.
        """
        watched, self._watched = self._watched, []
        if torch.isfinite(gradient_norm):
            self.in_a_row = 0
            return False
        terms = _Terms(watched, module, gradient_norm)
        self._count(terms.first_nonfinite(terms.values))
        return True

    def hold(self, gradient_norm: Tensor, module: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
        """Zeroes the gradients, on the device, if their global norm is not finite.

        Returns:
            The norm after that.

        Raises:
            NonFiniteError: if the update before exceeded ``limit``.
        """
        self.read()
        terms = _Terms(self._watched, module, gradient_norm)
        self._watched = []
        finite = torch.isfinite(gradient_norm)
        self._update = Update(finite, optimizer)
        self._unread = (terms, Late(terms.values), self._update)
        return torch.where(finite, gradient_norm, 0.0)

    def settle(self) -> None:
        """Undoes the update on the device if its gradients were not finite."""
        if self._update is not None:
            self._update.settle()
            self._update = None

    def read(self) -> None:
        """Counts the update of the last :meth:`hold` if it was skipped.

        Raises:
            NonFiniteError: if more than ``limit`` in a row were skipped.
        """
        if self._unread is None:
            return
        (terms, late, update), self._unread = self._unread, None
        values = late.read()
        if torch.isfinite(values[-1]):
            self.in_a_row = 0
        else:
            update.take_back_counters()
            self._count(terms.first_nonfinite(values))

    def state_dict(self) -> dict[str, int]:
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]

    def _count(self, cause: str) -> None:
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row > self.limit:
            raise NonFiniteError(
                f"{self.in_a_row} updates in a row had a non-finite loss or gradient; first in the last one: {cause}. "
                "Lower learning_rate, look at the images (float ones must be in [0, 1]), or raise max_skipped_updates."
            )
        rank_zero_warn(f"Skipped an update ({self.skipped} so far, {self.in_a_row} in a row): {cause} is not finite.")


class _Terms:
    """Joins the numbers of an update in order: NLL and KL of each step, the norm of each gradient, the total norm."""

    @torch.no_grad()
    def __init__(self, traces: list[Trace], module: nn.Module, gradient_norm: Tensor) -> None:
        gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        self._shapes = [trace.nll.shape for trace in traces]
        self._names = [*(f"the gradient of {name}" for name in gradients), "the gradient norm"]
        of_steps = [torch.stack([trace.kl.sum(dim=2), trace.nll], dim=1).flatten() for trace in traces]  # (T+1, 2, B)
        norms = torch._foreach_norm(list(gradients.values()))
        self.values = torch.cat([*of_steps, torch.stack([*norms, gradient_norm])])

    def first_nonfinite(self, values: Tensor) -> str:
        """Names the first of ``values`` (on the CPU) that is not finite; there must be one."""
        place = int((~torch.isfinite(values)).nonzero()[0])
        value = float(values[place])
        for states, images in self._shapes:
            if place < 2 * states * images:
                step, rest = divmod(place, 2 * images)
                kind, image = divmod(rest, images)
                name = ("KL", "NLL")[kind]
                return f"the {name} at refinement step {step} (image {image} of the batch: {value})"
            place -= 2 * states * images
        return self._names[place]
