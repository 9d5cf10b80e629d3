"""Layers with the shapes, padding and initial values of the reference code (Sonnet 1 on TensorFlow 1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import wraps
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "LSTMCell",
    "Linear",
    "PredictorCorrectorHead",
    "SameConv2d",
    "StoppedLayerNorm",
    "conv_stack",
    "coordinate_grid",
    "mlp",
    "remembered",
    "same_padding",
]


def remembered(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Caches the constant tensors that a function makes from sizes, numbers, a dtype and a device.

    A tensor that is made while a graph is recorded belongs to that graph and is not cached.
    """
    kept: dict[tuple[Hashable, ...], Tensor] = {}

    @wraps(make)
    def found(*key: Hashable) -> Tensor:
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return make(*key)
        if key not in kept:
            with torch.inference_mode(False):  # so that it may enter a graph later
                made = make(*key)
            if type(made) is not Tensor:  # a fake tensor of torch.compile or torch.export
                return made
            if len(kept) >= 32:  # images of many sizes
                kept.clear()
            kept[key] = made
        return kept[key]

    return found


def _fan_in_normal_(weight: Tensor, fan_in: int) -> None:
    """Fills ``weight`` from a normal of std 1/sqrt(fan_in) truncated at two sigma; the actual std is 0.88 of that."""
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
        """Convolves with other weights, such as those of some input channels."""
        top, bottom = same_padding(x.shape[-2], self.kernel_size[0], self.stride[0])
        left, right = same_padding(x.shape[-1], self.kernel_size[1], self.stride[1])
        if (top, left) == (bottom, right):  # conv2d pads symmetrically without a copy
            return F.conv2d(x, weight, bias, self.stride, (top, left))
        return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, self.stride)

    def convolve_broadcast(self, vectors: Tensor, fixed: Tensor) -> Tensor:
        """Convolves, at stride 1, vectors that are copied to every pixel and joined with channels that all share.

        A tap of the kernel adds the same to every pixel. Each pixel is therefore the sum of the taps that fall inside
        the image: all of them, except near the border. With a 0/1 matrix for the taps along each axis this sum is two
        small matrix products.

        Args:
            vectors: ``(N, D)``.
            fixed: ``(1, C, H, W)``; the layer has D + C input channels.

        Returns:
            ``(N, C_out, H, W)``.
        """
        kernel, count = self.kernel_size[0], vectors.shape[0]  # len() would fix N in an exported graph
        of_vectors, of_fixed = torch.split(self.weight, [vectors.shape[1], fixed.shape[1]], dim=1)
        taps = torch.einsum("nd,odij->nijo", vectors, of_vectors)
        rows, columns = (_taps_inside(length, kernel, vectors.dtype, vectors.device) for length in fixed.shape[2:])
        summed = (rows @ taps.flatten(2)).view(count, fixed.shape[2], *taps.shape[2:])  # (N, H, k, C_out)
        broadcast: Tensor = (columns @ summed).permute(0, 3, 1, 2)  # (N, C_out, H, W), channels last in memory
        same = self.convolve(fixed, of_fixed, self.bias)  # (1, C_out, H, W)
        # As one long row: the backward pass sums over N, which torch does 40 times slower over four axes.
        row = rearrange(same, "1 c h w -> 1 (h w c)").expand(count, -1)
        height, width = same.shape[2:]
        return broadcast + rearrange(row, "n (h w c) -> n c h w", h=height, w=width)


@remembered
def _taps_inside(length: int, kernel: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns 1.0 for each tap of a SAME convolution of stride 1 that falls inside, else 0.0, ``(length, kernel)``."""
    before, _ = same_padding(length, kernel, 1)
    place = torch.arange(length, device=device).unsqueeze(1)
    reached = place + torch.arange(kernel, device=device) - before
    return ((reached >= 0) & (reached < length)).to(dtype)


class Linear(nn.Linear):
    """``nn.Linear`` with the reference code's initial values: truncated normal weights, zero biases."""

    def reset_parameters(self) -> None:
        _fan_in_normal_(self.weight, self.in_features)
        nn.init.zeros_(self.bias)


class LSTMCell(nn.Module):
    """Steps an LSTM whose four gates are one affine map of [input, hidden], in the order i, j, f, o.

    ``c' = sigmoid(f + 1) c + sigmoid(i) tanh(j)``, ``h' = sigmoid(o) tanh(c')``. As in the reference code, the forget
    bias of 1 is added in the forward pass and not stored, and the stored bias is initialized like the weights.
    """

    def __init__(self, input_size: int, hidden_size: int, forget_bias: float = 1.0) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.forget_bias = forget_bias
        self.gates = Linear(input_size + hidden_size, 4 * hidden_size)
        _fan_in_normal_(self.gates.bias, input_size + hidden_size)

    def forward(self, x: Tensor, state: tuple[Tensor, ...] = ()) -> tuple[Tensor, Tensor]:
        """Maps ``x`` (N, input_size) and state (h, c), each (N, hidden_size), by default zero, to the next state."""
        hidden, cell = state or (x.new_zeros(x.shape[0], self.hidden_size),) * 2
        i, j, f, o = self.gates(torch.cat([x, hidden], dim=-1)).chunk(4, dim=-1)
        cell = torch.sigmoid(f + self.forget_bias) * cell + torch.sigmoid(i) * torch.tanh(j)
        return torch.sigmoid(o) * torch.tanh(cell), cell


class PredictorCorrectorHead(nn.Module):
    r"""Corrects lambda by what the frame shows, then predicts lambda for the next frame (the code's head for sequences;
    not in the paper).

    .. math:: u = W_u h, \quad g = \sigma(W_g h), \quad \lambda_c = \lambda + g (u - \lambda), \quad
        (\hat\lambda, p) = \mathrm{MLP}(\lambda), \quad \lambda' = \lambda_c + \sigma(p) (\hat\lambda - \lambda_c).

    Args:
        features: length of h.
        size: length of lambda, 2D.
    """

    def __init__(self, features: int, size: int) -> None:
        super().__init__()
        self.correction = Linear(features, 2 * size)
        self.prediction = mlp(size, (64, 2 * size))

    def forward(self, features: Tensor, parameters: Tensor) -> Tensor:
        """Returns lambda' - lambda, ``(BK, 2D)``, for h (BK, features) and lambda (BK, 2D)."""
        seen, gate = self.correction(features).chunk(2, dim=-1)
        corrected = parameters + torch.sigmoid(gate) * (seen - parameters)
        expected, trust = self.prediction(parameters).chunk(2, dim=-1)
        after: Tensor = corrected + torch.sigmoid(trust) * (expected - corrected)
        return after - parameters


class StoppedLayerNorm(nn.Module):
    """Stops the gradient of its input and normalizes it over all axes but the first, with a gain and bias per channel.

    ``(N, C, ...) -> (N, C, ...)``. One mean and one (biased) variance are taken over all channels and pixels of a
    sample, as in Sonnet 1. The normalized input is a constant; only gain and bias are in the graph.
    (``nn.GroupNorm(1, C)`` has the same values, but torch 2.13 crashes in its backward pass for a channels-last
    constant.)

    Args:
        channels: C.
        epsilon: added to the variance.
        enabled: False: only gain and bias, no normalization; for the ablation.
    """

    def __init__(self, channels: int, epsilon: float = 1e-5, enabled: bool = True) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.enabled = enabled
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        per_channel = (-1,) + (1,) * (x.ndim - 2)
        return self.normalize(x) * self.weight.view(per_channel) + self.bias.view(per_channel)

    @torch.no_grad()
    def normalize(self, x: Tensor) -> Tensor:
        """Returns ``x`` with mean 0 and variance 1 in each sample, before gain and bias."""
        if not self.enabled:
            return x.detach()
        return F.layer_norm(x, x.shape[1:], eps=self.epsilon)


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


@remembered
def coordinate_grid(
    kind: Literal["linear", "cosine"],
    frequencies: int,
    height: int,
    width: int,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Returns the coordinate channels, ``(2, H, W)`` or ``(frequencies^2 - 1, H, W)``.

    ``linear`` is x (column), then y (row), from -1 to 1; the decoder has the opposite order. ``cosine`` is
    cos(f pi x) cos(g pi y) for x, y in [0, 1] and f, g in 0 .. frequencies - 1, without the constant f = g = 0; g is
    the faster index.
    """

    def places(start: float, count: int) -> Tensor:
        return torch.linspace(start, 1, count, dtype=dtype, device=device)

    if kind == "linear":
        y, x = torch.meshgrid(places(-1, height), places(-1, width), indexing="ij")
        return torch.stack([x, y])
    f = torch.arange(frequencies, device=device).unsqueeze(1)
    of_x, of_y = (torch.cos(f * math.pi * places(0, count)) for count in (width, height))
    return torch.einsum("fw,gh->fghw", of_x, of_y).flatten(0, 1)[1:]
