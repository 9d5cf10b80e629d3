"""Monitors how the slots divide an image among them, and describes problems in words."""

from __future__ import annotations

import math
import re
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torchmetrics import Metric

from iodine_pl.callbacks.contract import decomposition_of, require_fields
from iodine_pl.evaluation.metrics import to_device

__all__ = ["SlotUse", "diagnose"]

_WINS = 0.01  # share of the pixels: a slot that wins fewer is not used
_HEDGED = 0.1  # loss of foreground ARI from responsibilities to masks
_MOST_SLOTS = 64  # whose KL is averaged; a fixed number, so that a process without images can take part


class _MeanUse(Metric):
    """Averages over images: slots used, entropy of the masks, KL of the slots in descending order."""

    full_state_update = False

    total: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(3 + _MOST_SLOTS, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, masks: Tensor, kl: Tensor) -> None:
        slots = masks.shape[1]
        masks, kl = masks.to(self.total.device), kl.to(self.total.device)  # where there is float64
        won = torch.nn.functional.one_hot(masks.argmax(dim=1), slots).double().mean(dim=(1, 2))  # (B, K)
        used = (won >= _WINS).double().sum(dim=1)
        entropy = torch.special.entr(masks.double()).sum(dim=1).mean(dim=(1, 2)) / math.log(max(2, slots))
        count = torch.full_like(entropy, slots)
        ranked = kl.double().sort(dim=1, descending=True).values[:, :_MOST_SLOTS]
        terms = torch.cat([torch.stack([count, used, entropy], dim=1), ranked], dim=1)
        self.total[: terms.shape[1]] += terms.sum(dim=0)
        self.images += len(masks)

    def compute(self) -> tuple[int, float, float, list[float]]:
        """Returns the number of slots, and the means."""
        slots, used, entropy, *kl = (self.total / self.images).tolist()
        return round(slots), used, entropy, kl[: round(slots)]


def diagnose(
    slots: int,
    used: float,
    entropy: float,
    kl: list[float],
    by_masks: float | None = None,
    by_responsibilities: float | None = None,
    likelihood: str = "mixture",
) -> str:
    """Describes what is wrong with the slots and what usually helps; an empty string if nothing is.

    It is also empty for a model without a prior, such as R-NEM, whose KL is 0: it has none of the settings to change.

    Args:
        slots: K.
        used: number of slots that win at least 1% of the pixels, mean over images.
        entropy: of the masks, from 0 (each pixel belongs to one slot) to 1 (all slots share each pixel equally).
        kl: of each slot in nats, descending, mean over images.
        by_masks, by_responsibilities: foreground ARI if each pixel is assigned to the slot with the largest mask, and
            if it is assigned to the slot that explains it best; None: not known.
        likelihood: the model's ``pixel_likelihood``. Under ``mean`` other settings help.
    """
    if slots == 1 or not any(kl):
        return ""
    if by_masks is not None and by_responsibilities is not None and by_responsibilities > by_masks + _HEDGED:
        scores = (
            f"The foreground ARI is {by_masks:.2f} by the largest mask, but {by_responsibilities:.2f} by the slot that "
            "explains a pixel best"
        )
        if likelihood == "mean":
            return (
                f"Pixels are shared. {scores}. Usual early; if it stays, continue the training with pixel_likelihood: "
                "mixture, under which each object gets one slot."
            )
        return (
            f"Slots hedge: pixels are shared. {scores}: slots share a pixel to cover its possible values. What helps: "
            "pixel_likelihood: mean with bounded_means, with which this gains nothing, or a wider pixel_scale."
        )
    if sum(kl) < 1.0:
        return (
            f"The latents encode nothing ({sum(kl):.2f} nats): every image gets the same latents. Usual at the very "
            "beginning; if it stays, lower pixel_scale, which gives the image more weight against the prior."
        )
    separated = by_masks is not None and by_masks > 0.5
    if entropy > 0.8 and not separated:  # slots that have objects can share the background
        better = "pixel_likelihood: mean with bounded_means, or a wider pixel_scale"
        helps = "another seed or learning_rate" if likelihood == "mean" else better
        return (
            f"The masks are nearly flat (entropy {entropy:.2f} of 1): the slots share every pixel, though each may "
            f"show a color or the middle of an object. Usual early; if it stays, try {helps}."
        )
    if used < 1.5:
        return (
            "One slot wins nearly every pixel: it explains the whole image. Usual early; if it stays, try another "
            "pixel_scale, narrower or wider, or another seed."
        )
    if used < 2.5 and slots > 3:
        return (
            f"Two of {slots} slots win nearly every pixel, usually one the background and one everything else. Usual "
            "before the objects are separated; if it stays, try another seed, pixel_scale or learning_rate."
        )
    return ""


def _without_numbers(words: str) -> str:
    return re.sub(r"\d+", "", words)


class SlotUse(pl.Callback):
    """Logs the use of the slots after each validation, and describes it in words when these change, not their numbers.

    ``val/slots_used``: number of slots that win at least 1% of the pixels; ``val/mask_entropy``: of the masks at a
    pixel, from 0 to 1; ``val_slots/kl_0`` … ``kl_K-1``: KL in nats of the slot with the largest KL, and so on. They are
    means over all images and do not depend on the number of processes. The description uses the scores of masks and
    responsibilities if :class:`AdjustedRandIndex` logs them. The module's ``forward`` must be annotated to return an
    object with ``masks`` (B, K, H, W) and ``kl`` (B, K).
    """

    def __init__(self) -> None:
        self._use = _MeanUse()
        self.said = ""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        require_fields(self, pl_module, "masks", "kl")

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._use.reset()
        to_device(self._use, pl_module.device)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        result = decomposition_of(pl_module, batch, outputs)
        self._use.update(result.masks, result.kl)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _, used, entropy, kl = self._use.compute()
        values = {"val/slots_used": used, "val/mask_entropy": entropy}
        values |= {f"val_slots/kl_{rank}": value for rank, value in enumerate(kl)}
        pl_module.log_dict(values, sync_dist=True)  # already the same on all processes

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        logged = trainer.callback_metrics  # now with the values of other callbacks
        names = ("val/ari_fg", "val/ari_fg_responsibilities")
        by_masks, by_responsibilities = (float(logged[name]) if name in logged else None for name in names)
        settings = pl_module.hparams
        one_mean = settings.get("pixel_likelihood") == "mean" or settings.get("pixel_distribution") == "bernoulli"
        likelihood = "mean" if one_mean else "mixture"  # of bits they are the same
        words = diagnose(*self._use.compute(), by_masks, by_responsibilities, likelihood)
        if _without_numbers(words) != _without_numbers(self.said) and not trainer.sanity_checking:
            when = f" after {trainer.global_step} updates" if trainer.state.fn == TrainerFn.FITTING else ""
            rank_zero_info(f"Slots{when}: {words or 'they divide the image among them.'}")
            self.said = words
