"""Optimization as published: optimizer, learning rate, clipping, and skipped non-finite updates."""

from __future__ import annotations

from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import distributed

from iodine_pl.device import reading_waits
from iodine_pl.errors import require
from iodine_pl.optim import Muon, TFAdam, learning_rate_decay, square_root_rule
from iodine_pl.optim.guard import NonFiniteGuard

__all__ = ["OptimizedModule"]


class OptimizedModule(pl.LightningModule):
    """Optimizes whatever loss ``training_step`` returns.

    Args:
        learning_rate: at the reference batch size. The paper has 3e-4.
        batch_size: images per device, for the square-root rule; None: the learning rate is taken as it is.
        reference_batch_size: of the square-root rule.
        optimizer: ``tf_adam``: Adam with TensorFlow's epsilon, as in the code; ``adam``: torch's; ``muon``: Muon for
            matrices and kernels, ``tf_adam`` for all else (see :class:`iodine_pl.optim.Muon`).
        betas, adam_epsilon: of Adam.
        adam_learning_rate: of the parameters that ``muon`` leaves to Adam; None: ``learning_rate``.
        weight_decay: of the matrices under ``muon``; an update shrinks them by the learning rate times this.
        decay: of the learning rate (see :func:`iodine_pl.optim.learning_rate_decay`).
        decay_factor: of ``exponential``.
        decay_steps: updates over which the learning rate falls by that factor, or along the whole ``cosine``.
        gradient_clip_norm: largest norm of all gradients together; None: they are not clipped.
        max_skipped_updates: number of consecutive updates that may be skipped because of a non-finite loss or gradient;
            one more ends the training.

    Raises:
        ValueError: for an unknown name or a number out of its range.
    """

    def __init__(
        self,
        learning_rate: float = 3e-4,
        batch_size: int | None = None,
        reference_batch_size: int = 256,
        optimizer: Literal["tf_adam", "adam", "muon"] = "tf_adam",
        betas: tuple[float, float] = (0.95, 0.999),
        adam_epsilon: float = 1e-8,
        adam_learning_rate: float | None = None,
        weight_decay: float = 0.0,
        decay: Literal["exponential", "cosine"] = "exponential",
        decay_factor: float = 0.1,
        decay_steps: int = 1_000_000,
        gradient_clip_norm: float | None = 5.0,
        max_skipped_updates: int = 20,
    ) -> None:
        super().__init__()
        if optimizer not in ("tf_adam", "adam", "muon"):
            raise ValueError(f"optimizer must be 'tf_adam', 'adam' or 'muon', got {optimizer!r}")
        if adam_learning_rate is not None and optimizer != "muon":
            raise ValueError(f"adam_learning_rate is for optimizer='muon'; {optimizer!r} has learning_rate alone")
        if weight_decay and optimizer != "muon":
            raise ValueError(f"weight_decay is for optimizer='muon', got it for {optimizer!r}")
        require("at least 1", batch_size=batch_size, reference_batch_size=reference_batch_size, decay_steps=decay_steps)
        require("positive", gradient_clip_norm=gradient_clip_norm, decay_factor=decay_factor)
        require("not negative", learning_rate=learning_rate, adam_learning_rate=adam_learning_rate)
        require("not negative", adam_epsilon=adam_epsilon, weight_decay=weight_decay)
        require("at least 0 and below 1", betas=betas)
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.reference_batch_size = reference_batch_size
        self.optimizer = optimizer
        self.betas = (betas[0], betas[1])
        self.adam_epsilon = adam_epsilon
        self.adam_learning_rate = adam_learning_rate
        self.weight_decay = weight_decay
        self.decay = learning_rate_decay(decay, decay_factor, decay_steps)
        self.gradient_clip_norm = gradient_clip_norm
        self.guard = NonFiniteGuard(max_skipped_updates)
        self._schedule: torch.optim.lr_scheduler.LambdaLR | None = None
        self._settings: list[dict[str, Any]] = []

    @property
    def lr(self) -> float:
        """``learning_rate`` by the square-root rule for this Trainer; Lightning's ``Tuner.lr_find`` sets it."""
        return self.learning_rate * self._learning_rate_scale()[0]

    @lr.setter
    def lr(self, rate: float) -> None:
        self.learning_rate = rate / self._learning_rate_scale()[0]

    @property
    def logged_now(self) -> bool:
        """Whether the logger records this update; logging at other updates would only cost time."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and (self.trainer.global_step + 1) % every == 0

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        scale, origin = self._learning_rate_scale()
        rates = [rate * scale for rate in self._learning_rates()]
        rank_zero_info(f"Learning rate {' and '.join(f'{rate:.3g}' for rate in rates)}{origin}.")
        optimizer = self._make_optimizer(rates)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.decay)
        self._settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self._schedule, "interval": "step"}}

    def _make_optimizer(self, rates: list[float]) -> torch.optim.Optimizer:
        if self.optimizer == "muon":
            rate, adam_rate = rates
            shared = self._trainer is not None and isinstance(self._trainer.strategy, DDPStrategy)
            return Muon(
                self.parameters(),
                rate,
                adam_rate,
                weight_decay=self.weight_decay,
                betas=self.betas,
                eps=self.adam_epsilon,
                shared=shared,
            )
        if self.optimizer == "adam":
            return torch.optim.Adam(self.parameters(), rates[0], betas=self.betas, eps=self.adam_epsilon, foreach=True)
        return TFAdam(self.parameters(), rates[0], betas=self.betas, eps=self.adam_epsilon)

    def _learning_rates(self) -> list[float]:
        """Returns the learning rate of each of the optimizer's groups, at the reference batch size."""
        if self.optimizer != "muon":
            return [self.learning_rate]
        return [self.learning_rate, self.learning_rate if self.adam_learning_rate is None else self.adam_learning_rate]

    def _learning_rate_scale(self) -> tuple[float, str]:
        """Returns the factor of the learning rate for this Trainer's global batch, and its formula for the message."""
        if self.batch_size is None:
            return 1.0, ", not scaled: give the model its batch_size to scale it"
        trainer = self._trainer
        devices, micro_batches = (trainer.world_size, trainer.accumulate_grad_batches) if trainer else (_processes(), 1)
        images = self.batch_size * devices * micro_batches
        return square_root_rule(1.0, images, self.reference_batch_size), (
            f" = {' and '.join(f'{rate:g}' for rate in self._learning_rates())} x sqrt({images} images an update / "
            f"{self.reference_batch_size}): {self.batch_size} per device, {devices} device(s), {micro_batches} "
            "micro-batch(es)"
        )

    def on_train_start(self) -> None:
        """Restores the optimizer's settings of this model and Trainer, which loading a checkpoint has overwritten."""
        schedule = self._schedule
        if schedule is None or self.lr_schedulers() is not schedule:
            return  # a subclass has its own
        schedule.base_lrs = [own["initial_lr"] for own in self._settings]
        for group, own, decay in zip(schedule.optimizer.param_groups, self._settings, schedule.lr_lambdas, strict=True):
            group.update(own | {"lr": own["initial_lr"] * decay(schedule.last_epoch)})

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips by global norm: the Trainer's ``gradient_clip_val``, else the model's. Drops a non-finite update."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.logged_now:
            self.log("train/gradient_norm", norm)
        if reading_waits(norm):
            norm = self.guard.hold(norm, self, optimizer)
        elif self.guard.must_skip(norm, self):
            for p in self.parameters():
                p.grad = None  # the optimizer skips a parameter without gradient, and its moments
        if gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            limit = self.gradient_clip_norm if gradient_clip_val is None else gradient_clip_val
            if limit is not None:
                torch.nn.utils.clip_grads_with_norm_(self.parameters(), limit, norm)
        if self.logged_now:
            self.log("train/skipped_updates", float(self.guard.skipped))

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        super().optimizer_step(*arguments, **named)
        self.guard.settle()

    def on_train_end(self) -> None:
        self.guard.read()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.guard.read()  # may undo the optimizer's counters, which the checkpoint shares
        checkpoint["nonfinite_guard"] = self.guard.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "nonfinite_guard" in checkpoint:
            self.guard.load_state_dict(checkpoint["nonfinite_guard"])
        if "optimizer_states" not in checkpoint:  # only weights: a new training starts from them
            checkpoint |= {"optimizer_states": [], "lr_schedulers": []}


def _processes() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
