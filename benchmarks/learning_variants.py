"""Variants of IODINE that no argument covers, for benchmarks/learning/questions.yaml."""

from __future__ import annotations

from functools import partial

import torch

from iodine_pl import IODINE
from iodine_pl.optim import muon


class EqualWeights(IODINE):
    """All states but the first have equal weights in the loss, instead of t/T. Only for input_gradients full."""

    def loss(self, batch, noise=None):
        result = self(batch, noise=noise)
        objective = (result.trace.nll + result.trace.kl.sum(dim=2)).mean(dim=1)  # (T+1,)
        return objective[1:].mean() * (len(objective) / 2), result.detach()  # the sum of t/T is (T+1)/2


class LastState(IODINE):
    """Only the last state is in the loss. Only for input_gradients full."""

    def loss(self, batch, noise=None):
        result = self(batch, noise=noise)
        objective = (result.trace.nll + result.trace.kl.sum(dim=2)).mean(dim=1)
        return objective[-1] * (len(objective) / 2), result.detach()


class WarmUp(IODINE):
    """The learning rate grows from zero over the first 200 updates."""

    def configure_optimizers(self):
        configured = super().configure_optimizers()
        (decay,) = self._schedule.lr_lambdas
        self._schedule.lr_lambdas = [lambda step: min(1.0, (step + 1) / 200) * decay(step)]
        return configured


class GrowingT(IODINE):
    """One refinement step for 150 updates, two for 100, then those of the configuration."""

    def on_train_batch_start(self, batch, batch_idx):
        super().on_train_batch_start(batch, batch_idx)
        step = self.global_step
        self.num_iterations = 1 if step < 150 else 2 if step < 250 else self.hparams.num_iterations


class NarrowStart(IODINE):
    """The first posterior has a variance of 0.05 instead of about 0.7: slots begin nearly alike."""

    start = -3.0

    def on_fit_start(self):
        with torch.no_grad():
            self.initial_posterior[self.latent_size :] = self.start


class WideStart(NarrowStart):
    """The first posterior has a variance of 2.1: slots begin far apart."""

    start = 2.0


class FiveOfJordan(IODINE):
    """Muon with the five steps of Jordan et al. instead of three of Polar Express."""

    coefficients = ((3.4445, -4.7750, 2.0315),) * 5

    def _make_optimizer(self, rates):
        muon.orthogonalized = partial(muon.orthogonalized, coefficients=self.coefficients)
        return super()._make_optimizer(rates)


class FourOfPolarExpress(FiveOfJordan):
    """Muon with four steps of Polar Express instead of three."""

    coefficients = (*muon.COEFFICIENTS, (3.3184196573706015, -2.488488024314874, 0.51004894012372))


class LowMomentum(IODINE):
    """Muon with a momentum of 0.9 instead of 0.95."""

    def _make_optimizer(self, rates):
        optimizer = super()._make_optimizer(rates)
        optimizer.param_groups[0]["momentum"] = 0.9
        return optimizer
