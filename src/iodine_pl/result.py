"""What a model returns for a batch of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from iodine_pl.autograd import refusing_gradients

__all__ = ["Decomposition", "Trace", "loss_terms"]


class Trace(NamedTuple):
    """Holds the terms of the loss at every refinement step, the initial state first."""

    nll: Tensor
    """``(T+1, B)`` nats."""
    kl: Tensor
    """``(T+1, B, K)`` nats."""
    mse: Tensor
    """``(T+1, B)`` mean over pixels and channels of the squared error of the reconstruction."""

    def detach(self) -> Trace:
        """Returns the same numbers without their graph."""
        return Trace(*(x.detach() for x in self))


def loss_terms(nll: Tensor, kl: Tensor, mse: Tensor) -> dict[str, Tensor]:
    """Returns the terms of the loss and the ELBO by their logged names; ``kl`` is already summed over slots."""
    return {"nll": nll, "kl": kl, "elbo": -nll - kl, "mse": mse}


class Decomposition(NamedTuple):
    """Holds the model's decomposition of a batch after the last refinement step."""

    mean: Tensor
    """Posterior mean of every slot, ``(B, K, D)``."""
    std: Tensor
    """Posterior standard deviation, ``(B, K, D)``."""
    latents: Tensor
    """The sample z that was decoded, ``(B, K, D)``."""
    masks: Tensor
    """m, ``(B, K, H, W)``, positive, sums to 1 over K."""
    means: Tensor
    """Mean image of every slot, ``(B, K, C, H, W)``; not squashed, may leave [0, 1]."""
    reconstruction: Tensor
    """sum_k m_k mu_k, ``(B, C, H, W)``."""
    nll: Tensor
    """Negative log-likelihood of each image in nats, ``(B,)``."""
    kl: Tensor
    """KL(posterior || prior) of each slot in nats, ``(B, K)``."""
    trace: Trace
    """The terms of the loss at every refinement step; in an entry of ``steps`` only those of that step."""
    steps: tuple[Decomposition, ...] = ()
    """With ``return_steps`` the decomposition at every refinement step, T + 1 of them, the initial state first."""

    responsibilities: Tensor | None = None
    """r, each slot's share m_k p_k / sum_j m_j p_j in the density of a pixel, ``(B, K, H, W)``, sums to 1 over K. If
    they segment better than the masks, slots share pixels to hedge over the possible values."""

    @property
    def elbo(self) -> Tensor:
        """``-nll - sum_k kl``, ``(B,)`` nats."""
        return -self.nll - self.kl.sum(dim=1)

    def select(self, images: slice) -> Decomposition:
        """Returns the decomposition of some of the images; fields that are None stay so."""
        trace = self.trace and Trace(*(x[:, images] for x in self.trace))
        tensors = {name: x[images] for name, x in self._tensors().items()}
        return self._replace(**tensors, trace=trace, steps=tuple(step.select(images) for step in self.steps))

    def detach(self) -> Decomposition:
        """Returns the same numbers without their graph."""
        return self._mapped(Tensor.detach)

    def clone(self) -> Decomposition:
        """Returns a copy in memory of its own."""
        return self._mapped(Tensor.clone)

    def refusing_gradients(self, reason: str) -> Decomposition:
        """Returns the same numbers, but a loss that uses images, masks or a likelihood without a graph raises.

        Args:
            reason: message of the RuntimeError.
        """
        outside = {name: x for name, x in self._tensors().items() if not x.requires_grad}
        refusing = {name: refusing_gradients(x, self.latents, reason) for name, x in outside.items()}
        mse = self.trace.mse
        trace = self.trace._replace(mse=mse if mse.requires_grad else refusing_gradients(mse, self.latents, reason))
        return self._replace(**refusing, trace=trace, steps=tuple(x.refusing_gradients(reason) for x in self.steps))

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> Decomposition:
        tensors = {name: function(x) for name, x in self._tensors().items()}
        trace = Trace(*map(function, self.trace))
        return self._replace(**tensors, trace=trace, steps=tuple(step._mapped(function) for step in self.steps))

    def _tensors(self) -> dict[str, Tensor]:
        return {name: x for name, x in self._asdict().items() if isinstance(x, Tensor)}
