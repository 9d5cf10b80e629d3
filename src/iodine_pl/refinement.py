"""The inputs a_k of the refinement network, each named, and the network (section 3.2 and Algorithm 1 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from iodine_pl.layers import Linear, LSTMCell, SameConv2d, StoppedLayerNorm, conv_stack, mlp

__all__ = ["PredictorCorrectorHead", "RefinementInputs", "RefinementNetwork", "State", "coordinate_grid"]

State = tuple[Tensor, ...]
"""Hidden and cell state of the LSTM, each ``(BK, hidden)``; empty before the first step, or without LSTM."""


class RefinementInputs(NamedTuple):
    """Holds what the network sees of every slot; the reference code's names stand in brackets."""

    image: Tensor
    """x, ``(B, C, H, W)`` [image]."""
    means: Tensor
    """mu, ``(B, K, C, H, W)`` [components]; gradient flows."""
    masks: Tensor
    """m, ``(B, K, H, W)`` [pred_mask]; gradient flows."""
    mask_logits: Tensor
    """``(B, K, H, W)`` [mask]; gradient flows."""
    mask_posterior: Tensor
    """p(m_k|x, mu), ``(B, K, H, W)`` [posterior]; gradient flows."""
    mean_gradient: Tensor
    """Gradient of the loss w.r.t. the pixel parameters, ``(B, K, C, H, W)`` [dcomponents]; stopped, layer norm."""
    mask_gradient: Tensor
    """Gradient of the loss w.r.t. the mask logits, ``(B, K, H, W)`` [dmask]; stopped, layer norm."""
    log_likelihood: Tensor
    """log p(x_i|z), ``(B, H, W)`` [log_prob]; stopped, layer norm."""
    leave_one_out: Tensor
    """``(B, K, H, W)`` [counterfactual]; stopped, layer norm."""
    posterior: Tensor
    """lambda, ``(B, K, 2D)`` [zp]; gradient flows."""
    posterior_gradient: Tensor
    """Gradient of the loss w.r.t. lambda, ``(B, K, 2D)`` [dzp]; stopped, layer norm."""


def coordinate_grid(
    kind: Literal["linear", "cosine"],
    frequencies: int,
    height: int,
    width: int,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Returns the coordinate channels, ``(2, H, W)`` or ``(frequencies^2 - 1, H, W)``.

    ``linear`` is x (column), then y (row), from -1 to 1: the opposite order of the decoder's. ``cosine`` is
    cos(f pi x) cos(g pi y) for x, y in [0, 1], f slow and g fast over 0 .. frequencies - 1, without the constant one.
    """

    def places(start: float, count: int) -> Tensor:
        return torch.linspace(start, 1, count, dtype=dtype, device=device)

    if kind == "linear":
        y, x = torch.meshgrid(places(-1, height), places(-1, width), indexing="ij")
        return torch.stack([x, y])
    f = torch.arange(frequencies, device=device).unsqueeze(1)
    of_x, of_y = (torch.cos(f * math.pi * places(0, count)) for count in (width, height))
    return torch.einsum("fw,gh->fghw", of_x, of_y).flatten(0, 1)[1:]


def _per_slot(x: Tensor) -> Tensor:
    """Makes slots a part of the batch and gives ``x`` (B, K, H, W) a channel axis if it has none."""
    return rearrange(x, "b k c h w -> (b k) c h w") if x.ndim == 5 else rearrange(x, "b k h w -> (b k) 1 h w")


class PredictorCorrectorHead(nn.Module):
    r"""Moves lambda towards what is seen, then to what the next frame is expected to show (the code's head for
    sequences; not in the paper).

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


class RefinementNetwork(nn.Module):
    """Computes the update of every slot's posterior parameters: ``lambda <- lambda + f_phi(a_k, h)``.

    Convolutions of stride 2 (ELU after each), pooling over pixels, an MLP (ELU between its layers, none after the
    last), joined by lambda and its gradient, then an LSTM or nothing, then a linear layer. The inputs marked as stopped
    go through :class:`StoppedLayerNorm`.

    Args:
        latent_size: D.
        image_channels: C.
        channels: output channels of the convolutions.
        kernel_size: side of their kernels in pixels.
        mlp_sizes: widths of the MLP's layers.
        lstm_size: width of the LSTM; None leaves it out, as the released Tetrominoes network does.
        coordinates: ``linear`` (2 channels; released CLEVR6) or ``cosine`` (released Multi-dSprites, Tetrominoes).
        coordinate_frequencies: of ``cosine``, along each axis; 3 give 8 channels.
        pooling: ``mean`` over pixels (paper, code); ``cosine``: that, and the means weighted by each of the ``cosine``
            coordinates, which tell where a feature is as well as how much there is of it.
        capacity: constant of an input channel and of an input number, 0.5 in the reference code; not in the paper.
        norm_epsilon: added to the variance in the layer norms.
        layer_norm: False leaves the layer norms' division out, for the ablation.
        leave_out: inputs that are zeros, for the ablation: fields of :class:`RefinementInputs`, or ``coordinates``.
        head: ``residual``: a linear layer; ``predictor_corrector``: :class:`PredictorCorrectorHead`.

    Raises:
        ValueError: for an unknown name.
    """

    def __init__(
        self,
        latent_size: int,
        image_channels: int = 3,
        channels: Sequence[int] = (64, 64, 64, 64),
        kernel_size: int = 3,
        mlp_sizes: Sequence[int] = (256, 256),
        lstm_size: int | None = 256,
        coordinates: Literal["linear", "cosine"] = "linear",
        coordinate_frequencies: int = 3,
        pooling: Literal["mean", "cosine"] = "mean",
        capacity: float = 0.5,
        norm_epsilon: float = 1e-5,
        layer_norm: bool = True,
        leave_out: Sequence[str] = (),
        head: Literal["residual", "predictor_corrector"] = "residual",
    ) -> None:
        super().__init__()
        if coordinates not in ("linear", "cosine"):
            raise ValueError(f"coordinates must be 'linear' or 'cosine', got {coordinates!r}")
        if pooling not in ("mean", "cosine"):
            raise ValueError(f"pooling must be 'mean' or 'cosine', got {pooling!r}")
        self.coordinates: Literal["linear", "cosine"] = coordinates
        self.coordinate_frequencies = coordinate_frequencies
        known = (*RefinementInputs._fields, "coordinates")
        if unknown := [name for name in leave_out if name not in known]:
            raise ValueError(f"leave_out has {', '.join(unknown)}, but the inputs are {', '.join(known)}")
        self.pooling = pooling
        self.capacity = capacity
        self.leave_out = tuple(leave_out)

        norm = (norm_epsilon, layer_norm)
        self.norm_mean_gradient = StoppedLayerNorm(image_channels, *norm)
        self.norm_mask_gradient = StoppedLayerNorm(1, *norm)
        self.norm_log_likelihood = StoppedLayerNorm(1, *norm)
        self.norm_leave_one_out = StoppedLayerNorm(1, *norm)
        self.norm_posterior_gradient = StoppedLayerNorm(2 * latent_size, *norm)

        coordinate_channels = 2 if coordinates == "linear" else coordinate_frequencies**2 - 1
        self.convolutions = conv_stack(3 * image_channels + 7 + coordinate_channels, channels, kernel_size, stride=2)
        pooled = channels[-1] * (coordinate_frequencies**2 if pooling == "cosine" else 1)
        self.mlp = mlp(pooled, mlp_sizes)
        features = mlp_sizes[-1] + 4 * latent_size + 1
        self.lstm = None if lstm_size is None else LSTMCell(features, lstm_size)
        if head not in ("residual", "predictor_corrector"):
            raise ValueError(f"head must be 'residual' or 'predictor_corrector', got {head!r}")
        kind = Linear if head == "residual" else PredictorCorrectorHead
        self.head = kind(features if lstm_size is None else lstm_size, 2 * latent_size)

    def forward(self, inputs: RefinementInputs, state: State = ()) -> tuple[Tensor, State]:
        """Returns the update ``(B, K, 2D)`` and the next LSTM state."""
        slots = inputs.means.shape[1]
        missing = (name for name in self.leave_out if name != "coordinates")
        inputs = inputs._replace(**{name: torch.zeros_like(getattr(inputs, name)) for name in missing})
        encoded = self.mlp(self._pool(self._convolve(inputs)))
        features = torch.cat([encoded, self._flat(inputs)], dim=1)
        if self.lstm is not None:
            state = self.lstm(features, state)
            features = state[0]
        if isinstance(self.head, PredictorCorrectorHead):
            update = self.head(features, rearrange(inputs.posterior, "b k d -> (b k) d"))
        else:
            update = self.head(features)
        return rearrange(update, "(b k) d -> b k d", k=slots), state

    def _convolve(self, inputs: RefinementInputs) -> Tensor:
        """Runs the convolutions on the image-sized inputs, ``(BK, channels, h, w)``.

        The first is linear, so it is taken apart: what is the same for all slots goes through it once for each image,
        what is the same for all images once. The gains and biases of the layer norms act on its weights, not on images:
        the normalised inputs are constants, and a bias is a part of the weight of the constant channel.
        """
        _, slots, image_channels, height, width = inputs.means.shape
        kind = (self.coordinates, self.coordinate_frequencies)
        grid = coordinate_grid(*kind, height, width, inputs.means.dtype, inputs.means.device)
        if "coordinates" in self.leave_out:
            grid = torch.zeros_like(grid)
        first, *others = self.convolutions
        assert isinstance(first, SameConv2d)
        channels = {  # in alphabetical order of the reference's names
            "constant": 1,
            "means": image_channels,
            "coordinates": len(grid),
            "leave_one_out": 1,
            "mean_gradient": image_channels,
            "mask_gradient": 1,
            "image": image_channels,
            "log_likelihood": 1,
            "mask_logits": 1,
            "mask_posterior": 1,
            "masks": 1,
        }
        weight = dict(zip(channels, torch.split(first.weight, list(channels.values()), dim=1), strict=True))
        weight["constant"] = weight["constant"] * self.capacity
        for name in ("leave_one_out", "mean_gradient", "mask_gradient", "log_likelihood"):
            norm: StoppedLayerNorm = getattr(self, f"norm_{name}")
            of_bias = (weight[name] * norm.bias.view(-1, 1, 1)).sum(dim=1, keepdim=True)
            weight["constant"] = weight["constant"] + of_bias
            weight[name] = weight[name] * norm.weight.view(-1, 1, 1)

        def convolved(bias: Tensor | None, **images: Tensor) -> Tensor:
            weights = torch.cat([weight[name] for name in images], dim=1)
            return first.convolve(torch.cat(list(images.values()), dim=1), weights, bias)

        for_all = convolved(first.bias, constant=torch.ones_like(grid[:1, None]), coordinates=grid.unsqueeze(0))
        for_image = convolved(
            None,
            image=inputs.image,
            log_likelihood=self.norm_log_likelihood.normalise(inputs.log_likelihood.unsqueeze(1)),
        )
        for_slot = convolved(
            None,
            means=_per_slot(inputs.means),
            leave_one_out=self.norm_leave_one_out.normalise(_per_slot(inputs.leave_one_out)),
            mean_gradient=self.norm_mean_gradient.normalise(_per_slot(inputs.mean_gradient)),
            mask_gradient=self.norm_mask_gradient.normalise(_per_slot(inputs.mask_gradient)),
            mask_logits=_per_slot(inputs.mask_logits),
            mask_posterior=_per_slot(inputs.mask_posterior),
            masks=_per_slot(inputs.masks),
        )
        shared = repeat(for_image + for_all, "b c h w -> (b k) c h w", k=slots)
        hidden = for_slot + shared
        for layer in others:
            hidden = layer(hidden)
        return hidden

    def _pool(self, x: Tensor) -> Tensor:
        """Pools ``x`` (BK, channels, h, w) to (BK, features)."""
        mean = x.mean(dim=(2, 3))
        if self.pooling == "mean":
            return mean
        height, width = x.shape[2:]
        grid = coordinate_grid("cosine", self.coordinate_frequencies, height, width, x.dtype, x.device)
        weighted = torch.einsum("nchw,fhw->ncf", x, grid) / grid[0].numel()
        return torch.cat([mean, weighted.flatten(1)], dim=1)

    def _flat(self, inputs: RefinementInputs) -> Tensor:
        """Joins the vector inputs, ``(BK, 4D + 1)``."""
        posterior = rearrange(inputs.posterior, "b k d -> (b k) d")
        gradient = rearrange(inputs.posterior_gradient, "b k d -> (b k) d")
        capacity = posterior.new_full((posterior.shape[0], 1), self.capacity)
        return torch.cat([self.norm_posterior_gradient(gradient), capacity, posterior], dim=1)
