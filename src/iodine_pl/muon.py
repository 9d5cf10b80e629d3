"""Muon: momentum whose matrices are made orthogonal before they are added (Jordan et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from iodine_pl.optim import TFAdam

__all__ = ["Muon", "orthogonalized"]

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial a s + b s^3 + c s^5, chosen by Jordan et al. to bring small singular values s near 1 soonest."""


class Muon(TFAdam):
    r"""Steps every parameter of two or more axes by Muon, all others by :class:`iodine_pl.optim.TFAdam`.

    A parameter's gradient g, flattened to a matrix (first axis, all others), moves a momentum; their mix, with all
    singular values brought near 1, is the update. It is as large as one of Adam, whose root mean square is about 0.2
    (Liu et al. 2025, arXiv:2502.16982):

    .. math:: m \leftarrow \beta m + (1 - \beta) g, \quad
        w \leftarrow w - 0.2\, \eta \sqrt{\max(r, c)}\; \mathrm{orth}(\beta m + (1 - \beta) g).

    Args:
        params: parameters.
        lr: learning rate of the matrices.
        adam_lr: learning rate of all others; None: the same.
        momentum: beta.
        betas, eps: of Adam.
        steps: of the iteration, see :func:`orthogonalized`.

    References:
        | https://kellerjordan.github.io/posts/muon
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 4e-3,
        adam_lr: float | None = None,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        steps: int = 5,
    ) -> None:
        params = list(params)
        matrices = {"params": [p for p in params if p.ndim >= 2], "momentum": momentum, "steps": steps}
        others = {"params": [p for p in params if p.ndim < 2], "lr": lr if adam_lr is None else adam_lr}
        super().__init__([matrices, others], lr=lr, betas=betas, eps=eps)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Runs ``closure`` if given and updates every parameter that has a gradient."""
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()  # first of all: it may look at the groups, to clip gradients
        groups = self.param_groups
        try:
            self.param_groups = groups[1:]
            super().step()
        finally:
            self.param_groups = groups
        self._step_matrices(groups[0])
        return result

    @torch.no_grad()
    def _step_matrices(self, group: dict[str, Any]) -> None:
        beta = group["momentum"]
        of_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}  # those of a shape are done at once
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state["step"] = torch.zeros(())  # torch's Adam looks for it when a state is loaded
                state["momentum"] = torch.zeros_like(p)
            state["step"] += 1
            state["momentum"].lerp_(p.grad, 1.0 - beta)
            mixed = p.grad.lerp(state["momentum"], beta).flatten(1)
            wide = mixed if mixed.shape[0] <= mixed.shape[1] else mixed.T
            of_shape.setdefault(tuple(wide.shape), []).append((p, wide))
        for (_, columns), entries in of_shape.items():
            updates = orthogonalized(torch.stack([wide for _, wide in entries]), group["steps"])
            rate = 0.2 * group["lr"] * math.sqrt(columns)
            for (p, _), update in zip(entries, updates, strict=True):
                as_given = update if p.shape[0] == update.shape[0] and p[0].numel() == update.shape[1] else update.T
                p.sub_(as_given.reshape(p.shape), alpha=rate)


def orthogonalized(x: Tensor, steps: int = 5) -> Tensor:
    r"""Returns matrices with the singular vectors of ``x`` and singular values near 1, from 0.7 to 1.2.

    Newton-Schulz steps :math:`X \leftarrow a X + b X X^T X + c (X X^T)^2 X` after division by the Frobenius norm. Each
    multiplies X by a polynomial of the small matrix :math:`X X^T`, so only these are iterated, and X itself is
    multiplied once, at the end.

    Args:
        x: ``(N, r, c)``, r <= c.
        steps: number of Newton-Schulz steps.
    """
    a, b, c = _COEFFICIENTS
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    gram = x @ x.mT
    product: Tensor | None = None
    for step in range(steps):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else factor @ product
        if step < steps - 1:
            gram = factor @ gram @ factor
    return x if product is None else product @ x
