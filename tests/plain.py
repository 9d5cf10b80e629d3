"""IODINE in its plainest form: every gradient by autograd, every convolution on all of its channels.

The measure of every faster way: the same weights must give the same numbers.
"""

import torch
from einops import rearrange, repeat

from iodine_pl import IODINE
from iodine_pl.autograd import differentiation_allowed
from iodine_pl.decoder import Decoded
from iodine_pl.engine import View
from iodine_pl.posterior import Posterior
from iodine_pl.refinement import RefinementInputs, coordinate_grid
from iodine_pl.result import Trace


class PlainIODINE(IODINE):
    """Computes what IODINE does, by the definitions alone."""

    def _infer(self, images, noise, return_steps, differentiable, graph):
        with differentiation_allowed():
            iterations, (batch, slots) = len(noise) - 1, noise.shape[1:3]
            steps, state = [], ()
            parameters = self.initial_posterior.expand(batch, slots, -1)
            for t in range(iterations + 1):
                posterior = Posterior(parameters)
                latents = posterior.rsample(noise[t])
                image = images if images.ndim == 4 else images[:, t]
                decoded = decode(self.decoder, latents, *images.shape[-2:])
                mixture = self.likelihood(image, decoded, self.distribution)
                kl = posterior.kl(self.prior_scale)
                steps.append(View(posterior, latents, mixture, kl).decomposition())
                if t == iterations:
                    break
                objective = (mixture.nll.sum() + kl.sum()) / (self.inner_batch_size or self.batch_size or batch)
                wanted = (parameters, decoded.parameters, decoded.mask_logits)
                gradients = torch.autograd.grad(objective, wanted, retain_graph=True)
                stopped = self.input_gradients == "stopped"
                pass_on = torch.Tensor.detach if stopped else lambda x: x
                inputs = RefinementInputs(
                    image=image,
                    means=pass_on(mixture.means),
                    masks=pass_on(mixture.masks),
                    mask_logits=pass_on(mixture.mask_logits),
                    mask_posterior=pass_on(mixture.mask_posterior(self.mask_posterior_epsilon)),
                    mean_gradient=gradients[1],
                    mask_gradient=gradients[2],
                    log_likelihood=mixture.log_prob,
                    leave_one_out=leave_one_out(mixture),
                    posterior=parameters,
                    posterior_gradient=gradients[0],
                )
                update, state = refine(self.refinement, inputs, state)
                parameters = parameters + update
            trace = Trace(*(torch.cat(terms) for terms in zip(*(step.trace for step in steps), strict=True)))
        last = steps[-1]._replace(trace=trace)
        return last._replace(steps=tuple(steps)) if return_steps else last


def decode(decoder, latents, height, width):
    """Copies each latent to every pixel and convolves."""
    flat = rearrange(latents, "b k d -> (b k) d")
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height, dtype=flat.dtype, device=flat.device),
        torch.linspace(-1, 1, width, dtype=flat.dtype, device=flat.device),
        indexing="ij",
    )
    maps = [
        repeat(flat, "n d -> n d h w", h=height, w=width),
        flat.new_full((len(flat), 1, height, width), decoder.latent_constant),
        repeat(torch.stack([y, x]), "c h w -> n c h w", n=len(flat)),
    ]
    output = decoder.output(decoder.hidden(torch.cat(maps, dim=1)))
    output = rearrange(output, "(b k) c h w -> b k c h w", k=latents.shape[1])
    return Decoded(output[:, :, 0], output[:, :, 1:])


def leave_one_out(mixture):
    """Leaves out one slot after the other."""
    slots = mixture.mask_logits.shape[1]
    if slots == 1:
        return torch.zeros_like(mixture.joint)
    without = []
    for k in range(slots):
        others = [j for j in range(slots) if j != k]
        decoded = Decoded(mixture.mask_logits[:, others], mixture.parameters[:, others])
        without.append(type(mixture)(mixture.image.squeeze(1), decoded, mixture.distribution).log_prob)
    return (mixture.log_prob.unsqueeze(1) - torch.stack(without, dim=1)).detach()


def refine(network, inputs, state):
    """Joins all channels, in the alphabetical order of the reference's names, and runs the network."""
    batch, slots, _, height, width = inputs.means.shape

    def each(x):
        return rearrange(x, "b k c h w -> (b k) c h w") if x.ndim == 5 else rearrange(x, "b k h w -> (b k) 1 h w")

    grid = coordinate_grid(network.coordinates, network.coordinate_frequencies, height, width, inputs.means.dtype)
    grid = grid.to(inputs.means.device)
    log_likelihood = network.norm_log_likelihood(inputs.log_likelihood.unsqueeze(1))
    channels = [
        inputs.means.new_full((batch * slots, 1, height, width), network.capacity),
        each(inputs.means),
        repeat(grid, "c h w -> n c h w", n=batch * slots),
        network.norm_leave_one_out(each(inputs.leave_one_out)),
        network.norm_mean_gradient(each(inputs.mean_gradient)),
        network.norm_mask_gradient(each(inputs.mask_gradient)),
        repeat(inputs.image, "b c h w -> (b k) c h w", k=slots),
        repeat(log_likelihood, "b c h w -> (b k) c h w", k=slots),
        each(inputs.mask_logits),
        each(inputs.mask_posterior),
        each(inputs.masks),
    ]
    encoded = network.mlp(network.convolutions(torch.cat(channels, dim=1)).mean(dim=(2, 3)))
    features = torch.cat([encoded, network._flat(inputs)], dim=1)
    if network.lstm is not None:
        state = network.lstm(features, state)
        features = state[0]
    known = [rearrange(inputs.posterior, "b k d -> (b k) d")] if hasattr(network.head, "prediction") else []
    return rearrange(network.head(features, *known), "(b k) d -> b k d", k=slots), state
