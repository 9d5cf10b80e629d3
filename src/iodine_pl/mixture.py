"""The pixel likelihood p(x|z), a mixture over slots or one density about their mean, and its gradients."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor

from iodine_pl.decoder import Decoded
from iodine_pl.distributions import Bernoulli, LocationDistribution, PixelDistribution

__all__ = ["ChannelMixture", "MeanImage", "PixelMixture", "likelihood_of"]


def likelihood_of(name: Literal["mixture", "mean"], distribution: PixelDistribution) -> type[PixelMixture]:
    """Returns the class that computes the named likelihood.

    Raises:
        ValueError: for an unknown name, or ``mean`` with a distribution that has no ``about``.
    """
    if name == "mixture":
        return PixelMixture
    if name != "mean":
        raise ValueError(f"pixel_likelihood must be 'mixture' or 'mean', got {name!r}")
    if isinstance(distribution, Bernoulli):
        return ChannelMixture
    if not hasattr(distribution, "about"):
        raise ValueError(f"pixel_likelihood='mean' needs a distribution about its mean; {distribution!r} has no .about")
    return MeanImage


class PixelMixture:
    r"""Computes the mixture over slots at every pixel: one joint density for all C channels, weighted by the masks
    (section 2.1),

    .. math:: p(x_i | z) = \sum_k m_{ik}\, p(x_i | \mu_{ik}).

    Args:
        image: x, ``(B, C, H, W)`` in [0, 1].
        decoded: mask logits ``(B, K, H, W)`` and pixel parameters ``(B, K, C, H, W)``.
        distribution: of one channel of one pixel.

    References:
        | Multi-Object Representation Learning with Iterative Variational Inference, section 2.1 (Greff et al. 2019)
        | https://arxiv.org/abs/1903.00450

    Example:
        Two slots have equal masks. The first shows the gray pixel, the second is black.

        >>> from iodine_pl.distributions import Gaussian
        >>> gray = torch.full((1, 1, 1, 1), 0.5)
        >>> decoded = Decoded(torch.zeros(1, 2, 1, 1), torch.tensor([0.5, 0.0]).view(1, 2, 1, 1, 1))
        >>> mixture = PixelMixture(gray, decoded, Gaussian(0.25))
        >>> mixture.masks.flatten(), mixture.responsibilities.flatten()
        (tensor([0.5000, 0.5000]), tensor([0.8808, 0.1192]))
        >>> mixture.nll_gradients().mask_logits.flatten()  # mask minus responsibility
        tensor([-0.3808,  0.3808])
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
        self.reconstruction = (self.masks.unsqueeze(2) * self.means).sum(dim=1)  # sum_k m_k mu_k, (B, C, H, W)
        self.log_prob = self._log_prob()  # log p(x_i|z), (B, H, W)

    def _log_prob(self) -> Tensor:
        # With logsumexp, a pixel that every slot misses by far keeps a finite value and finite gradients.
        return torch.logsumexp(self.joint, dim=1)

    @property
    def nll(self) -> Tensor:
        """Negative log-likelihood of each image in nats, ``(B,)``; may be negative, since p is a density."""
        return -self.log_prob.sum(dim=(1, 2))

    @property
    def responsibilities(self) -> Tensor:
        """Each slot's share r_k = m_k p_k / sum_j m_j p_j in the density of a pixel, ``(B, K, H, W)``."""
        return self.joint.softmax(dim=1)

    def mask_posterior(self, epsilon: float = 1e-6) -> Tensor:
        """Returns p(m_k|x, mu) under *equal* mixing weights, ``(B, K, H, W)``.

        As in the reference code, the masks are left out and ``epsilon`` is added to the denominator, so that the result
        is near zero where every slot misses the pixel.
        """
        likelihood = self.slot_log_prob.exp()
        return likelihood / (likelihood.sum(dim=1, keepdim=True) + epsilon)

    @torch.no_grad()
    def nll_gradients(self) -> Decoded:
        """Returns the gradients of the summed ``nll`` with respect to mask logits and parameters, shaped as they are.

        With the responsibility r_k = m_k p_k / sum_j m_j p_j they are ``m_k - r_k`` and ``-r_k score_k``.
        """
        responsibility = self.responsibilities
        score = self.distribution.score(self.image, self.parameters)
        return Decoded(self.masks - responsibility, -responsibility.unsqueeze(2) * score)

    @torch.no_grad()
    def leave_one_out(self) -> Tensor:
        """Returns log p(x_i) - log p(x_i without slot k), with the other masks renormalized, ``(B, K, H, W)``.

        The reference code calls it the counterfactual. It is 0 if there is only one slot.
        """
        if self.mask_logits.shape[1] == 1:
            return torch.zeros_like(self.joint)
        return self.log_prob.unsqueeze(1) - self._log_prob_of_others()

    def _log_prob_of_others(self) -> Tensor:
        both = torch.stack([self.joint, self.log_masks], dim=2)  # (B, K, 2, H, W)
        joint, masks = _logsumexp_of_others(both).unbind(dim=2)
        return joint - masks


class MeanImage(PixelMixture):
    r"""Computes one logistic or normal density about the mean over slots,

    .. math:: p(x_i | z) = p(x_i | \hat x_i), \quad \hat x_i = \sum_k m_{ik} \mu_{ik}.

    Slots gain nothing by sharing a pixel to hedge over its possible values, at any scale. EfficientMORL uses it on
    Tetrominoes and Multi-dSprites; Slot Attention's squared error is the same. It is not in the IODINE paper.
    Responsibilities and mask posterior are still those of the slots' own densities.

    References:
        | Efficient Iterative Amortized Inference for Learning Symmetric and Disentangled Multi-Object Representations,
            section 3.1 (Emami et al. 2021)
        | https://arxiv.org/abs/2106.03630
    """

    distribution: LocationDistribution

    def _log_prob(self) -> Tensor:
        return self.distribution.about.log_prob(self.image.squeeze(1), self.reconstruction).sum(dim=1)

    @torch.no_grad()
    def nll_gradients(self) -> Decoded:
        """Returns the gradients of the summed ``nll`` with respect to mask logits and parameters, shaped as they are.

        With ``e = d(-log p)/d xhat`` they are ``m_k sum_c (mu_k - xhat) e`` and ``m_k e d mu_k / d parameter``.
        """
        mean = self.reconstruction.unsqueeze(1)  # (B, 1, C, H, W)
        weighted = self.masks.unsqueeze(2) * -self.distribution.about.score(self.image, mean)
        of_logits = ((self.means - mean) * weighted).sum(dim=2)
        return Decoded(of_logits, weighted * self.distribution.slope(self.means))

    def _log_prob_of_others(self) -> Tensor:
        masks = self.masks.unsqueeze(2)
        tiny = torch.finfo(masks.dtype).tiny  # where the others' masks have vanished, their mean is 0
        mean = _sum_of_others(masks * self.means) / _sum_of_others(masks).clamp(min=tiny)
        return self.distribution.about.log_prob(self.image, mean).sum(dim=2)


class ChannelMixture(PixelMixture):
    """Computes one Bernoulli distribution about the mean over slots, for x in {0, 1}.

    This is a separate mixture over slots for each channel: ``sum_k m_k p_k`` is the probability of 1, and ``sum_k m_k
    (1 - p_k)`` that of 0. With one channel it is the same as :class:`PixelMixture`.
    """

    def _log_prob(self) -> Tensor:
        of_channels = self.distribution.log_prob(self.image, self.parameters)
        self.channel_joint = of_channels + self.log_masks.unsqueeze(2)  # log m_k p(x_c|mu_kc), (B, K, C, H, W)
        return torch.logsumexp(self.channel_joint, dim=1).sum(dim=1)

    @torch.no_grad()
    def nll_gradients(self) -> Decoded:
        """Returns the gradients of the summed ``nll`` with respect to mask logits and parameters, shaped as they are.

        With the responsibility r_kc of a channel they are ``sum_c (m_k - r_kc)`` and ``-r_kc score_kc``.
        """
        responsibility = self.channel_joint.softmax(dim=1)
        of_logits = (self.masks.unsqueeze(2) - responsibility).sum(dim=2)
        return Decoded(of_logits, -responsibility * self.distribution.score(self.image, self.parameters))

    def _log_prob_of_others(self) -> Tensor:
        others = _logsumexp_of_others(self.channel_joint) - _logsumexp_of_others(self.log_masks).unsqueeze(2)
        return others.sum(dim=2)


def _logsumexp_of_others(x: Tensor) -> Tensor:
    """Returns, for each k, the logsumexp over all slots but k of ``x`` (B, K, ...), without a K x K intermediate."""
    return _of_others(x, torch.logaddexp)


def _sum_of_others(x: Tensor) -> Tensor:
    """Returns, for each k, the sum over all slots but k of ``x`` (B, K, ...), without subtracting."""
    return _of_others(x, torch.add)


def _of_others(x: Tensor, join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    slots = x.unbind(dim=1)
    before = list(accumulate(slots[:-1], join))  # of slots 0 .. k-1, for k = 1 .. K-1
    after = list(accumulate(slots[:0:-1], join))[::-1]  # of slots k+1 .. K-1, for k = 0 .. K-2
    between = [join(b, a) for b, a in zip(before[:-1], after[1:], strict=True)]
    return torch.stack([after[0], *between, before[-1]], dim=1)
