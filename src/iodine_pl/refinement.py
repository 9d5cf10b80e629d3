"""The inputs a_k of the refinement network, each named, and the network (section 3.2 and Algorithm 1 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from iodine_pl.layers import (
    Linear,
    LSTMCell,
    PredictorCorrectorHead,
    SameConv2d,
    StoppedLayerNorm,
    conv_stack,
    coordinate_grid,
    mlp,
    remembered,
)

__all__ = [
    "INPUTS",
    "VECTORS",
    "Input",
    "LSTMState",
    "RefinementInputs",
    "RefinementNetwork",
    "coordinate_grid",
    "input_channels",
]

LSTMState = tuple[Tensor, ...]
"""Hidden and cell state, each ``(BK, hidden)``; empty before the first step, or without LSTM."""


class RefinementInputs(NamedTuple):
    """Holds the tensors that a refinement step starts from; :data:`INPUTS` lists the network's inputs."""

    image: Tensor
    """x, ``(B, C, H, W)``."""
    means: Tensor
    """mu, ``(B, K, C, H, W)``; gradient flows."""
    masks: Tensor
    """m, ``(B, K, H, W)``; gradient flows."""
    mask_logits: Tensor
    """``(B, K, H, W)``; gradient flows."""
    mask_posterior: Tensor
    """p(m_k|x, mu), ``(B, K, H, W)``; gradient flows."""
    mean_gradient: Tensor
    """Gradient of the loss for the pixel parameters, ``(B, K, C, H, W)``."""
    mask_gradient: Tensor
    """Gradient of the loss for the mask logits, ``(B, K, H, W)``."""
    log_likelihood: Tensor
    """log p(x_i|z), ``(B, H, W)``."""
    leave_one_out: Tensor
    """What each slot adds to log p(x_i|z), ``(B, K, H, W)``."""
    posterior: Tensor
    """lambda, ``(B, K, 2D)``; gradient flows."""
    posterior_gradient: Tensor
    """Gradient of the loss for lambda, ``(B, K, 2D)``."""


class Input(NamedTuple):
    """Describes one input of the network."""

    name: str
    """Its key in :meth:`RefinementNetwork.value`."""
    channels: int | Literal["C", "2D", "coordinates"] = 1
    """Number of channels: a number, C of the image, 2D of lambda, or that of the coordinates."""
    per: Literal["slot", "image", "all"] = "slot"
    """Whether its values differ per slot, per image, or are the same for all images."""
    norm: bool = False
    """Whether its gradient is stopped and a layer norm follows, with the parameters ``norm_NAME``."""
    reference: str = "~"
    """Its name in the reference code. Channels are joined in the order of these names; an input of your own is last."""


INPUTS = (
    Input("image", "C", per="image", reference="image"),
    Input("means", "C", reference="components"),
    Input("masks", reference="pred_mask"),
    Input("mask_logits", reference="mask"),
    Input("mask_posterior", reference="posterior"),
    Input("mean_gradient", "C", norm=True, reference="dcomponents"),
    Input("mask_gradient", norm=True, reference="dmask"),
    Input("log_likelihood", per="image", norm=True, reference="log_prob"),
    Input("leave_one_out", norm=True, reference="counterfactual"),
    Input("coordinates", "coordinates", per="all", reference="coordinates"),
    Input("capacity", per="all", reference="capacity"),
)
"""The image-sized inputs, which the convolutions see."""

VECTORS = (
    Input("posterior", "2D", reference="zp"),
    Input("posterior_gradient", "2D", norm=True, reference="dzp"),
    Input("flat_capacity", reference="flat_capacity"),
)
"""The inputs that are vectors, which are joined to the convolutions' features."""


def input_channels(inputs: Sequence[Input], sizes: Mapping[str, int]) -> dict[str, int]:
    """Returns the number of channels of each input, in the order in which they are joined.

    Args:
        inputs: such as :data:`INPUTS`.
        sizes: ``C``, ``2D`` and ``coordinates``.
    """
    ordered = sorted(inputs, key=lambda row: row.reference)
    return {row.name: row.channels if isinstance(row.channels, int) else sizes[row.channels] for row in ordered}


@remembered
def _filled(value: float, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.full(shape, value, dtype=dtype, device=device)


def _as_maps(x: Tensor, row: Input) -> Tensor:
    """Reshapes an input for a convolution: ``(BK, c, H, W)``, ``(B, c, H, W)`` or ``(1, c, H, W)``."""
    slots = "b k" if row.per == "slot" else "b"
    joined = "(b k)" if row.per == "slot" else "b"
    channel = "" if x.ndim == len(slots.split()) + 2 else "c"
    return rearrange(x, f"{slots} {channel} h w -> {joined} {channel or 1} h w")


class RefinementNetwork(nn.Module):
    """Computes the update of every slot's posterior parameters: ``lambda <- lambda + f_phi(a_k, h)``.

    Image-sized inputs pass through convolutions of stride 2 (ELU after each), pooling over pixels, and an MLP (ELU
    between its layers). The result is joined with lambda and its gradient and passes through an optional LSTM and a
    linear layer. Inputs with ``norm`` in :data:`INPUTS` first pass through :class:`StoppedLayerNorm`.

    To add an input, a subclass adds its row to ``inputs`` or ``vectors`` and computes it in :meth:`value`.

    Args:
        latent_size: D.
        image_channels: C.
        channels: output channels of the convolutions.
        kernel_size: side of their kernels in pixels.
        mlp_sizes: widths of the MLP's layers.
        lstm_size: width of the LSTM; None leaves it out, as the released Tetrominoes network does.
        coordinates: ``linear`` (2 channels; released CLEVR6) or ``cosine`` (released Multi-dSprites, Tetrominoes).
        coordinate_frequencies: of ``cosine``, along each axis; 3 give 8 channels.
        pooling: ``mean`` over pixels (paper, code); ``cosine``: also the means weighted by each ``cosine`` coordinate,
            which encode where a feature is, not only how strong it is.
        capacity: constant of an input channel and of an input number, 0.5 in the reference code; not in the paper.
        norm_epsilon: added to the variance in the layer norms.
        layer_norm: False: the layer norms only apply gain and bias; for the ablation.
        leave_out: inputs that are set to zero, for the ablation: names of :data:`INPUTS` and :data:`VECTORS`.
        head: ``residual``: a linear layer; ``predictor_corrector``: :class:`PredictorCorrectorHead`.

    Raises:
        ValueError: for an unknown name.
    """

    inputs: ClassVar[tuple[Input, ...]] = INPUTS
    vectors: ClassVar[tuple[Input, ...]] = VECTORS

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
        known = dict.fromkeys(row.name for row in (*self.inputs, *self.vectors))
        if unknown := [name for name in leave_out if name not in known]:
            raise ValueError(f"leave_out has {', '.join(unknown)}, but the inputs are {', '.join(known)}")
        self.pooling = pooling
        self.capacity = capacity
        self.leave_out = tuple(leave_out)

        sizes = {"C": image_channels, "2D": 2 * latent_size}
        sizes["coordinates"] = 2 if coordinates == "linear" else coordinate_frequencies**2 - 1
        self.channels = input_channels(self.inputs, sizes)
        self.vector_channels = input_channels(self.vectors, sizes)
        for row in (*self.inputs, *self.vectors):
            if row.norm:
                count = (self.channels | self.vector_channels)[row.name]
                self.add_module(f"norm_{row.name}", StoppedLayerNorm(count, norm_epsilon, layer_norm))
        self.convolutions = conv_stack(sum(self.channels.values()), channels, kernel_size, stride=2)
        pooled = channels[-1] * (coordinate_frequencies**2 if pooling == "cosine" else 1)
        self.mlp = mlp(pooled, mlp_sizes)
        features = mlp_sizes[-1] + sum(self.vector_channels.values())
        self.lstm = None if lstm_size is None else LSTMCell(features, lstm_size)
        if head not in ("residual", "predictor_corrector"):
            raise ValueError(f"head must be 'residual' or 'predictor_corrector', got {head!r}")
        kind = Linear if head == "residual" else PredictorCorrectorHead
        self.head = kind(features if lstm_size is None else lstm_size, 2 * latent_size)

    def forward(self, inputs: RefinementInputs, state: LSTMState = ()) -> tuple[Tensor, LSTMState]:
        """Returns the update ``(B, K, 2D)`` and the next LSTM state."""
        slots = inputs.means.shape[1]
        encoded = self.mlp(self._pool(self._convolve(inputs)))
        features = torch.cat([encoded, self._flat(inputs)], dim=1)  # (BK, features)
        if self.lstm is not None:
            state = self.lstm(features, state)
            features = state[0]
        if isinstance(self.head, PredictorCorrectorHead):
            update = self.head(features, rearrange(inputs.posterior, "b k d -> (b k) d"))
        else:
            update = self.head(features)
        return rearrange(update, "(b k) d -> b k d", k=slots), state

    def value(self, name: str, inputs: RefinementInputs) -> Tensor:
        """Returns an input by its name.

        Those of :data:`INPUTS` are ``(B, K, H, W)`` or ``(B, K, c, H, W)``, without K if the slots share them,
        ``(1, c, H, W)`` if all images share them. Those of :data:`VECTORS` are ``(B, K, c)``. ``capacity`` is never
        requested, since it is the same number everywhere.
        """
        batch, slots, _, height, width = inputs.means.shape
        if name == "flat_capacity":
            return inputs.means.new_full((batch, slots, 1), self.capacity)
        if name == "coordinates":
            kind = (self.coordinates, self.coordinate_frequencies)
            return coordinate_grid(*kind, height, width, inputs.means.dtype, inputs.means.device).unsqueeze(0)
        given: Tensor = getattr(inputs, name)
        return given

    def _kept(self, name: str, inputs: RefinementInputs) -> Tensor:
        value = self.value(name, inputs)
        return torch.zeros_like(value) if name in self.leave_out else value

    def _norm(self, name: str) -> StoppedLayerNorm:
        norm = self.get_submodule(f"norm_{name}")
        assert isinstance(norm, StoppedLayerNorm)
        return norm

    def _convolve(self, inputs: RefinementInputs) -> Tensor:
        """Runs the convolutions on the image-sized inputs, ``(BK, channels, h, w)``.

        The first convolution is linear, so its inputs are convolved in groups: those shared by all slots once per
        image, those shared by all images once. The gains of the layer norms multiply its weights instead of the images,
        and their biases become weights of a channel that is 1 everywhere.
        """
        first, *others = self.convolutions
        assert isinstance(first, SameConv2d)
        rows = {row.name: row for row in self.inputs}
        gains, biases = self._gains_and_biases(first.weight)
        of_ones = (first.weight * biases).sum(dim=1, keepdim=True)
        ones = _filled(1.0, (1, 1, *inputs.image.shape[-2:]), inputs.means.dtype, inputs.means.device)
        maps: dict[str, list[Tensor]] = {"slot": [], "image": [], "all": [ones]}
        weights: dict[str, list[Tensor]] = {"slot": [], "image": [], "all": [of_ones]}
        of_inputs = torch.split(first.weight * gains, list(self.channels.values()), dim=1)
        for name, weight in zip(self.channels, of_inputs, strict=True):
            row = rows[name]
            if name == "capacity":  # added to the weight of the ones
                continue
            x = _as_maps(self._kept(name, inputs), row)
            maps[row.per].append(self._norm(name).normalize(x) if row.norm else x)
            weights[row.per].append(weight)

        def convolved(per: str, bias: Tensor | None = None) -> Tensor:
            return first.convolve(torch.cat(maps[per], dim=1), torch.cat(weights[per], dim=1), bias)

        of_image = convolved("image") + convolved("all", first.bias)  # (B, channels, h, w)
        hidden = convolved("slot") + repeat(of_image, "b c h w -> (b k) c h w", k=inputs.means.shape[1])
        for layer in others:
            hidden = layer(hidden)
        return hidden

    def _gains_and_biases(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the gain and the bias of each input channel of the convolutions, ``(c, 1, 1)``."""

        def filled(value: float, count: int) -> Tensor:
            return _filled(value, (count,), weight.dtype, weight.device)

        gains, biases = [], []
        normed = {row.name for row in self.inputs if row.norm}
        for name, count in self.channels.items():
            norm = self._norm(name) if name in normed else None
            constant = self.capacity if name == "capacity" and name not in self.leave_out else 0.0
            gains.append(filled(1.0, count) if norm is None else norm.weight)
            biases.append(filled(constant, count) if norm is None else norm.bias)
        return torch.cat(gains).view(-1, 1, 1), torch.cat(biases).view(-1, 1, 1)

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
        """Joins the vectors, ``(BK, 4D + 1)``."""
        rows = {row.name: row for row in self.vectors}
        parts = []
        for name in self.vector_channels:
            x = rearrange(self._kept(name, inputs), "b k d -> (b k) d")
            parts.append(self._norm(name)(x) if rows[name].norm else x)
        return torch.cat(parts, dim=1)
