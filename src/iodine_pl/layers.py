"""Layers with the shapes, padding and initial values of the reference code (Sonnet 1 on TensorFlow 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "LSTMCell",
    "Linear",
    "SameConv2d",
    "StoppedLayerNorm",
    "conv_stack",
    "convolve_broadcast",
    "convolve_to_few",
    "mlp",
    "same_padding",
]


def _fan_in_normal_(weight: Tensor, fan_in: int) -> None:
    """Fills ``weight`` from a normal of std 1/sqrt(fan_in) cut at two sigma, so that its real std is 0.88 of that."""
    std = 1.0 / math.sqrt(fan_in)
    nn.init.trunc_normal_(weight, std=std, a=-2.0 * std, b=2.0 * std)


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Returns TensorFlow's SAME padding of one axis, (before, after): where the total is odd, the end gets more."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """Convolves with TensorFlow's SAME padding: ``(N, C_in, H, W) -> (N, C_out, ceil(H/stride), ceil(W/stride))``.

    At stride 2 that padding depends on the size and is often asymmetric, which ``nn.Conv2d`` cannot express.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride)

    def reset_parameters(self) -> None:
        _fan_in_normal_(self.weight, self.in_channels * self.kernel_size[0] * self.kernel_size[1])
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.weight, self.bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolves with a part of the weights."""
        top, bottom = same_padding(x.shape[-2], self.kernel_size[0], self.stride[0])
        left, right = same_padding(x.shape[-1], self.kernel_size[1], self.stride[1])
        if (top, left) == (bottom, right):  # the convolution pads by itself: no copy
            return F.conv2d(x, weight, bias, self.stride, (top, left))
        return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, self.stride)


class Linear(nn.Linear):
    """``nn.Linear`` with the reference code's initial values: truncated normal weights, zero biases."""

    def reset_parameters(self) -> None:
        _fan_in_normal_(self.weight, self.in_features)
        nn.init.zeros_(self.bias)


class LSTMCell(nn.Module):
    """Steps an LSTM whose four gates are one affine map of [input, hidden], in the order i, j, f, o.

    ``c' = sigmoid(f + 1) c + sigmoid(i) tanh(j)``, ``h' = sigmoid(o) tanh(c')``. The forget bias of 1 is added when it
    runs, not stored, and the stored bias starts as random as the weights: both are so in the reference code.
    """

    def __init__(self, input_size: int, hidden_size: int, forget_bias: float = 1.0) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.forget_bias = forget_bias
        self.gates = Linear(input_size + hidden_size, 4 * hidden_size)
        _fan_in_normal_(self.gates.bias, input_size + hidden_size)

    def forward(self, x: Tensor, state: tuple[Tensor, ...] = ()) -> tuple[Tensor, Tensor]:
        """Maps ``x`` (N, input_size) and state (h, c), each (N, hidden_size), zero if not given, to the next state."""
        hidden, cell = state or (x.new_zeros(x.shape[0], self.hidden_size),) * 2
        i, j, f, o = self.gates(torch.cat([x, hidden], dim=-1)).chunk(4, dim=-1)
        cell = torch.sigmoid(f + self.forget_bias) * cell + torch.sigmoid(i) * torch.tanh(j)
        return torch.sigmoid(o) * torch.tanh(cell), cell


class StoppedLayerNorm(nn.Module):
    """Stops the gradient of its input and normalises it over all axes but the first, with a gain and bias per channel.

    ``(N, C, ...) -> (N, C, ...)``; one mean and one (biased) variance for all channels and pixels of a sample, as
    Sonnet 1 does. As nothing flows back, the normalised input is a constant and only the gain and bias are in the
    graph. (``nn.GroupNorm(1, C)`` has the same values, but torch 2.13 crashes in its backward for a channels-last
    constant.)

    Args:
        channels: C.
        epsilon: added to the variance.
        enabled: False: no normalisation, gain and bias alone; an ablation.
    """

    def __init__(self, channels: int, epsilon: float = 1e-5, enabled: bool = True) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.enabled = enabled
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        per_channel = (-1,) + (1,) * (x.ndim - 2)
        return self.normalise(x) * self.weight.view(per_channel) + self.bias.view(per_channel)

    @torch.no_grad()
    def normalise(self, x: Tensor) -> Tensor:
        """Returns ``x`` with mean 0 and variance 1 in each sample, before gain and bias."""
        if not self.enabled:
            return x.detach()
        variance, mean = torch.var_mean(x, dim=tuple(range(1, x.ndim)), correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + self.epsilon)


def conv_stack(in_channels: int, channels: Sequence[int], kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Chains SAME convolutions, each followed by ELU."""
    layers: list[nn.Module] = []
    for out_channels in channels:
        layers += [SameConv2d(in_channels, out_channels, kernel_size, stride), nn.ELU(inplace=True)]
        in_channels = out_channels
    return nn.Sequential(*layers)


def mlp(in_features: int, sizes: Sequence[int]) -> nn.Sequential:
    """Chains linear layers with ELU between them and none after the last."""
    layers: list[nn.Module] = []
    for size in sizes:
        layers += [Linear(in_features, size), nn.ELU()]
        in_features = size
    return nn.Sequential(*layers[:-1])


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
