"""Muon: updates of matrices whose singular values are all near 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from iodine_pl.optim.adam import TFAdam, called

__all__ = ["COEFFICIENTS", "Muon", "orthogonalized"]

COEFFICIENTS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
)
"""a, b, c of a s + b s^3 + c s^5 in each step: the first three of Polar Express (Amsel et al. 2025, arXiv:2505.16932).

They map singular values s from 0.002 to 1 into 0.19 to 1.87. More steps come closer to 1, but training is not faster
(docs/learning.md)."""


class Muon(TFAdam):
    r"""Updates every parameter of two or more axes by Muon, all others by :class:`TFAdam`.

    The gradient g of a parameter is flattened to a matrix (first axis, all others) and averaged into a momentum m. The
    update mixes both and sets all singular values near 1. It is scaled to the size of an update of Adam, a root mean
    square of about 0.2 (Liu et al. 2025, arXiv:2502.16982):

    .. math:: m \leftarrow \beta m + (1 - \beta) g, \quad
        w \leftarrow (1 - \eta \delta) w - 0.2\, \eta \sqrt{\max(r, c)}\; \mathrm{orth}(\beta m + (1 - \beta) g).

    Every update moves all singular values alike, so without the decay delta they grow throughout the training.

    Args:
        params: parameters.
        lr: learning rate of the matrices.
        adam_lr: learning rate of all others; None: the same.
        momentum: beta.
        weight_decay: delta, only of the matrices.
        betas, eps: of Adam.
        shared: divide the matrices among the processes of ``torch.distributed``, which must have the same gradients.
            Each process orthogonalizes its part and sends it to the others.

    References:
        | https://kellerjordan.github.io/posts/muon
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 4e-3,
        adam_lr: float | None = None,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        shared: bool = False,
    ) -> None:
        params = list(params)
        matrices = {"params": [p for p in params if p.ndim >= 2], "momentum": momentum, "weight_decay": weight_decay}
        others = {"params": [p for p in params if p.ndim < 2], "lr": lr if adam_lr is None else adam_lr}
        super().__init__([matrices, others], lr=lr, betas=betas, eps=eps)
        self.shared = shared

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Runs ``closure`` if given and updates every parameter that has a gradient."""
        result = called(closure)  # first, since it may read the groups to clip gradients
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
        moved = [p for p in group["params"] if p.grad is not None]
        if not moved:  # the update is skipped, in all processes
            return
        for p in moved:
            state = self.state[p]
            if not state:
                state["step"] = torch.zeros(())  # torch's Adam needs it when a state is loaded
                state["momentum"] = torch.zeros_like(p)
            state["step"] += 1
        gradients = [p.grad for p in moved]
        momenta = [self.state[p]["momentum"] for p in moved]
        torch._foreach_lerp_(momenta, gradients, 1.0 - beta)
        flat = [mixed.flatten(1) for mixed in torch._foreach_lerp(gradients, momenta, beta)]
        wide = [mixed if mixed.shape[0] <= mixed.shape[1] else mixed.T for mixed in flat]
        updates = list(_orthogonalized_in_parts(wide, self.shared))
        sizes = [-0.2 * group["lr"] * math.sqrt(update.shape[1]) for update in updates]
        as_given = [update if len(p) == len(update) else update.T for p, update in zip(moved, updates, strict=True)]
        torch._foreach_mul_(as_given, sizes)
        if group["weight_decay"]:
            torch._foreach_mul_(moved, 1.0 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(moved, [update.reshape(p.shape) for p, update in zip(moved, as_given, strict=True)])


def _orthogonalized_in_parts(matrices: list[Tensor], shared: bool) -> list[Tensor]:
    """Calls :func:`orthogonalized` once for all matrices of a shape, in this process for its own part of them."""
    rank, processes = (distributed.get_rank(), distributed.get_world_size()) if shared else (0, 1)
    loads = [0.0] * processes
    done: list[Tensor] = [*matrices]
    of_shape: dict[tuple[int, ...], list[int]] = {}
    for i in sorted(range(len(matrices)), key=lambda i: -_work(matrices[i])):
        least = loads.index(min(loads))
        loads[least] += _work(matrices[i])
        if least == rank:
            of_shape.setdefault(tuple(matrices[i].shape), []).append(i)
        else:
            done[i] = torch.zeros_like(matrices[i])
    for indices in of_shape.values():
        for i, update in zip(indices, orthogonalized(torch.stack([matrices[i] for i in indices])), strict=True):
            done[i] = update
    if processes > 1:
        flat = torch.cat([x.flatten() for x in done])
        distributed.all_reduce(flat)  # zeros in all processes but one
        parts = torch.split(flat, [x.numel() for x in done])
        done = [part.view_as(x) for part, x in zip(parts, done, strict=True)]
    return done


def _work(x: Tensor) -> float:
    """Estimates the number of operations that orthogonalize ``x`` (r, c)."""
    rows, columns = x.shape
    return rows**2 * (2.0 * columns + 3.0 * len(COEFFICIENTS) * rows)


def orthogonalized(x: Tensor, coefficients: Sequence[tuple[float, float, float]] = COEFFICIENTS) -> Tensor:
    r"""Returns matrices with the singular vectors of ``x`` and singular values of one size, between 0.19 and 1.87.

    After division by the Frobenius norm, Newton-Schulz steps :math:`X \leftarrow a X + b X X^T X + c (X X^T)^2 X`
    follow. Each multiplies X by a polynomial of the small matrix :math:`X X^T`. Only these polynomials are iterated;
    X is multiplied once, at the end.

    Args:
        x: ``(N, r, c)``, r <= c.
        coefficients: a, b, c of each step.
    """
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    gram = x @ x.mT
    product: Tensor | None = None
    for step, (a, b, c) in enumerate(coefficients, 1):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else factor @ product
        if step < len(coefficients):
            gram = factor @ gram @ factor
    return x if product is None else product @ x
