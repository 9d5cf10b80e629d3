"""One step of Algorithm 1, and five ways to differentiate it, which differ in what they keep for the backward pass.

``tests/plain.py`` has the plain form, with every gradient by autograd. The engines must give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from iodine_pl.autograd import recomputed, with_known_gradients
from iodine_pl.decoder import Decoded, Decoder
from iodine_pl.mixture import PixelMixture
from iodine_pl.posterior import Posterior
from iodine_pl.refinement import LSTMState, RefinementInputs, RefinementNetwork
from iodine_pl.result import Decomposition, Trace

__all__ = [
    "Engine",
    "Evaluation",
    "Full",
    "Networks",
    "Recompute",
    "State",
    "Stopped",
    "StoppedRecompute",
    "View",
    "step_weights",
]


class Networks(NamedTuple):
    """Holds what the model uses in every step."""

    decoder: Decoder
    refinement: RefinementNetwork
    likelihood: Callable[[Tensor, Decoded], PixelMixture]
    """Makes the mixture of images ``(B, C, H, W)`` and the decoder's output."""
    prior_scale: float
    mask_posterior_epsilon: float


class State(NamedTuple):
    """Holds what a step passes on to the next."""

    parameters: Tensor
    """lambda, ``(B, K, 2D)``."""
    lstm: LSTMState = ()


class View(NamedTuple):
    """Holds what a step decodes from the posterior."""

    posterior: Posterior
    latents: Tensor
    """z, ``(B, K, D)``."""
    mixture: PixelMixture
    kl: Tensor
    """``(B, K)`` nats."""

    def trace(self) -> Trace:
        """Returns this step's terms of the loss."""
        seen = self.mixture
        mse = (seen.reconstruction - seen.image.squeeze(1)).square().mean(dim=(1, 2, 3))
        return Trace(seen.nll.unsqueeze(0), self.kl.unsqueeze(0), mse.unsqueeze(0))

    def decomposition(self) -> Decomposition:
        """Returns the decomposition of this step."""
        posterior, latents, seen, kl = self
        trace = self.trace()
        return Decomposition(
            mean=posterior.mean,
            std=posterior.std,
            latents=latents,
            masks=seen.masks,
            means=seen.means,
            reconstruction=seen.reconstruction,
            nll=trace.nll.squeeze(0),
            kl=kl,
            trace=trace,
            responsibilities=seen.responsibilities,
        )


def step_weights(states: int, like: Tensor) -> Tensor:
    """Returns the weights t/T of the states t = 0 .. T in the loss, ``(T+1,)``; 1 where T = 0.

    Example:
        >>> step_weights(5, like=torch.zeros(()))
        tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """
    return torch.linspace(1, 0, states, dtype=like.dtype, device=like.device).flip(0)


class Engine:
    """Refines the posterior of a batch of images, step by step. A subclass decides which activations are kept.

    Images whose activations are not kept have no graph; :meth:`decoded_again` gives them one.

    Args:
        networks: of the model.
        images: x, ``(B, C, H, W)``, or ``(B, T+1, C, H, W)``: a frame for each step.
        noise: ``(T+1, B, K, D)``, standard normal.
        inner_batch: B in the mean over the batch that the inner gradient differentiates.

    References:
        | Multi-Object Representation Learning with Iterative Variational Inference, Algorithm 1 (Greff et al. 2019)
        | https://arxiv.org/abs/1903.00450
    """

    images_in_graph = False
    """Whether the masks and means of a step have a graph to the parameters."""

    def __init__(self, networks: Networks, images: Tensor, noise: Tensor, inner_batch: int) -> None:
        self.networks = networks
        self.images = images
        self.noise = noise
        self.inner_batch = inner_batch
        self.last = len(noise) - 1  # T

    def step(self, t: int, state: State) -> tuple[View, State]:
        """Returns what step ``t`` decodes, t = 0 .. T, and the state after it; the last step does not change it."""
        parameters = state.parameters  # lambda, (B, K, 2D)
        if not parameters.requires_grad:
            parameters = parameters.detach().requires_grad_()
        posterior = Posterior(parameters)
        latents, kl = posterior.rsample(self.noise[t]), posterior.kl(self.networks.prior_scale)  # (B, K, D), (B, K)
        mixture, of_latents = self.observe(t, latents)
        view = View(posterior, latents, mixture, kl)
        state = State(parameters, state.lstm)
        if t == self.last:
            return view, state
        (gradient,) = torch.autograd.grad(
            (latents, kl), parameters, (of_latents, torch.ones_like(kl)), retain_graph=True
        )  # of the summed NLL + KL, (B, K, 2D)
        return view, self.advance(t, view, gradient, state)

    def observe(self, t: int, latents: Tensor) -> tuple[PixelMixture, Tensor | None]:
        """Decodes latents (B, K, D), and differentiates the likelihood.

        Returns:
            The mixture, and the gradient of the summed NLL with respect to the latents; None where the last step does
            not need it.
        """
        raise NotImplementedError

    def advance(self, t: int, view: View, gradient: Tensor, state: State) -> State:
        """Returns the state after a step, with the graph of :meth:`refine`."""
        return self.refine(t, view.mixture, gradient, state)

    def enter_graph(self, nll: Tensor) -> Tensor:
        """Returns the NLL of all steps, ``(T+1, B)``, with its final graph."""
        return nll

    # The same in all engines

    def decoded_again(self, t: int, view: View) -> View:
        """Decodes step ``t`` again, with a graph and all activations."""
        return view._replace(mixture=self.mix(t, self.decode(view.latents)))

    def decode(self, latents: Tensor) -> Decoded:
        decoded: Decoded = self.networks.decoder(latents, *self.images.shape[-2:])
        return decoded

    def frame(self, t: int) -> Tensor:
        """Returns the images of step ``t``, ``(B, C, H, W)``."""
        return self.images if self.images.ndim == 4 else self.images[:, t]

    def mix(self, t: int, decoded: Decoded) -> PixelMixture:
        return self.networks.likelihood(self.frame(t), decoded)

    def refine(self, t: int, mixture: PixelMixture, gradient: Tensor, state: State) -> State:
        """Returns the next state, differentiable in all arguments; ``gradient`` is that of NLL + KL for lambda."""
        mask_gradient, mean_gradient = mixture.nll_gradients()
        inputs = RefinementInputs(
            image=self.frame(t),
            means=mixture.means,
            masks=mixture.masks,
            mask_logits=mixture.mask_logits,
            mask_posterior=mixture.mask_posterior(self.networks.mask_posterior_epsilon),
            mean_gradient=mean_gradient / self.inner_batch,
            mask_gradient=mask_gradient / self.inner_batch,
            log_likelihood=mixture.log_prob,
            leave_one_out=mixture.leave_one_out(),
            posterior=state.parameters,
            posterior_gradient=gradient / self.inner_batch,
        )
        update, lstm = self.networks.refinement(inputs, state.lstm)
        return State(state.parameters + update, lstm)


class Full(Engine):
    """Keeps every activation and backpropagates through all steps: the published gradient."""

    images_in_graph = True

    def observe(self, t: int, latents: Tensor) -> tuple[PixelMixture, Tensor | None]:
        decoded = self.decode(latents)
        mixture = self.mix(t, decoded)
        if t == self.last:
            return mixture, None
        (gradient,) = torch.autograd.grad(decoded, latents, mixture.nll_gradients(), retain_graph=True)
        return mixture, gradient


class Evaluation(Engine):
    """Keeps the activations of one step at a time, without a graph to the networks' parameters."""

    def observe(self, t: int, latents: Tensor) -> tuple[PixelMixture, Tensor | None]:
        with torch.set_grad_enabled(t < self.last):
            leaf = latents.detach().requires_grad_(t < self.last)
            decoded = self.decode(leaf)
        mixture = self.mix(t, _detached(decoded))
        if t == self.last:
            return mixture, None
        (gradient,) = torch.autograd.grad(decoded, leaf, mixture.nll_gradients())
        return mixture, gradient

    def advance(self, t: int, view: View, gradient: Tensor, state: State) -> State:
        with torch.no_grad():
            return self.refine(t, view.mixture, gradient, state)


class Recompute(Evaluation):
    """Keeps only lambda and repeats each step in the backward pass: the published gradient, two decodings per step."""

    def __init__(self, networks: Networks, images: Tensor, noise: Tensor, inner_batch: int) -> None:
        super().__init__(networks, images, noise, inner_batch)
        self.nll: list[Tensor] = []

    def observe(self, t: int, latents: Tensor) -> tuple[PixelMixture, Tensor | None]:
        mixture, gradient = super().observe(t, latents)
        if t == self.last:
            trained = _trained(self.networks.decoder)
            self.nll += recomputed(lambda z: (self.mix(t, self.decode(z)).nll,), (mixture.nll,), (latents,), trained)
        return mixture, gradient

    def advance(self, t: int, view: View, gradient: Tensor, state: State) -> State:
        def again(latents: Tensor, parameters: Tensor, *lstm: Tensor) -> tuple[Tensor, ...]:
            mixture = self.mix(t, self.decode(latents))
            after = self.refine(t, mixture, gradient, State(parameters, lstm))
            return mixture.nll, after.parameters, *after.lstm

        known = super().advance(t, view, gradient, state)
        nll, parameters, *lstm = recomputed(
            again,
            (view.mixture.nll, known.parameters, *known.lstm),
            (view.latents, state.parameters, *state.lstm),
            _trained(self.networks.decoder, self.networks.refinement),
        )
        self.nll.append(nll)
        return State(parameters, tuple(lstm))

    def enter_graph(self, nll: Tensor) -> Tensor:
        kept, self.nll = self.nll, []  # avoids a reference cycle with the graph
        return torch.stack(kept)  # (T+1, B)


class Stopped(Engine):
    """Computes the decoder's part of the final gradient at each step, together with the inner gradient.

    The inputs of the refinement network send no gradient into the decoder. Its gradient is therefore the sum of those
    of all steps, times their known weights in the loss. Only this sum and the refinement network's activations are
    kept.
    """

    def __init__(self, networks: Networks, images: Tensor, noise: Tensor, inner_batch: int) -> None:
        super().__init__(networks, images, noise, inner_batch)
        self.weights = step_weights(len(noise), noise)
        self.trained = _trained(networks.decoder)
        self.latents: list[Tensor] = []
        self.of_latents: list[Tensor] = []
        self.of_decoder = [torch.zeros_like(p) for p in self.trained]

    def observe(self, t: int, latents: Tensor) -> tuple[PixelMixture, Tensor | None]:
        leaf = latents.detach().requires_grad_()
        decoded = self.decode(leaf)
        mixture = self.mix(t, _detached(decoded))
        weighted = self.trained if t > 0 or self.last == 0 else []  # the first state has no weight in the loss
        gradient, *of_decoder = torch.autograd.grad(decoded, (leaf, *weighted), mixture.nll_gradients())
        if of_decoder:
            torch._foreach_add_(self.of_decoder, of_decoder, alpha=t / self.last if self.last else 1.0)
        self.latents.append(latents)
        self.of_latents.append(gradient)
        return mixture, gradient

    def enter_graph(self, nll: Tensor) -> Tensor:
        latents, self.latents = self.latents, []  # as in Recompute
        gradients = (*self.of_latents, *self.of_decoder)
        return with_known_gradients(nll, self.weights, latents, self.trained, gradients)


class StoppedRecompute(Stopped):
    """Keeps no image-sized tensor: the backward pass decodes again without a graph, and refines again with one."""

    def advance(self, t: int, view: View, gradient: Tensor, state: State) -> State:
        latents = view.latents.detach()

        def again(parameters: Tensor, *lstm: Tensor) -> tuple[Tensor, ...]:
            with torch.no_grad():
                mixture = self.mix(t, self.decode(latents))
            after = self.refine(t, mixture, gradient, State(parameters, lstm))
            return after.parameters, *after.lstm

        with torch.no_grad():
            known = super().advance(t, view, gradient, state)
        parameters, *lstm = recomputed(
            again,
            (known.parameters, *known.lstm),
            (state.parameters, *state.lstm),
            _trained(self.networks.refinement),
        )
        return State(parameters, tuple(lstm))


def _detached(decoded: Decoded) -> Decoded:
    return Decoded(*(x.detach() for x in decoded))


def _trained(*modules: nn.Module | Decoder) -> list[Tensor]:
    return [p for module in modules for p in module.parameters() if p.requires_grad]
