"""The spatial broadcast decoder (section 2.2 of the paper; Watters et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from einops import rearrange
from torch import Tensor, nn

from iodine_pl.device import autocast_as
from iodine_pl.layers import SameConv2d, conv_stack, remembered

__all__ = ["Decoded", "Decoder", "SpatialBroadcastDecoder"]


class Decoded(NamedTuple):
    """Holds the decoder's output for every slot."""

    mask_logits: Tensor
    """``(B, K, H, W)``, any real numbers; their softmax over K is the mask."""
    parameters: Tensor
    """Parameters of the pixel distribution, ``(B, K, C, H, W)``: its means, not squashed (logits for Bernoulli)."""


class Decoder(Protocol):
    """Decodes latents. Any such module can replace :class:`SpatialBroadcastDecoder`."""

    def __call__(self, latents: Tensor, height: int, width: int) -> Decoded:
        """Decodes ``latents`` (B, K, D) to ``height`` x ``width`` pixels, each image independently."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Returns the trainable parameters."""


class SpatialBroadcastDecoder(nn.Module):
    """Decodes each slot's latent to a mask logit and C pixel parameters at every pixel.

    A constant is appended to the latent. The result is copied to every pixel, joined with two coordinates (row,
    column) from -1 to 1, and passed through convolutions of stride 1. ELU follows all but the last, which is linear.
    Any image size works.

    Args:
        latent_size: D, length of a slot's latent z_k.
        image_channels: C.
        channels: output channels of the hidden convolutions.
        kernel_size: side of every kernel in pixels.
        latent_constant: number appended to each latent: 5.0 in the reference code; not in the paper.
    """

    def __init__(
        self,
        latent_size: int,
        image_channels: int = 3,
        channels: Sequence[int] = (64, 64, 64, 64),
        kernel_size: int = 3,
        latent_constant: float = 5.0,
    ) -> None:
        super().__init__()
        self.latent_constant = latent_constant
        self.hidden = conv_stack(latent_size + 3, channels, kernel_size)
        self.output = SameConv2d(channels[-1], 1 + image_channels, kernel_size)

    def forward(self, latents: Tensor, height: int, width: int) -> Decoded:
        """Decodes ``latents`` (B, K, D) to images of ``height`` x ``width`` pixels."""
        slots = latents.shape[1]
        flat = rearrange(latents, "b k d -> (b k) d")
        fixed = _fixed_channels(self.latent_constant, height, width, flat.dtype, flat.device)
        first, *others = self.hidden
        assert isinstance(first, SameConv2d)
        hidden = first.convolve_broadcast(flat, fixed)  # (BK, channels, H, W)
        for layer in others:
            hidden = layer(hidden)
        with autocast_as(hidden.device.type, None):  # bfloat16 resolves 0.004, the pixel scale is 0.03
            flat = self.output(hidden.to(self.output.weight.dtype))
        output = rearrange(flat, "(b k) c h w -> b k c h w", k=slots)
        logits, parameters = output.split([1, output.shape[2] - 1], dim=2)
        # Copies: the mixture is faster on them, and torch 2.13 loses the shapes of views that leave compiled code.
        return Decoded(*(x.clone(memory_format=torch.contiguous_format) for x in (logits.squeeze(2), parameters)))


@remembered
def _fixed_channels(constant: float, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns the channels that all latents share, ``(1, 3, H, W)``: the constant, row and column."""
    rows = torch.linspace(-1, 1, height, dtype=dtype, device=device)
    columns = torch.linspace(-1, 1, width, dtype=dtype, device=device)
    coordinates = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))  # (2, H, W)
    return torch.cat([torch.full((1, height, width), constant, dtype=dtype, device=device), coordinates]).unsqueeze(0)
