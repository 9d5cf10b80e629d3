"""A variational autoencoder with IODINE's decoder and one slot (the comparison of section 4.2 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from iodine_pl.decoder import SpatialBroadcastDecoder
from iodine_pl.distributions import Bernoulli, make_distribution
from iodine_pl.engine import View
from iodine_pl.errors import ImageError, require
from iodine_pl.layers import conv_stack, mlp
from iodine_pl.mixture import likelihood_of
from iodine_pl.posterior import PRIOR_SCALE, Posterior, noise_for
from iodine_pl.result import Decomposition
from iodine_pl.scene_model import Batch, SceneModel

__all__ = ["VAE"]


class VAE(SceneModel):
    """Encodes a whole image into one latent: convolutions of stride 2, an MLP, the spatial broadcast decoder.

    Decoder, pixel distribution, prior and posterior are those of :class:`iodine_pl.IODINE`, so that an ELBO means the
    same. Its one mask is 1 everywhere.

    Args:
        image_size: side of the square images in pixels; the encoder's last map is not pooled, so it is fixed.
        latent_size: D; the sum over all slots of IODINE makes the comparison fair.
        image_channels: C.
        pixel_distribution, pixel_scale, pixel_likelihood, bounded_means, channel_correlation, prior_scale: as in
            IODINE. With one slot the two likelihoods are the same.
        decoder_channels, decoder_kernel, latent_constant: as in IODINE.
        encoder_channels, encoder_kernel: stride-2 convolutions.
        mlp_sizes: hidden layers after them.
        training: further arguments, of :class:`iodine_pl.SceneModel`.

    Raises:
        ValueError: for a number out of its range.
    """

    def __init__(
        self,
        image_size: int = 35,
        latent_size: int = 128,
        image_channels: int = 3,
        pixel_distribution: Literal["logistic", "gaussian", "bernoulli"] = "logistic",
        pixel_scale: float | None = None,
        pixel_likelihood: Literal["mixture", "mean"] = "mixture",
        bounded_means: bool = False,
        channel_correlation: float = 0.0,
        prior_scale: float = PRIOR_SCALE,
        decoder_channels: Sequence[int] = (32, 32, 32, 32),
        decoder_kernel: int = 5,
        latent_constant: float = 5.0,
        encoder_channels: Sequence[int] = (32, 32, 64, 64),
        encoder_kernel: int = 5,
        mlp_sizes: Sequence[int] = (256,),
        **training: Any,
    ) -> None:
        super().__init__(**training)
        self.save_hyperparameters()
        require("at least 1", image_size=image_size, latent_size=latent_size, image_channels=image_channels)
        require("at least 1", decoder_channels=decoder_channels, decoder_kernel=decoder_kernel, mlp_sizes=mlp_sizes)
        require("at least 1", encoder_channels=encoder_channels, encoder_kernel=encoder_kernel)
        require("positive", prior_scale=prior_scale)
        self.image_size = image_size
        self.latent_size = latent_size
        self.image_channels = image_channels
        self.prior_scale = prior_scale
        self.distribution = make_distribution(pixel_distribution, pixel_scale, bounded_means, channel_correlation)
        self.takes_gray = not isinstance(self.distribution, Bernoulli)
        self.likelihood = likelihood_of(pixel_likelihood, self.distribution)
        self.decoder = SpatialBroadcastDecoder(
            latent_size, image_channels, decoder_channels, decoder_kernel, latent_constant
        )
        self.convolutions = conv_stack(image_channels, encoder_channels, encoder_kernel, stride=2)
        side = image_size
        for _ in encoder_channels:
            side = -(-side // 2)
        self.mlp = mlp(encoder_channels[-1] * side * side, (*mlp_sizes, 2 * latent_size))
        self.to(memory_format=torch.channels_last)  # faster on CPU

    def extra_repr(self) -> str:
        return (
            f"K=1, T=0, D={self.latent_size}, image_size={self.image_size}, "
            f"likelihood={self.likelihood.__name__} of {self.distribution}"
        )

    def forward(
        self,
        batch: Batch | Tensor,
        num_slots: int | None = None,
        num_iterations: int | None = None,
        noise: Tensor | None = None,
        return_steps: bool = False,
    ) -> Decomposition:
        """Encodes and decodes images.

        Args:
            batch: images ``(B, C, H, W)``, uint8 or float in [0, 1], or a dict with them under ``image``.
            num_slots, num_iterations: 1 and 0, or None.
            noise: standard-normal numbers ``(1, B, 1, D)`` for the sample of z; None: drawn here.
            return_steps: also put the decomposition into ``steps``.

        Raises:
            ValueError: for any other number of slots or iterations, or images of another size.
        """
        images = self.images(batch)
        shape = self.noise_shape(len(images), num_slots, num_iterations)
        if images.shape[2:] != (self.image_size, self.image_size):
            raise ImageError(
                f"VAE takes images (B, {self.image_channels}, {self.image_size}, {self.image_size}), got "
                f"{tuple(images.shape)}: give the model their side, image_size=..."
            )
        noise = noise_for(images, shape, noise)
        encoded = self.convolutions(images.contiguous(memory_format=torch.channels_last))
        posterior = Posterior(self.mlp(encoded.flatten(1)).unsqueeze(1))  # of lambda, (B, 1, 2D)
        latents = posterior.rsample(noise[0])
        mixture = self.likelihood(images, self.decoder(latents, *images.shape[2:]), self.distribution)
        result = View(posterior, latents, mixture, posterior.kl(self.prior_scale)).decomposition()
        return result._replace(steps=(result,)) if return_steps else result

    def decode(self, latents: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Returns masks ``(B, 1, H, W)``, all 1, and means ``(B, 1, C, H, W)`` of latents ``(B, 1, D)``."""
        decoded = self.decoder(latents, height, width)
        return decoded.mask_logits.softmax(dim=1), self.distribution.mean(decoded.parameters)

    def loss(self, batch: Batch | Tensor, noise: Tensor | None = None) -> tuple[Tensor, Decomposition]:
        """Returns ``NLL + KL``, mean over the batch, with its graph, and the decomposition without one."""
        result = self(batch, noise=noise)
        return (result.nll + result.kl.sum(dim=1)).mean(), result.detach()

    def noise_shape(
        self, batch_size: int, num_slots: int | None = None, num_iterations: int | None = None
    ) -> tuple[int, ...]:
        if num_slots not in (None, 1) or num_iterations not in (None, 0):
            raise ValueError(f"a VAE has 1 slot and 0 iterations, got {num_slots} and {num_iterations}")
        return (1, batch_size, 1, self.latent_size)
