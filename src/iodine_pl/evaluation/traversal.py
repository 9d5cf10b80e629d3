"""Latent traversals: scenes decoded with one latent at other values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["kl_of_latents", "traverse"]


def kl_of_latents(mean: Tensor, std: Tensor, prior_scale: float) -> Tensor:
    """Returns the KL of each latent of a slot to the prior, in nats, ``(D,)``."""
    ratio = (std / prior_scale).square()
    return 0.5 * (ratio + (mean / prior_scale).square() - 1.0 - ratio.log())


def traverse(model: Any, latents: Tensor, slot: int, latent: int, values: Tensor, size: tuple[int, int]) -> Tensor:
    """Decodes a scene with one latent of one slot at other values and everything else unchanged.

    Args:
        model: has a method ``decode``.
        latents: of all slots, ``(K, D)``.
        slot, latent: indices of the latent that changes.
        values: its values, ``(N,)``.
        size: height and width.

    Returns:
        Reconstructions ``(N, C, H, W)``.
    """
    changed = latents.expand(len(values), -1, -1).clone()
    changed[:, slot, latent] = values
    masks, means = model.decode(changed, *size)
    return torch.einsum("nkhw,nkchw->nchw", masks, means)
