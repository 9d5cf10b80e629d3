"""Adam as the reference code has it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import ParamsT

__all__ = ["TFAdam", "called"]


class TFAdam(torch.optim.Adam):
    r"""Implements Adam in TensorFlow's form, which adds epsilon to the uncorrected second moment (Kingma & Ba, section
    2):

    .. math:: w \leftarrow w - \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \frac{m}{\sqrt{v} + \epsilon}.

    torch adds its epsilon to the corrected second moment, where it counts for less by the factor :math:`\sqrt{1 -
    \beta_2^t}`, 1/31 at the first step. This matters for IODINE, where many gradients are near 1e-6 after clipping. The
    implementation is torch's Adam with epsilon divided by this factor.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        betas: decay of the first and second moment; the released code uses 0.95 and 0.999.
        eps: epsilon of the formula above.

    References:
        | Adam: A Method for Stochastic Optimization (Kingma & Ba 2015)
        | https://arxiv.org/abs/1412.6980

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(1))
        >>> optimizer = TFAdam([weight], lr=0.1)
        >>> weight.grad = torch.full((1,), 2.0)
        >>> optimizer.step()
        >>> round(weight.item(), 6)  # the first step is as large as the learning rate, whatever the gradient
        -0.1
    """

    def __init__(
        self, params: ParamsT, lr: float = 1e-3, betas: tuple[float, float] = (0.95, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, foreach=True)  # a few kernels for all parameters

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Runs ``closure`` if given and updates every parameter that has a gradient."""
        result = called(closure)  # first, since it may read the groups or undo a step
        epsilons = [group["eps"] for group in self.param_groups]
        try:
            for group in self.param_groups:
                taken = max((float(self.state[p]["step"]) for p in group["params"] if p in self.state), default=0.0)
                group["eps"] = group["eps"] / math.sqrt(1.0 - group["betas"][1] ** (taken + 1.0))
            super().step()
        finally:
            for group, epsilon in zip(self.param_groups, epsilons, strict=True):
                group["eps"] = epsilon
        return result


def called(closure: Callable[[], Any] | None) -> Any:
    """Returns what a closure of an optimizer's step returns."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
