"""The optimiser of the reference code."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import ParamsT

__all__ = ["TFAdam", "square_root_rule"]


class TFAdam(torch.optim.Adam):
    r"""Steps Adam in TensorFlow's form, whose epsilon stands beside the uncorrected second moment (Kingma & Ba, section
    2):

    .. math:: w \leftarrow w - \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \frac{m}{\sqrt{v} + \epsilon}.

    torch's own epsilon is smaller by :math:`\sqrt{1 - \beta_2^t}`: 31 times at the first step, which matters for
    IODINE, where many gradients are near 1e-6 after clipping. So this is torch's Adam, given epsilon divided by that
    factor.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        betas: decay of the first and second moment; the released code uses 0.95 and 0.999.
        eps: epsilon of the formula above.
    """

    def __init__(
        self, params: ParamsT, lr: float = 1e-3, betas: tuple[float, float] = (0.95, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Runs ``closure`` if given and updates every parameter that has a gradient."""
        epsilons = [group["eps"] for group in self.param_groups]
        try:
            for group in self.param_groups:
                taken = max((float(self.state[p]["step"]) for p in group["params"] if p in self.state), default=0.0)
                group["eps"] = group["eps"] / math.sqrt(1.0 - group["betas"][1] ** (taken + 1.0))
            return super().step(closure)
        finally:
            for group, epsilon in zip(self.param_groups, epsilons, strict=True):
                group["eps"] = epsilon


def square_root_rule(learning_rate: float, batch_size: int, reference_batch_size: int) -> float:
    """Returns ``learning_rate * sqrt(batch_size / reference_batch_size)``, the released code's rule."""
    return learning_rate * math.sqrt(batch_size / reference_batch_size)
