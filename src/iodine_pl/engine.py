"""A step of Algorithm 1, and the ways to differentiate it: they differ in what waits for the final backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from iodine_pl.autograd import recomputed, with_known_gradients
from iodine_pl.decoder import Decoded, SpatialBroadcastDecoder
from iodine_pl.mixture import PixelMixture
from iodine_pl.posterior import Posterior
from iodine_pl.refinement import RefinementInputs, RefinementNetwork, State
from iodine_pl.result import Decomposition, Trace

__all__ = ["Engine", "Evaluation", "Full", "Parts", "Recompute", "Stopped", "StoppedRecompute", "View", "step_weights"]


class Parts(NamedTuple):
    """Holds the parts of the model that a step uses."""

    decoder: SpatialBroadcastDecoder
    refinement: RefinementNetwork
    likelihood: Callable[[Tensor, Decoded], PixelMixture]
    """Of an image and what is decoded."""
    prior_scale: float
    mask_posterior_epsilon: float


class View(NamedTuple):
    """Holds what a step decodes from the posterior."""

    posterior: Posterior
    latents: Tensor
    """z, ``(B, K, D)``."""
    mixture: PixelMixture
    kl: Tensor
    """``(B, K)`` nats."""

    def decomposition(self) -> Decomposition:
        """Returns the scene as this step sees it."""
        posterior, latents, mixture, kl = self
        nll, reconstruction = mixture.nll, mixture.reconstruction
        mse = (reconstruction - mixture.image.squeeze(1)).square().mean(dim=(1, 2, 3))
        return Decomposition(
            mean=posterior.mean,
            std=posterior.std,
            latents=latents,
            masks=mixture.masks,
            means=mixture.means,
            reconstruction=reconstruction,
            nll=nll,
            kl=kl,
            trace=Trace(nll.unsqueeze(0), kl.unsqueeze(0), mse.unsqueeze(0)),
            responsibilities=mixture.responsibilities,
        )


def step_weights(states: int, like: Tensor) -> Tensor:
    """Returns the weights t/T of the states t = 0 .. T in the loss, ``(T+1,)``; 1 where T = 0."""
    return torch.linspace(1, 0, states, dtype=like.dtype, device=like.device).flip(0)


class Engine:
    """Refines the posterior of a batch of images, step by step. A subclass says what is kept of a step.

    Args:
        parts: of the model.
        images: x, ``(B, C, H, W)``, or ``(B, T+1, C, H, W)``: a frame for each step.
        noise: ``(T+1, B, K, D)``, standard normal.
        inner_batch: B in the mean over the batch that the inner gradient differentiates.
    """

    def __init__(self, parts: Parts, images: Tensor, noise: Tensor, inner_batch: int) -> None:
        self.parts = parts
        self.images = images
        self.noise = noise
        self.inner_batch = inner_batch
        self.last = len(noise) - 1  # T

    def step(self, t: int, parameters: Tensor, state: State) -> tuple[View, Tensor, State]:
        """Returns what step ``t`` sees, and lambda and the LSTM's state after it; the last step leaves them.

        Args:
            t: 0 .. T.
            parameters: lambda, ``(B, K, 2D)``.
            state: of the LSTM.
        """
        if not parameters.requires_grad:
            parameters = parameters.detach().requires_grad_()
        posterior = Posterior(parameters)
        latents, kl = posterior.rsample(self.noise[t]), posterior.kl(self.parts.prior_scale)
        mixture, of_latents = self.look(t, latents)
        view = View(posterior, latents, mixture, kl)
        if t < self.last:
            (gradient,) = torch.autograd.grad(
                (latents, kl), parameters, (of_latents, torch.ones_like(kl)), retain_graph=True
            )
            parameters, state = self.advance(t, view, parameters, gradient, state)
        return view, parameters, state

    def look(self, t: int, latents: Tensor) -> tuple[PixelMixture, Tensor | None]:
        """Returns the mixture, and the gradient of the summed NLL for the latents; the last step needs none."""
        raise NotImplementedError

    def advance(self, t: int, view: View, parameters: Tensor, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        """Returns lambda and the LSTM's state after a step, by :meth:`refine`."""
        raise NotImplementedError

    def enter_graph(self, nll: Tensor) -> Tensor:
        """Returns the likelihoods of all steps, ``(T+1, B)``, in the graph that they are to have."""
        return nll

    # What all share

    def decode(self, latents: Tensor) -> Decoded:
        decoded: Decoded = self.parts.decoder(latents, *self.images.shape[-2:])
        return decoded

    def frame(self, t: int) -> Tensor:
        """Returns what step ``t`` looks at, ``(B, C, H, W)``."""
        return self.images if self.images.ndim == 4 else self.images[:, t]

    def mix(self, t: int, decoded: Decoded) -> PixelMixture:
        return self.parts.likelihood(self.frame(t), decoded)

    def refine(
        self, t: int, mixture: PixelMixture, parameters: Tensor, gradient: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """Returns the next lambda and state, as functions of all that is given; ``gradient`` is that of NLL + KL."""
        mask_gradient, mean_gradient = mixture.nll_gradients()
        inputs = RefinementInputs(
            image=self.frame(t),
            means=mixture.means,
            masks=mixture.masks,
            mask_logits=mixture.mask_logits,
            mask_posterior=mixture.mask_posterior(self.parts.mask_posterior_epsilon),
            mean_gradient=mean_gradient / self.inner_batch,
            mask_gradient=mask_gradient / self.inner_batch,
            log_likelihood=mixture.log_prob,
            leave_one_out=mixture.leave_one_out(),
            posterior=parameters,
            posterior_gradient=gradient / self.inner_batch,
        )
        update, state = self.parts.refinement(inputs, state)
        return parameters + update, state


class Full(Engine):
    """Keeps every activation: plain backpropagation through all steps, the published gradient."""

    def look(self, t: int, latents: Tensor) -> tuple[PixelMixture, Tensor | None]:
        decoded = self.decode(latents)
        mixture = self.mix(t, decoded)
        if t == self.last:
            return mixture, None
        (gradient,) = torch.autograd.grad(decoded, latents, mixture.nll_gradients(), retain_graph=True)
        return mixture, gradient

    def advance(self, t: int, view: View, parameters: Tensor, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        return self.refine(t, view.mixture, parameters, gradient, state)


class Evaluation(Engine):
    """Keeps nothing: no graph to the networks' parameters, and the activations of one step at a time."""

    def look(self, t: int, latents: Tensor) -> tuple[PixelMixture, Tensor | None]:
        with torch.set_grad_enabled(t < self.last):
            leaf = latents.detach().requires_grad_(t < self.last)
            decoded = self.decode(leaf)
        mixture = self.mix(t, _detached(decoded))
        if t == self.last:
            return mixture, None
        (gradient,) = torch.autograd.grad(decoded, leaf, mixture.nll_gradients())
        return mixture, gradient

    def advance(self, t: int, view: View, parameters: Tensor, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        with torch.no_grad():
            return self.refine(t, view.mixture, parameters, gradient, state)


class Recompute(Evaluation):
    """Keeps lambda and does each step again in the backward pass: the published gradient, one more decoding a step."""

    def __init__(self, parts: Parts, images: Tensor, noise: Tensor, inner_batch: int) -> None:
        super().__init__(parts, images, noise, inner_batch)
        self.nll: list[Tensor] = []

    def look(self, t: int, latents: Tensor) -> tuple[PixelMixture, Tensor | None]:
        mixture, gradient = super().look(t, latents)
        if t == self.last:
            trained = _trained(self.parts.decoder)
            self.nll += recomputed(lambda z: (self.mix(t, self.decode(z)).nll,), (mixture.nll,), (latents,), trained)
        return mixture, gradient

    def advance(self, t: int, view: View, parameters: Tensor, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        def again(latents: Tensor, parameters: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
            mixture = self.mix(t, self.decode(latents))
            after, state_after = self.refine(t, mixture, parameters, gradient, state)
            return mixture.nll, after, *state_after

        known, known_state = super().advance(t, view, parameters, gradient, state)
        nll, after, *state_after = recomputed(
            again,
            (view.mixture.nll, known, *known_state),
            (view.latents, parameters, *state),
            _trained(self.parts.decoder, self.parts.refinement),
        )
        self.nll.append(nll)
        return after, tuple(state_after)

    def enter_graph(self, nll: Tensor) -> Tensor:
        kept, self.nll = self.nll, []  # the graph refers to this engine: it must not refer back
        return torch.stack(kept)


class Stopped(Evaluation):
    """Takes the decoder's final gradient at each step, with the inner one: nothing else goes back into the decoder.

    That gradient is step t's, times its weight in the loss, which is known: so only the sum over the steps is kept, and
    of each step the refinement network's activations.
    """

    def __init__(self, parts: Parts, images: Tensor, noise: Tensor, inner_batch: int) -> None:
        super().__init__(parts, images, noise, inner_batch)
        self.weights = step_weights(len(noise), noise)
        self.trained = _trained(parts.decoder)
        self.latents: list[Tensor] = []
        self.of_latents: list[Tensor] = []
        self.of_decoder = [torch.zeros_like(p) for p in self.trained]

    def look(self, t: int, latents: Tensor) -> tuple[PixelMixture, Tensor | None]:
        leaf = latents.detach().requires_grad_()
        decoded = self.decode(leaf)
        mixture = self.mix(t, _detached(decoded))
        weighted = self.trained if t > 0 or self.last == 0 else []  # the first state has no weight in the loss
        gradient, *of_decoder = torch.autograd.grad(decoded, (leaf, *weighted), mixture.nll_gradients())
        for total, new in zip(self.of_decoder, of_decoder, strict=False):
            total.addcmul_(new, self.weights[t])
        self.latents.append(latents)
        self.of_latents.append(gradient)
        return mixture, gradient

    def advance(self, t: int, view: View, parameters: Tensor, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        return self.refine(t, view.mixture, parameters, gradient, state)

    def enter_graph(self, nll: Tensor) -> Tensor:
        latents, self.latents = self.latents, []  # as in Recompute
        gradients = (*self.of_latents, *self.of_decoder)
        return with_known_gradients(nll, self.weights, latents, self.trained, gradients)


class StoppedRecompute(Stopped):
    """Keeps nothing image-sized: the backward pass decodes again, without a graph, and refines again, with one."""

    def advance(self, t: int, view: View, parameters: Tensor, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        latents = view.latents.detach()

        def again(parameters: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
            with torch.no_grad():
                mixture = self.mix(t, self.decode(latents))
            after, state_after = self.refine(t, mixture, parameters, gradient, state)
            return after, *state_after

        with torch.no_grad():
            known, known_state = super().advance(t, view, parameters, gradient, state)
        after, *state_after = recomputed(
            again, (known, *known_state), (parameters, *state), _trained(self.parts.refinement)
        )
        return after, tuple(state_after)


def _detached(decoded: Decoded) -> Decoded:
    return Decoded(*(x.detach() for x in decoded))


def _trained(*modules: nn.Module) -> list[Tensor]:
    return [p for module in modules for p in module.parameters() if p.requires_grad]
