"""The likelihood of one refinement step with a single backward pass, whose activations are freed at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from iodine_pl.decoder import Decoded, SpatialBroadcastDecoder
from iodine_pl.mixture import PixelDistribution, PixelMixture

__all__ = ["decode_once"]


def decode_once(
    decoder: SpatialBroadcastDecoder,
    latents: Tensor,
    images: Tensor,
    distribution: PixelDistribution,
    for_parameters: bool,
) -> tuple[PixelMixture, Tensor, Tensor]:
    """Decodes latents and differentiates the likelihood there and then.

    Where nothing else goes back into the decoder, all that its parameters and the latents will ever get is the gradient
    of this step's negative log-likelihood, times a weight. So it is computed now, with the gradient that refinement
    needs anyway, and no activation has to wait for the end.

    Args:
        decoder: its parameters get their gradients by way of the returned likelihood.
        latents: ``(B, K, D)``.
        images: ``(B, C, H, W)``.
        distribution: of the pixels.
        for_parameters: whether the decoder's parameters will need gradients; if not, half of the work is saved.

    Returns:
        The mixture, outside of any graph; the negative log-likelihood of each image, ``(B,)``, an ordinary
        differentiable tensor, but every image must have the same weight in what is differentiated; and its gradient
        with respect to the latents, ``(B, K, D)``.
    """
    parameters = list(decoder.parameters()) if for_parameters else []
    inputs = (latents.detach().requires_grad_(), *parameters)
    with torch.enable_grad():
        decoded = decoder(inputs[0], images.shape[2], images.shape[3])
    mixture = PixelMixture(images, Decoded(*(x.detach() for x in decoded)), distribution)
    gradients = torch.autograd.grad(decoded, inputs, mixture.nll_gradients())
    nll: Tensor = _KnownGradients.apply(mixture.nll, *gradients, latents, *parameters)  # type: ignore[no-untyped-call]
    return mixture, nll, gradients[0]


class _KnownGradients(torch.autograd.Function):
    """Takes the likelihood into the graph, with its gradients for the latents and the parameters as they are known."""

    @staticmethod
    def forward(ctx: Any, nll: Tensor, *gradients_and_inputs: Tensor) -> Tensor:
        ctx.count = len(gradients_and_inputs) // 2
        ctx.save_for_backward(*gradients_and_inputs[: ctx.count])
        return nll.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        of_latents, *of_parameters = ctx.saved_tensors
        if of_parameters and bool((weight != weight[0]).any()):
            raise RuntimeError(
                "with input_gradients='stopped' every image must have the same weight in the loss: use the mean over "
                "the batch, or input_gradients='full'"
            )
        latents = of_latents * weight.view(-1, 1, 1)
        return (None, *(None for _ in range(ctx.count)), latents, *(g * weight[0] for g in of_parameters))
