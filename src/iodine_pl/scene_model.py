"""What IODINE and its baselines share: batches in, decompositions out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from iodine_pl.device import sent
from iodine_pl.errors import ImageError, MisfitError, UnfitTypeError, require, warn_of_values
from iodine_pl.evaluation.metrics import MeanTrace, to_device
from iodine_pl.optim.guard import poison_if_nonfinite
from iodine_pl.optim.module import OptimizedModule
from iodine_pl.posterior import keyed_normal
from iodine_pl.result import Decomposition, loss_terms

__all__ = ["Batch", "SceneModel"]

Batch = Mapping[str, Any]
"""``image`` (B, C, H, W) uint8 or float in [0, 1]; optionally ``index`` (B,), which keys the noise in evaluation."""

_TRAIN, _EVALUATE_IMAGE, _EVALUATE_BATCH = range(3)  # first part of the noise's key


class SceneModel(OptimizedModule):
    """Trains and evaluates a model whose ``forward`` returns a :class:`Decomposition` and which has a ``loss``.

    Args:
        seed: of the noise, apart from that of weights and data.
        optimization: further arguments, of :class:`iodine_pl.optim.module.OptimizedModule`.
    """

    def __init__(self, seed: int = 0, **optimization: Any) -> None:
        super().__init__(**optimization)
        require("not negative", seed=seed)
        self.seed = seed
        self.image_channels = 3
        self.takes_sequences = False
        self.takes_gray = True
        self.num_iterations = 0
        self.evaluation_iterations: int | None = None
        self.trained_size: tuple[int, int] | None = None
        """(H, W) of the images of the last update; kept in checkpoints. None before any."""
        self.trained_on: Mapping[str, Any] | None = None
        """The data that the checkpoint names, ``class_path`` and ``init_args``; None if it names none."""
        self._looked = False
        self._evaluation: list[MeanTrace] = []

    @abstractmethod
    def forward(
        self,
        batch: Batch | Tensor,
        num_slots: int | None = None,
        num_iterations: int | None = None,
        noise: Tensor | None = None,
        return_steps: bool = False,
    ) -> Decomposition:
        """Decomposes a batch of images; K and T are by default those of the model."""

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
        """T in the current mode, training or evaluation."""
        in_evaluation = self.num_iterations if self.evaluation_iterations is None else self.evaluation_iterations
        return self.num_iterations if self.training else in_evaluation

    def images(self, batch: Batch | Tensor) -> Tensor:
        """Returns the images of a batch, ``(B, C, H, W)`` in [0, 1], in the parameters' floating type.

        If the first float images are not in [0, 1], it warns.

        Raises:
            UnfitTypeError: if there is no tensor, it is neither uint8 nor float, or the parameters are float16 or
                bfloat16.
            ValueError: if it is not ``(B, C, H, W)`` with the model's C, or, where the model takes sequences,
                ``(B, T+1, C, H, W)``.
        """
        images = _images_in(batch)
        if not (images.is_floating_point() or images.dtype == torch.uint8):
            raise UnfitTypeError(
                f"{type(self).__name__} takes uint8 images or float images in [0, 1], got {images.dtype}"
            )
        sizes = (4, 5) if self.takes_sequences else (4,)
        if images.ndim not in sizes or images.shape[-3] != self.image_channels:
            raise ImageError(
                f"{type(self).__name__} takes images (B, {self.image_channels}, H, W), got {tuple(images.shape)}; "
                "move the channels to axis 1, or make the model with image_channels=..."
            )
        dtype = next(self.parameters()).dtype
        if dtype not in (torch.float32, torch.float64):
            raise UnfitTypeError(
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
        if self.logged_now:
            nll, kl, mse = result.trace
            self._log_terms("train", loss_terms(nll.mean(1), kl.sum(2).mean(1), mse.mean(1)))  # each (T+1,)
        self.log("train/loss", loss.detach(), prog_bar=True)
        return poison_if_nonfinite(loss)

    def on_train_batch_end(self, outputs: Any, batch: Batch | Tensor, batch_idx: int) -> None:
        height, width = _images_in(batch).shape[-2:]
        self.trained_size = (height, width)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.trained_size is not None:
            checkpoint["image_size"] = self.trained_size

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.trained_size, self.trained_on = checkpoint.get("image_size"), checkpoint.get("data")

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads weights, as every module does.

        Raises:
            MisfitError: if they do not fit; its one line names the first difference.
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

    # Lightning passes what these return to the callbacks; its type annotations are narrower.
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
            run: part of the noise's key; another number gives other noise.
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

        It is keyed by the image's ``index`` if the batch has one, so that results do not depend on the batching.
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
        # In a list, so that it is not a submodule.
        self._evaluation = [to_device(MeanTrace(self.iterations), self.device)]

    def _evaluate(self, batch: Batch | Tensor, batch_idx: int) -> Decomposition:
        result = self.predict_step(batch, batch_idx)
        self._evaluation[0].update(result.trace)
        return result

    def _log_terms(self, stage: str, terms: Mapping[str, Tensor]) -> None:
        """Logs the last state's terms under ``stage/``, those of every refinement step under ``stage_steps/``."""
        terms = {name: values.flatten() for name, values in terms.items()}  # torchmetrics squeezes a single step
        scalars = {f"{stage}/{name}": values[-1] for name, values in terms.items()}
        for name, values in terms.items():
            scalars |= {f"{stage}_steps/{name}_{t}": value for t, value in enumerate(values)}
        # In evaluation the values are already the same on all processes; sync_dist tells Lightning so.
        self.log_dict({name: value.float() for name, value in scalars.items()}, sync_dist=stage != "train")


def _images_in(batch: Batch | Tensor) -> Tensor:
    images = batch.get("image") if isinstance(batch, Mapping) else batch
    if not isinstance(images, Tensor):
        given = f"a dict of {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else type(batch).__name__
        raise UnfitTypeError(
            f"a batch is a tensor of images, or a dict with this tensor under the key image, got {given}: let the "
            "dataset return {'image': image}"
        )
    return images


def _number_of_images(batch: Batch | Tensor) -> int:
    return len(_images_in(batch))
