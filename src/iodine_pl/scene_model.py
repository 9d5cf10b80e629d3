"""What IODINE and its baselines share: batches in, decompositions out, the published way of training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, distributed

from iodine_pl.device import reading_waits, sent
from iodine_pl.evaluation.metrics import MeanTrace, to_device
from iodine_pl.guard import NonFiniteGuard, poison_if_nonfinite, warn_of_values
from iodine_pl.misfit import MisfitError
from iodine_pl.optim import Muon, TFAdam, learning_rate_decay, square_root_rule
from iodine_pl.posterior import keyed_normal
from iodine_pl.ranges import require
from iodine_pl.result import Decomposition, loss_terms

__all__ = ["Batch", "SceneModel"]

Batch = Mapping[str, Any]
"""``image`` (B, C, H, W) uint8 or float in [0, 1]; if known ``index`` (B,), to key the noise in evaluation; others."""

_TRAIN, _EVALUATE_IMAGE, _EVALUATE_BATCH = range(3)  # first part of the noise's key


class SceneModel(pl.LightningModule):
    """Trains and evaluates a model whose ``forward`` gives a :class:`Decomposition` and whose ``loss`` trains it.

    The arguments are those of :class:`iodine_pl.IODINE`, described there.
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
        decay: Literal["exponential", "cosine"] = "exponential",
        decay_factor: float = 0.1,
        decay_steps: int = 1_000_000,
        gradient_clip_norm: float | None = 5.0,
        max_skipped_updates: int = 20,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if optimizer not in ("tf_adam", "adam", "muon"):
            raise ValueError(f"optimizer must be 'tf_adam', 'adam' or 'muon', got {optimizer!r}")
        if adam_learning_rate is not None and optimizer != "muon":
            raise ValueError(f"adam_learning_rate is for optimizer='muon'; {optimizer!r} has learning_rate alone")
        require("at least 1", batch_size=batch_size, reference_batch_size=reference_batch_size, decay_steps=decay_steps)
        require("positive", gradient_clip_norm=gradient_clip_norm, decay_factor=decay_factor)
        require("not negative", learning_rate=learning_rate, adam_learning_rate=adam_learning_rate, seed=seed)
        require("not negative", adam_epsilon=adam_epsilon)
        require("at least 0 and below 1", betas=betas)
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.reference_batch_size = reference_batch_size
        self.optimizer = optimizer
        self.betas = (betas[0], betas[1])
        self.adam_epsilon = adam_epsilon
        self.adam_learning_rate = adam_learning_rate
        self.decay = learning_rate_decay(decay, decay_factor, decay_steps)
        self.gradient_clip_norm = gradient_clip_norm
        self.seed = seed
        self.guard = NonFiniteGuard(max_skipped_updates)
        self.image_channels = 3
        self.takes_sequences = False
        self.takes_gray = True
        self.num_iterations = 0
        self.evaluation_iterations: int | None = None
        self._looked = False
        self._evaluation: list[MeanTrace] = []
        self._schedule: torch.optim.lr_scheduler.LambdaLR | None = None

    @abstractmethod
    def forward(
        self,
        batch: Batch | Tensor,
        num_slots: int | None = None,
        num_iterations: int | None = None,
        noise: Tensor | None = None,
        return_steps: bool = False,
    ) -> Decomposition:
        """Decomposes a batch of images, with K and T of the model where they are not given."""

    @abstractmethod
    def loss(self, batch: Batch | Tensor, noise: Tensor | None = None) -> tuple[Tensor, Decomposition]:
        """Returns the training loss with its graph, and the decomposition without one."""

    @abstractmethod
    def noise_shape(
        self, batch_size: int, num_slots: int | None = None, num_iterations: int | None = None
    ) -> tuple[int, ...]:
        """Returns the shape of ``noise`` for a batch; its axis 1 is the batch."""

    @property
    def iterations(self) -> int:
        """T of the mode that the module is in: training or evaluation."""
        in_evaluation = self.num_iterations if self.evaluation_iterations is None else self.evaluation_iterations
        return self.num_iterations if self.training else in_evaluation

    def images(self, batch: Batch | Tensor) -> Tensor:
        """Returns the images of a batch, ``(B, C, H, W)`` in [0, 1], in the parameters' floating type.

        The first float images are looked at, and a warning says if they are not in [0, 1].

        Raises:
            TypeError: if there is no tensor, it is neither uint8 nor float, or the parameters are of a short type.
            ValueError: if it is not ``(B, C, H, W)`` with the C that this model was made for, or, where the model takes
                sequences, ``(B, T+1, C, H, W)``.
        """
        images = batch["image"] if isinstance(batch, Mapping) else batch
        if not isinstance(images, Tensor) or not (images.is_floating_point() or images.dtype == torch.uint8):
            kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise TypeError(f"{type(self).__name__} takes uint8 images or float images in [0, 1], got {kind}")
        sizes = (4, 5) if self.takes_sequences else (4,)
        if images.ndim not in sizes or images.shape[-3] != self.image_channels:
            raise ValueError(
                f"{type(self).__name__} takes images (B, {self.image_channels}, H, W), got {tuple(images.shape)}; "
                "move the channels to axis 1, or make the model with image_channels=..."
            )
        dtype = next(self.parameters()).dtype
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"{type(self).__name__} has {dtype} parameters, too coarse for a likelihood: call .float(); for fast "
                'convolutions use autocast, Trainer(precision="bf16-mixed")'
            )
        if images.dtype == torch.uint8:
            return images.to(dtype) / 255
        self._look_once(images)
        return images.to(dtype)

    def _look_once(self, images: Tensor) -> None:
        if self._looked or torch.compiler.is_compiling() or images.is_meta or not images.numel():
            return
        self._looked = True
        warn_of_values(images, type(self).__name__, binary=not self.takes_gray)

    # Training

    def training_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        shape = self.noise_shape(_number_of_images(batch))
        noise = keyed_normal(shape, self.seed, _TRAIN, self.global_rank, self.current_epoch, batch_idx)
        loss, result = self.loss(batch, noise=sent(noise, self.device))
        self.guard.watch(result.trace)
        nll, kl, mse = result.trace
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        shown = every > 0 and (self.trainer.global_step + 1) % every == 0  # what is logged between is not kept
        terms = loss_terms(nll.mean(1), kl.sum(2).mean(1), mse.mean(1))  # each (T+1,)
        self._log_terms("train", terms, with_steps=shown)
        self.log("train/loss", loss.detach(), prog_bar=True)
        return poison_if_nonfinite(loss)

    @property
    def lr(self) -> float:
        """``learning_rate`` by the square-root rule for this Trainer; Lightning's ``Tuner.lr_find`` sets it."""
        return self.learning_rate * self._learning_rate_scale()[0]

    @lr.setter
    def lr(self, rate: float) -> None:
        self.learning_rate = rate / self._learning_rate_scale()[0]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        scale, origin = self._learning_rate_scale()
        rates = [rate * scale for rate in self._learning_rates()]
        rank_zero_info(f"Learning rate {' and '.join(f'{rate:.3g}' for rate in rates)}{origin}.")
        optimizer = self._make_optimizer(rates)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.decay)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self._schedule, "interval": "step"}}

    def _make_optimizer(self, rates: list[float]) -> torch.optim.Optimizer:
        if self.optimizer == "muon":
            rate, adam_rate = rates
            shared = self._trainer is not None and isinstance(self._trainer.strategy, DDPStrategy)
            return Muon(self.parameters(), rate, adam_rate, betas=self.betas, eps=self.adam_epsilon, shared=shared)
        if self.optimizer == "adam":
            return torch.optim.Adam(self.parameters(), rates[0], betas=self.betas, eps=self.adam_epsilon, foreach=True)
        return TFAdam(self.parameters(), rates[0], betas=self.betas, eps=self.adam_epsilon)

    def _learning_rates(self) -> list[float]:
        """Returns the learning rate of each of the optimizer's groups, at the reference batch size."""
        if self.optimizer != "muon":
            return [self.learning_rate]
        return [self.learning_rate, self.learning_rate if self.adam_learning_rate is None else self.adam_learning_rate]

    def _learning_rate_scale(self) -> tuple[float, str]:
        """Returns the factor of the learning rate for this Trainer's global batch, and how it came about."""
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
        """Holds to the learning rate of this model and Trainer: a checkpoint brings that of those who wrote it."""
        schedule = self._schedule
        if schedule is None or self.lr_schedulers() is not schedule:
            return  # a subclass has its own
        scale, _ = self._learning_rate_scale()
        schedule.base_lrs = [rate * scale for rate in self._learning_rates()]
        for group, rate, decay in zip(
            schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
        ):
            group["initial_lr"] = rate
            group["lr"] = rate * decay(schedule.last_epoch)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips by global norm: the Trainer's ``gradient_clip_val``, else the model's. Drops a non-finite update."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self.log("train/gradient_norm", norm)
        if reading_waits(norm):
            norm = self.guard.hold(norm, self, optimizer)
        elif self.guard.must_skip(norm, self):
            for p in self.parameters():
                p.grad = None  # the optimizer passes over a parameter without gradient, moments and all
        if gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            limit = self.gradient_clip_norm if gradient_clip_val is None else gradient_clip_val
            if limit is not None:
                torch.nn.utils.clip_grads_with_norm_(self.parameters(), limit, norm)
        self.log("train/skipped_updates", float(self.guard.skipped))

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        super().optimizer_step(*arguments, **named)
        self.guard.settle()

    def on_train_end(self) -> None:
        self.guard.read()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.guard.read()  # the checkpoint refers to the optimizer's counters: what this takes back is gone there too
        checkpoint["nonfinite_guard"] = self.guard.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "nonfinite_guard" in checkpoint:
            self.guard.load_state_dict(checkpoint["nonfinite_guard"])
        if "optimizer_states" not in checkpoint:  # weights alone: a new training begins with them
            checkpoint |= {"optimizer_states": [], "lr_schedulers": []}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads weights, as every module does.

        Raises:
            MisfitError: if they do not fit, which says in one line what differs first.
        """
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError as error:
            raise MisfitError.between(self.state_dict(), state_dict, error) from error

    # Evaluation

    def on_validation_epoch_start(self) -> None:
        self._start_evaluation()

    def on_test_epoch_start(self) -> None:
        self._start_evaluation()

    # Lightning hands what these return to the callbacks, whatever it is; its types are narrower.
    def validation_step(self, batch: Batch | Tensor, batch_idx: int) -> Decomposition:  # type: ignore[override]
        return self._evaluate(batch, batch_idx)

    def test_step(self, batch: Batch | Tensor, batch_idx: int) -> Decomposition:  # type: ignore[override]
        return self._evaluate(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self._log_terms("val", self._evaluation[0].compute())

    def on_test_epoch_end(self) -> None:
        self._log_terms("test", self._evaluation[0].compute())

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Decomposition:
        return self.decompose(batch, batch_idx)

    def decompose(
        self,
        batch: Batch | Tensor,
        batch_idx: int = 0,
        *,
        num_slots: int | None = None,
        num_iterations: int | None = None,
        return_steps: bool = False,
        run: int = 0,
    ) -> Decomposition:
        """Decomposes images as evaluation does, with :meth:`evaluation_noise`.

        Args:
            batch: as in ``forward``.
            batch_idx: position of the batch, which keys the noise where the batch has no ``index``.
            num_slots, num_iterations, return_steps: as in ``forward``.
            run: another number, other noise.
        """
        noise = self.evaluation_noise(batch, batch_idx, num_slots, num_iterations, run)
        result: Decomposition = self(batch, num_slots, num_iterations, noise, return_steps)
        return result

    def evaluation_noise(
        self,
        batch: Batch | Tensor,
        batch_idx: int,
        num_slots: int | None = None,
        num_iterations: int | None = None,
        run: int = 0,
    ) -> Tensor:
        """Returns noise that is a function of the model's seed and the image: see :meth:`decompose`.

        It is keyed by the image's ``index`` where the batch has it: then no result depends on the batching.
        """
        size = (num_slots, num_iterations)
        again = (run,) if run else ()
        if isinstance(batch, Mapping) and "index" in batch:
            shape = self.noise_shape(1, *size)
            draws = [keyed_normal(shape, self.seed, _EVALUATE_IMAGE, int(i), *again) for i in batch["index"].tolist()]
            return sent(torch.cat(draws, dim=1), self.device)
        shape = self.noise_shape(_number_of_images(batch), *size)
        return sent(keyed_normal(shape, self.seed, _EVALUATE_BATCH, self.global_rank, batch_idx, *again), self.device)

    def _start_evaluation(self) -> None:
        # Kept in a list, so that it is no part of the model.
        self._evaluation = [to_device(MeanTrace(self.iterations), self.device)]

    def _evaluate(self, batch: Batch | Tensor, batch_idx: int) -> Decomposition:
        result = self.predict_step(batch, batch_idx)
        self._evaluation[0].update(result.trace)
        return result

    def _log_terms(self, stage: str, terms: Mapping[str, Tensor], with_steps: bool = True) -> None:
        """Logs the last state's terms under ``stage/``, those of every refinement step under ``stage_steps/``."""
        terms = {name: values.flatten() for name, values in terms.items()}  # torchmetrics makes a number of one step
        scalars = {f"{stage}/{name}": values[-1] for name, values in terms.items()}
        for name, values in terms.items() if with_steps else ():
            scalars |= {f"{stage}_steps/{name}_{t}": value for t, value in enumerate(values)}
        # In evaluation the values are already the same on all processes; Lightning wants to hear it.
        self.log_dict({name: value.float() for name, value in scalars.items()}, sync_dist=stage != "train")


def _processes() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _number_of_images(batch: Batch | Tensor) -> int:
    return len(batch["image"] if isinstance(batch, Mapping) else batch)
