"""The latents of the objects in training scenes, for what is fitted there and reported on test scenes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from iodine_pl import Decomposition
from iodine_pl.callbacks.contract import decompose
from iodine_pl.callbacks.experiments.experiment import Columns, Experiment, need
from iodine_pl.matching import entity_masks, slot_of_entity

__all__ = ["Objects", "latents_of_entities", "objects_of", "train_rows"]


class Objects(NamedTuple):
    """Holds the visible objects of many scenes, one after the other."""

    latents: NDArray[Any]
    """``(N, T+1, D)``: of the slot that shows the object, at every refinement step."""
    factors: Mapping[str, NDArray[Any]]
    """Name -> ``(N, ...)``."""


def latents_of_entities(experiment: Experiment, module: pl.LightningModule, batch: Any, idx: int) -> dict[str, Tensor]:
    """Returns of a batch ``latents`` (B, L, T+1, D), ``visible`` (B, L) and the factors as ``factor/NAME`` (B, L, ...).

    An entity's latent is the sample of the slot that, after the last step, overlaps it most, as in the released code.
    """
    need(experiment, batch, "label", "factors")
    result: Decomposition = decompose(module, batch, idx, return_steps=True)
    steps = result.steps or (result,)
    entities = next(iter(batch["factors"].values())).shape[1]
    slots = slot_of_entity(batch["label"], result.masks, entities)
    latents = torch.stack([step.latents for step in steps], dim=2)  # (B, K, T+1, D)
    index = slots[:, :, None, None].expand(-1, -1, *latents.shape[2:])
    pixels = entity_masks(batch["label"], entities).sum(dim=(2, 3))
    factors = {f"factor/{name}": values for name, values in batch["factors"].items()}
    return {"latents": latents.gather(1, index), "visible": pixels > 0, **factors}


def objects_of(rows: Columns) -> Objects:
    """Keeps of every scene its visible objects; the background, entity 0, is none."""
    visible = rows["visible"].copy()
    visible[:, 0] = False
    factors = {name.removeprefix("factor/"): x[visible] for name, x in rows.items() if name.startswith("factor/")}
    return Objects(rows["latents"][visible], factors)


def train_rows(experiment: Experiment, trainer: pl.Trainer, module: pl.LightningModule, scenes: int) -> Columns:
    """Measures this process's part of the first ``scenes`` training scenes of an epoch.

    Raises:
        MisconfigurationException: if the Trainer was given no datamodule to take them from.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    if data is None:
        raise MisconfigurationException(
            f"{type(experiment).__name__} fits on training scenes: give trainer.test a datamodule, not test batches alone"
        )
    rows: dict[str, list[NDArray[Any]]] = {}
    still = -(-scenes // trainer.world_size)
    bar = tqdm(total=still, desc=f"{experiment.name}: training scenes", disable=not trainer.is_global_zero, leave=False)
    for i, batch in enumerate(data.train_dataloader()):
        placed = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        for name, values in experiment.measure(module, placed, i).items():
            rows.setdefault(name, []).append(values[:still].detach().cpu().numpy())
        bar.update(min(still, len(batch["image"])))
        still -= len(batch["image"])
        if still <= 0:
            break
    bar.close()
    return {name: np.concatenate(parts) for name, parts in rows.items()}
