"""Relational neural expectation maximization (van Steenkiste et al. 2018, arXiv:1802.10353)."""

from __future__ import annotations

import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from iodine_pl.errors import ImageError
from iodine_pl.posterior import noise_for
from iodine_pl.result import Decomposition, Trace
from iodine_pl.scene_model import Batch, SceneModel

__all__ = ["RNEM"]

_EPSILON = 1e-6  # added to each slot's likelihood of a pixel


class RNEM(SceneModel):
    """Segments binary images by EM whose M-step is a recurrent network over K slots.

    At every step each slot sees the errors of its prediction, weighted by its responsibilities. It updates its state,
    which depends on all other slots, and predicts the image again. The responsibilities then follow from how well each
    slot predicted each pixel. With ``relations=False`` the slots are independent: RNN-EM, the recurrent form of neural
    EM (Greff et al. 2017, arXiv:1708.03498).

    In the decomposition ``masks`` are the responsibilities gamma, ``means`` the predictions, ``mean`` and ``latents``
    the recurrent states (with ``std`` and ``kl`` 0); ``nll`` is that of the mixture with equal weights. The same image
    is shown at every step; in training, other bits of it are flipped each time.

    Args:
        image_size: side of the square images, a multiple of 8.
        num_slots: K in training; each call can take another.
        num_iterations: T; each call can take another.
        relations: whether slots affect each other.
        bit_flips: fraction of the pixels that training inverts at each step.
        state_size: size of a slot's recurrent state.
        learning_rate, reference_batch_size: 1e-3 at 64 images.
        optimizer, betas: torch's Adam with its default betas.
        decay_factor: 1: the learning rate is constant.
        gradient_clip_norm: None: no clipping.
        training: further arguments, of :class:`iodine_pl.SceneModel`.

    Raises:
        ValueError: for a number out of its range.
    """

    def __init__(
        self,
        image_size: int = 64,
        num_slots: int = 4,
        num_iterations: int = 15,
        relations: bool = True,
        bit_flips: float = 0.2,
        state_size: int = 250,
        learning_rate: float = 1e-3,
        reference_batch_size: int = 64,
        optimizer: str = "adam",
        betas: tuple[float, float] = (0.9, 0.999),
        decay_factor: float = 1.0,
        gradient_clip_norm: float | None = None,
        **training: Any,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate,
            reference_batch_size=reference_batch_size,
            optimizer=optimizer,
            betas=betas,
            decay_factor=decay_factor,
            gradient_clip_norm=gradient_clip_norm,
            **training,
        )
        self.save_hyperparameters()
        if image_size < 8 or image_size % 8:
            raise ValueError(f"image_size must be a multiple of 8, got {image_size}")
        if num_slots < 1 or num_iterations < 1 or not 0.0 <= bit_flips < 0.5:
            raise ValueError(
                f"need num_slots and num_iterations of at least 1 and 0 <= bit_flips < 0.5, got {num_slots}, "
                f"{num_iterations} and {bit_flips}"
            )
        self.image_size = image_size
        self.image_channels = 1
        self.num_slots = num_slots
        self.num_iterations = num_iterations
        self.bit_flips = bit_flips
        self.state_size = state_size
        side = image_size // 8
        self.encoder = nn.Sequential(
            *(
                layer
                for channels, outputs in ((1, 16), (16, 32), (32, 64))
                for layer in (nn.Conv2d(channels, outputs, 4, 2, 1), nn.ELU(), nn.GroupNorm(1, outputs))
            ),
            nn.Flatten(),
            nn.Linear(64 * side * side, 512),
            nn.ELU(),
            nn.LayerNorm(512),
        )
        self.recurrence = _Recurrence(512, state_size, relations)
        self.decoder = nn.Sequential(
            nn.Linear(state_size, 512),
            nn.ReLU(),
            nn.LayerNorm(512),
            nn.Linear(512, 64 * side * side),
            nn.ReLU(),
            nn.LayerNorm(64 * side * side),
            nn.Unflatten(1, (64, side, side)),
            *(
                layer
                for channels, outputs in ((64, 32), (32, 16))
                for layer in (*_upscaled(channels, outputs), nn.ReLU(), nn.GroupNorm(1, outputs))
            ),
            *_upscaled(16, 1),
        )

    def extra_repr(self) -> str:
        return (
            f"K={self.num_slots}, T={self.num_iterations}, state_size={self.state_size}, "
            f"image_size={self.image_size}, relations={self.recurrence.core is not None}, bit_flips={self.bit_flips}, "
            "likelihood=equal mixture of Bernoulli()"
        )

    def forward(
        self,
        batch: Batch | Tensor,
        num_slots: int | None = None,
        num_iterations: int | None = None,
        noise: Tensor | None = None,
        return_steps: bool = False,
    ) -> Decomposition:
        """Runs T steps of EM.

        Args:
            batch: binary images ``(B, 1, H, W)``, uint8 (0 and 255) or float (0 and 1), or a dict with them under
                ``image``.
            num_slots, num_iterations: K and T >= 1, if not those of training.
            noise: standard-normal numbers ``(T+1, B, K, H, W)``; None: drawn here. The first step's set the initial
                responsibilities. In training the first slot's of the other steps choose the flipped bits.
            return_steps: also return the decomposition at every step, the initial state first.

        Raises:
            ValueError: if a shape does not fit.
        """
        _, result = self._run(batch, num_slots, num_iterations, noise, return_steps)
        return result

    def loss(self, batch: Batch | Tensor, noise: Tensor | None = None) -> tuple[Tensor, Decomposition]:
        """Returns the loss with its graph, and the decomposition without one.

        The loss sums, over steps, slots and pixels, gamma times the cross-entropy and 1 - gamma times
        KL(Bernoulli(0) || Bernoulli(prediction)), which makes a slot show nothing in pixels of others. It is averaged
        over the batch. No gradient flows through gamma.
        """
        loss, result = self._run(batch, None, None, noise, return_steps=False)
        return loss, result.detach()

    def noise_shape(
        self, batch_size: int, num_slots: int | None = None, num_iterations: int | None = None
    ) -> tuple[int, ...]:
        slots = self.num_slots if num_slots is None else num_slots
        iterations = self.iterations if num_iterations is None else num_iterations
        return (iterations + 1, batch_size, slots, self.image_size, self.image_size)

    def _run(
        self,
        batch: Batch | Tensor,
        num_slots: int | None,
        num_iterations: int | None,
        noise: Tensor | None,
        return_steps: bool,
    ) -> tuple[Tensor, Decomposition]:
        images = self.images(batch)
        shape = self.noise_shape(len(images), num_slots, num_iterations)
        if images.shape[2:] != shape[3:]:
            raise ImageError(
                f"R-NEM takes images (B, C, {self.image_size}, {self.image_size}), got {tuple(images.shape)}: give the "
                "model their side, image_size=..."
            )
        if shape[0] < 2 or shape[2] < 1:
            raise ValueError(f"R-NEM needs K and T of at least 1, got {shape[2]} and {shape[0] - 1}")
        noise = noise_for(images, shape, noise, axes="T+1, B, K, H, W")
        gamma = noise[0].abs()
        gamma = gamma / gamma.sum(dim=1, keepdim=True)  # (B, K, H, W)
        logits = torch.full_like(gamma, -math.inf)
        state = images.new_zeros(*shape[1:3], self.state_size)
        loss = images.new_zeros(())
        steps = [_decomposition(images, gamma, logits, state)]
        for t in range(1, shape[0]):
            shown = images[:, 0]  # (B, H, W)
            if self.training and self.bit_flips:
                flipped = noise[t, :, 0] < math.sqrt(2.0) * torch.erfinv(torch.tensor(2.0 * self.bit_flips - 1.0))
                shown = torch.where(flipped, 1.0 - shown, shown)
            missed = gamma * (shown.unsqueeze(1) - torch.sigmoid(logits))
            encoded = self.encoder(rearrange(missed, "b k h w -> (b k) 1 h w"))
            state = self.recurrence(rearrange(encoded, "(b k) d -> b k d", k=shape[2]), state)
            decoded = self.decoder(rearrange(state, "b k d -> (b k) d"))
            logits = rearrange(decoded, "(b k) 1 h w -> b k h w", k=shape[2])
            gamma = _responsibilities(images, logits.detach())
            own = F.binary_cross_entropy_with_logits(logits, images.expand_as(logits), reduction="none")
            others = F.softplus(logits)  # -log(1 - prediction)
            loss = loss + (gamma * own + (1.0 - gamma) * others).sum() / len(images)
            steps.append(_decomposition(images, gamma, logits, state))
        trace = Trace(*(torch.cat(terms) for terms in zip(*(step.trace for step in steps), strict=True)))
        last = steps[-1]._replace(trace=trace)
        return loss, last._replace(steps=tuple(steps)) if return_steps else last


class _Recurrence(nn.Module):
    """Updates the state of each slot from its inputs and from the other slots."""

    def __init__(self, input_size: int, state_size: int, relations: bool) -> None:
        super().__init__()
        size = state_size
        self.state = nn.Sequential(nn.Linear(size, size), nn.LayerNorm(size), nn.ReLU())
        self.core = nn.Sequential(nn.Linear(2 * size, size), nn.LayerNorm(size), nn.ReLU()) if relations else None
        if relations:
            self.context = nn.Sequential(nn.Linear(size, size), nn.LayerNorm(size), nn.ReLU())
            self.attention = nn.Sequential(
                nn.Linear(size, 100), nn.LayerNorm(100), nn.Tanh(), nn.Linear(100, 1), nn.Sigmoid()
            )
        self.update = nn.Sequential(nn.Linear(2 * size + input_size, size), nn.LayerNorm(size), nn.Sigmoid())

    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
        """Maps ``inputs`` (B, K, input_size) and ``state`` (B, K, state_size) to the next state."""
        own = self.state(state)
        effect = torch.zeros_like(own)
        slots = own.shape[1]
        if self.core is not None and slots > 1:
            k, i = (~torch.eye(slots, dtype=torch.bool, device=own.device)).nonzero(as_tuple=True)  # k differs from i
            core = self.core(torch.cat([own[:, k], own[:, i]], dim=-1))  # (B, K (K-1), state_size)
            effects = self.attention(core) * self.context(core)
            effect = rearrange(effects, "b (k i) d -> b k i d", k=slots).sum(dim=2)
        new: Tensor = self.update(torch.cat([own, effect, inputs], dim=-1))
        return new


def _upscaled(channels: int, outputs: int) -> tuple[nn.Module, ...]:
    """Doubles the size and convolves by 4x4 kernels, padded as TensorFlow does."""
    return nn.Upsample(scale_factor=2), nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(channels, outputs, 4)


def _responsibilities(images: Tensor, logits: Tensor) -> Tensor:
    """Returns gamma, ``(B, K, H, W)``: each slot's share in the likelihood of each pixel."""
    prediction = torch.sigmoid(logits)
    likelihood = images * prediction + (1.0 - images) * (1.0 - prediction) + _EPSILON
    return likelihood / likelihood.sum(dim=1, keepdim=True)


def _decomposition(images: Tensor, gamma: Tensor, logits: Tensor, state: Tensor) -> Decomposition:
    prediction = torch.sigmoid(logits)
    likelihood = images * prediction + (1.0 - images) * (1.0 - prediction)
    nll = -(likelihood.mean(dim=1) + _EPSILON).log().sum(dim=(1, 2))
    reconstruction = (gamma * prediction).sum(dim=1, keepdim=True)
    zero = torch.zeros_like(state)
    kl = zero[..., 0]
    mse = (reconstruction - images).square().mean(dim=(1, 2, 3))
    return Decomposition(
        mean=state,
        std=zero,
        latents=state,
        masks=gamma,
        means=prediction.unsqueeze(2),
        reconstruction=reconstruction,
        nll=nll,
        kl=kl,
        trace=Trace(nll[None], kl[None], mse[None]),
        responsibilities=gamma,  # R-NEM has no other masks
    )
