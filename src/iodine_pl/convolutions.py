"""Ways to convolve that give what the layer gives, for less: what is the same at every pixel or slot is done once."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from iodine_pl.layers import SameConv2d, same_padding

__all__ = ["convolve_broadcast", "convolve_to_few"]


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
    rows, columns = (_taps_inside(length, kernel, vectors) for length in fixed.shape[2:])
    summed = (rows @ taps.flatten(2)).view(len(vectors), fixed.shape[2], *taps.shape[2:])  # (N, H, k, C_out)
    broadcast: Tensor = (columns @ summed).permute(0, 3, 1, 2)  # (N, C_out, H, W), channels last in memory
    same = convolution.convolve(fixed, convolution.weight[:, size:], convolution.bias)
    # Repeated as one long row, since the backward pass sums over N, which torch does 40 times slower in four axes.
    row = rearrange(same, "1 c h w -> 1 (h w c)").expand(len(vectors), -1)
    height, width = same.shape[2:]
    return broadcast + rearrange(row, "n (h w c) -> n c h w", h=height, w=width)


def convolve_to_few(convolution: SameConv2d, x: Tensor, rows: int = 4) -> Tensor:
    """Convolves, at stride 1, to few channels, several rows of the result at once.

    On a CPU a convolution to 4 channels takes as long as one to 16, the numbers in a vector register. So four rows
    become four times the channels: the kernel, at each of four heights in a higher one, at a vertical stride of 4.

    Args:
        convolution: with an odd kernel.
        x: ``(N, C_in, H, W)``.
        rows: so many at once.

    Returns:
        ``(N, C_out, H, W)``.
    """
    weight, bias = convolution.weight, convolution.bias
    assert bias is not None
    padding = convolution.kernel_size[0] // 2
    above = -x.shape[2] % rows  # the padding is the same above and below, so the rows too many come first
    higher = torch.cat([F.pad(weight, (0, 0, row, rows - 1 - row)) for row in range(rows)])
    higher = higher.contiguous(memory_format=torch.channels_last)
    y = F.conv2d(x, higher, bias.repeat(rows), (rows, 1), (padding + above, padding))
    return rearrange(y, "n (row c) h w -> n c (h row) w", row=rows)[:, :, above:]


def _taps_inside(length: int, kernel: int, like: Tensor) -> Tensor:
    """Returns which taps of a SAME convolution of stride 1 fall inside, ``(length, kernel)``, 1.0 or 0.0."""
    before, _ = same_padding(length, kernel, 1)
    place = torch.arange(length, device=like.device).unsqueeze(1)
    reached = place + torch.arange(kernel, device=like.device) - before
    return ((reached >= 0) & (reached < length)).to(like.dtype)
