"""The posterior over slot latents, q(z_k | x), and the noise that samples it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["PRIOR_SCALE", "Posterior", "keyed_normal", "noise_for"]

PRIOR_SCALE = math.sqrt(math.log(2.0))
"""Standard deviation of the reference code's prior. Its parameters are 0, and softplus(0) = ln 2 is the variance."""


class Posterior:
    r"""Computes the diagonal Gaussian posterior of every slot,

    .. math:: q_\lambda(z_k | x) = \mathcal{N}(z_k;\ \mu_k,\ \mathrm{diag}\,\mathrm{softplus}(\rho_k)),
        \qquad \lambda_k = [\mu_k | \rho_k].

    Softplus gives the *variance*, not the standard deviation, as in the reference code.

    Args:
        parameters: lambda, ``(B, K, 2D)``, any real numbers.

    References:
        | Multi-Object Representation Learning with Iterative Variational Inference, section 2.2 (Greff et al. 2019)
        | https://arxiv.org/abs/1903.00450

    Example:
        >>> posterior = Posterior(torch.zeros(1, 2, 2 * 3))  # the parameters of the prior
        >>> posterior.kl()
        tensor([[0., 0.]])
        >>> posterior.rsample(torch.ones(1, 2, 3)).shape
        torch.Size([1, 2, 3])
    """

    def __init__(self, parameters: Tensor) -> None:
        self.mean, raw = parameters.chunk(2, dim=-1)
        self.variance = F.softplus(raw)

    @property
    def std(self) -> Tensor:
        """Standard deviation, ``(B, K, D)``."""
        return self.variance.sqrt()

    def rsample(self, noise: Tensor) -> Tensor:
        """Returns ``mean + std * noise``, ``(B, K, D)``, for standard-normal ``noise`` of that shape."""
        return self.mean + self.std * noise

    def kl(self, prior_scale: float = PRIOR_SCALE) -> Tensor:
        """Returns KL(q || N(0, prior_scale^2)) in nats, summed over the latent axis, ``(B, K)``."""
        ratio = self.variance / prior_scale**2
        terms = ratio + (self.mean / prior_scale).square() - 1.0 - torch.log(ratio)
        return 0.5 * terms.sum(dim=-1)


def keyed_normal(shape: tuple[int, ...], *key: int) -> Tensor:
    """Returns float32 noise of ``shape``, the same for the same key of non-negative integers.

    A resumed run therefore draws the same noise without saved state. The noise is drawn on the CPU, since the same seed
    gives other numbers on other devices. It is small, and the model copies it without waiting.
    """
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def noise_for(
    images: Tensor, shape: tuple[int, ...], given: Tensor | None = None, axes: str = "T+1, B, K, D"
) -> Tensor:
    """Returns ``given``, or fresh standard-normal numbers, with the type and device of ``images``.

    Args:
        images: ``(B, ...)``.
        shape: of the noise.
        given: noise of that shape.
        axes: names of the axes, for the error.

    Raises:
        ValueError: if ``given`` has another shape.
    """
    if given is None:
        return torch.randn(shape, dtype=images.dtype, device=images.device)
    if tuple(given.shape) != shape:
        raise ValueError(f"noise must be ({axes}) = {shape}, got {tuple(given.shape)}")
    return given.to(images, non_blocking=True)
