"""IODINE with one thing changed that is no argument of it, for benchmarks/learning/questions.yaml."""

from __future__ import annotations

from functools import partial

import torch

from iodine_pl import IODINE, optim


class EqualWeights(IODINE):
    """All states but the first count the same in the loss, in place of t/T. For input_gradients full alone."""

    def loss(self, batch, noise=None):
        result = self(batch, noise=noise)
        objective = (result.trace.nll + result.trace.kl.sum(dim=2)).mean(dim=1)  # (T+1,)
        return objective[1:].mean() * (len(objective) / 2), result.detach()  # the sum of t/T is (T+1)/2


class LastState(IODINE):
    """The last state alone counts in the loss. For input_gradients full alone."""

    def loss(self, batch, noise=None):
        result = self(batch, noise=noise)
        objective = (result.trace.nll + result.trace.kl.sum(dim=2)).mean(dim=1)
        return objective[-1] * (len(objective) / 2), result.detach()


class WarmUp(IODINE):
    """The learning rate grows from nothing in the first 200 updates."""

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
    """The first posterior has a variance of 0.05 in place of about 0.7: slots begin nearly alike."""

    start = -3.0

    def on_fit_start(self):
        with torch.no_grad():
            self.initial_posterior[self.latent_size :] = self.start


class WideStart(NarrowStart):
    """The first posterior has a variance of 2.1: slots begin far apart."""

    start = 2.0


class FiveOfJordan(IODINE):
    """Muon with the five steps of Jordan et al. in place of three of Polar Express."""

    coefficients = ((3.4445, -4.7750, 2.0315),) * 5

    def _make_optimizer(self, rates):
        optim.orthogonalized = partial(optim.orthogonalized, coefficients=self.coefficients)
        return super()._make_optimizer(rates)


class FourOfPolarExpress(FiveOfJordan):
    """Muon with four steps of Polar Express in place of three."""

    coefficients = (*optim.COEFFICIENTS, (3.3184196573706015, -2.488488024314874, 0.51004894012372))


class LowMomentum(IODINE):
    """Muon with a momentum of 0.9 in place of 0.95."""

    def _make_optimizer(self, rates):
        optimizer = super()._make_optimizer(rates)
        optimizer.param_groups[0]["momentum"] = 0.9
        return optimizer
