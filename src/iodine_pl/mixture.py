"""The pixel mixture p(x|z) = prod_i sum_k m_ik p(x_i | mu_ik) (section 2.1), and its gradients in closed form."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from iodine_pl.decoder import Decoded

__all__ = ["Bernoulli", "Gaussian", "Logistic", "PixelDistribution", "PixelMixture", "make_distribution"]


class PixelDistribution(Protocol):
    """Describes one colour channel of one pixel by a parameter; all methods are elementwise and broadcast."""

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Returns the log density (or log probability) of ``x`` in nats."""

    def score(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Returns the derivative of ``log_prob`` with respect to the parameter."""

    def mean(self, parameter: Tensor) -> Tensor:
        """Returns the mean of the distribution."""


class Logistic:
    """Logistic distribution about the parameter. The released code uses it with scale 0.03 (std 0.054)."""

    def __init__(self, scale: float = 0.03) -> None:
        self.scale = scale

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        u = (x - parameter) / self.scale
        return 2.0 * F.logsigmoid(u) - u - math.log(self.scale)  # torch's softplus is cut at 20: less exact

    def score(self, x: Tensor, parameter: Tensor) -> Tensor:
        return torch.tanh((x - parameter) / (2.0 * self.scale)) / self.scale

    def mean(self, parameter: Tensor) -> Tensor:
        return parameter


class Gaussian:
    """Normal distribution about the parameter. The paper says that it uses it with standard deviation 0.1."""

    def __init__(self, scale: float = 0.1) -> None:
        self.scale = scale

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        return -0.5 * ((x - parameter) / self.scale).square() - math.log(self.scale) - 0.5 * math.log(2.0 * math.pi)

    def score(self, x: Tensor, parameter: Tensor) -> Tensor:
        return (x - parameter) / self.scale**2

    def mean(self, parameter: Tensor) -> Tensor:
        return parameter


class Bernoulli:
    """Bernoulli distribution whose parameter is its logit, for binary images (x in {0, 1})."""

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        return x * parameter + F.logsigmoid(-parameter)

    def score(self, x: Tensor, parameter: Tensor) -> Tensor:
        return x - torch.sigmoid(parameter)

    def mean(self, parameter: Tensor) -> Tensor:
        return torch.sigmoid(parameter)


def make_distribution(
    name: Literal["logistic", "gaussian", "bernoulli"], scale: float | None = None
) -> PixelDistribution:
    """Returns the named distribution, with its published scale where ``scale`` is None.

    Raises:
        ValueError: for an unknown name, a scale that is not positive, or any scale with ``bernoulli``.
    """
    if scale is not None and not scale > 0.0:
        raise ValueError(f"pixel_scale must be positive, got {scale}")
    if name == "bernoulli":
        if scale is not None:
            raise ValueError("pixel_distribution='bernoulli' has no scale: leave pixel_scale at None")
        return Bernoulli()
    if name == "logistic":
        return Logistic() if scale is None else Logistic(scale)
    if name == "gaussian":
        return Gaussian() if scale is None else Gaussian(scale)
    raise ValueError(f"pixel_distribution must be 'logistic', 'gaussian' or 'bernoulli', got {name!r}")


class PixelMixture:
    """Gives the mixture over slots at every pixel: one joint density for all C channels, weighted by the masks.

    Args:
        image: x, ``(B, C, H, W)`` in [0, 1].
        decoded: mask logits ``(B, K, H, W)`` and pixel parameters ``(B, K, C, H, W)``.
        distribution: of one channel of one pixel.
    """

    def __init__(self, image: Tensor, decoded: Decoded, distribution: PixelDistribution) -> None:
        self.image = image.unsqueeze(1)  # (B, 1, C, H, W)
        self.mask_logits, self.parameters = decoded
        self.distribution = distribution
        self.means = distribution.mean(self.parameters)  # (B, K, C, H, W)
        self.log_masks = torch.log_softmax(self.mask_logits, dim=1)
        self.masks = self.log_masks.exp()  # m, (B, K, H, W), positive, sums to 1 over K
        self.slot_log_prob = distribution.log_prob(self.image, self.parameters).sum(dim=2)  # log p(x_i|mu_ik)
        self.joint = self.slot_log_prob + self.log_masks  # log m_ik p(x_i|mu_ik), (B, K, H, W)
        # Logsumexp keeps a pixel that every slot misses by far at a large finite value, with finite gradients.
        self.log_prob = torch.logsumexp(self.joint, dim=1)  # log p(x_i|z), (B, H, W)

    @property
    def nll(self) -> Tensor:
        """Negative log-likelihood of each image in nats, ``(B,)``; that of a density may be negative."""
        return -self.log_prob.sum(dim=(1, 2))

    @property
    def reconstruction(self) -> Tensor:
        """Mean of the mixture, sum_k m_k mu_k, ``(B, C, H, W)``."""
        return (self.masks.unsqueeze(2) * self.means).sum(dim=1)

    def mask_posterior(self, epsilon: float = 1e-6) -> Tensor:
        """Returns p(m_k|x, mu) under *equal* mixing weights, ``(B, K, H, W)``.

        The reference code leaves the masks out and adds ``epsilon`` to the denominator, so that it is near zero where
        every slot misses the pixel.
        """
        likelihood = self.slot_log_prob.exp()
        return likelihood / (likelihood.sum(dim=1, keepdim=True) + epsilon)

    @torch.no_grad()
    def nll_gradients(self) -> Decoded:
        """Returns the gradients of the summed ``nll`` with respect to mask logits and parameters, shaped as they are.

        With the responsibility r_k = m_k p_k / sum_j m_j p_j they are ``m_k - r_k`` and ``-r_k score_k``.
        """
        responsibility = torch.exp(self.joint - self.log_prob.unsqueeze(1))
        score = self.distribution.score(self.image, self.parameters)
        return Decoded(self.masks - responsibility, -responsibility.unsqueeze(2) * score)

    @torch.no_grad()
    def leave_one_out(self) -> Tensor:
        """Returns log p(x_i) - log p(x_i without slot k), the masks of the others renormalised, ``(B, K, H, W)``.

        The reference code calls it the counterfactual. With one slot nothing remains to compare with: it is 0.
        """
        if self.mask_logits.shape[1] == 1:
            return torch.zeros_like(self.joint)
        others = _logsumexp_of_others(self.joint) - _logsumexp_of_others(self.log_masks)
        return self.log_prob.unsqueeze(1) - others


def _logsumexp_of_others(x: Tensor) -> Tensor:
    """Returns, for each k, the logsumexp over all slots but k of ``x`` (B, K, H, W), without a K x K intermediate."""
    slots = x.unbind(dim=1)
    before = list(accumulate(slots[:-1], torch.logaddexp))  # of slots 0 .. k-1, for k = 1 .. K-1
    after = list(accumulate(slots[:0:-1], torch.logaddexp))[::-1]  # of slots k+1 .. K-1, for k = 0 .. K-2
    between = [torch.logaddexp(b, a) for b, a in zip(before[:-1], after[1:], strict=True)]
    return torch.stack([after[0], *between, before[-1]], dim=1)
