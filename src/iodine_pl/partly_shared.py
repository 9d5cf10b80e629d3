"""Convolutions of images that are partly the same at every pixel, or for every slot: what is the same is done once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from iodine_pl.layers import SameConv2d, same_padding

__all__ = ["convolve_broadcast", "convolve_shared"]


def convolve_broadcast(convolution: SameConv2d, vectors: Tensor, fixed: Tensor) -> Tensor:
    """Convolves, at stride 1, vectors that are copied to every pixel, joined by channels that are the same for all.

    A tap of the kernel adds the same to each pixel whose neighbour it reaches, so every pixel has the sum of the taps
    that fall inside the image: all but near the border. With a 0/1 matrix for the taps along each axis that sum is two
    small matrix products.

    Args:
        convolution: of D + C channels.
        vectors: ``(N, D)``.
        fixed: ``(1, C, H, W)``.

    Returns:
        ``(N, C_out, H, W)``, what ``convolution`` gives for the vectors at H x W pixels and ``fixed``.
    """
    size, kernel = vectors.shape[1], convolution.kernel_size[0]
    taps = torch.einsum("nd,odij->nijo", vectors, convolution.weight[:, :size])
    rows, columns = (_taps_inside(length, kernel).to(vectors) for length in fixed.shape[2:])
    summed = (rows @ taps.flatten(2)).view(len(vectors), fixed.shape[2], *taps.shape[2:])  # (N, H, k, C_out)
    broadcast: Tensor = (columns @ summed).permute(0, 3, 1, 2)  # (N, C_out, H, W), channels last in memory
    return broadcast + convolution.convolve(fixed, convolution.weight[:, size:], convolution.bias)


def convolve_shared(convolution: SameConv2d, own: Tensor, shared: Tensor, shared_channels: Sequence[int]) -> Tensor:
    """Convolves images some of whose channels are the same for all K slots: these once for each image.

    Args:
        convolution: of all channels.
        own: ``(BK, C_own, H, W)``, the channels that each slot has of its own, in their order.
        shared: ``(B, C_shared, H, W)``, the others.
        shared_channels: which of the convolution's channels those are.

    Returns:
        ``(BK, C_out, H', W')``.
    """
    others = [c for c in range(convolution.in_channels) if c not in shared_channels]
    weight = convolution.weight
    once = convolution.convolve(shared, weight[:, list(shared_channels)], convolution.bias)
    each = convolution.convolve(own, weight[:, others], None)
    summed = rearrange(each, "(b k) c h w -> b k c h w", b=len(shared)) + once.unsqueeze(1)
    return rearrange(summed, "b k c h w -> (b k) c h w")


def _taps_inside(length: int, kernel: int) -> Tensor:
    """Returns which taps of a SAME convolution of stride 1 fall inside, ``(length, kernel)``, 1.0 or 0.0."""
    before, _ = same_padding(length, kernel, 1)
    reached = torch.arange(length).unsqueeze(1) + torch.arange(kernel) - before
    return ((reached >= 0) & (reached < length)).float()
