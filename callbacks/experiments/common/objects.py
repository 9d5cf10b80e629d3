"""The latents and factors of the objects in many scenes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from numpy.typing import NDArray
from torch import Tensor

from iodine_pl import Decomposition
from iodine_pl.callbacks.experiments.common.experiment import Experiment
from iodine_pl.callbacks.experiments.common.rows import Columns
from iodine_pl.evaluation.matching import entity_masks, slot_of_entity
from iodine_pl.evaluation.probe import FactorKind

__all__ = ["Objects", "latents_of_entities", "objects_of", "scenes_of", "varying"]


class Objects(NamedTuple):
    """Holds the visible objects of many scenes."""

    latents: NDArray[Any]
    """``(N, T+1, D)``: latent of the object's slot at every refinement step."""
    factors: Mapping[str, NDArray[Any]]
    """Name -> ``(N, ...)``."""


def latents_of_entities(result: Decomposition, batch: Any, field: Literal["latents", "mean"]) -> dict[str, Tensor]:
    """Returns ``latents`` (B, L, T+1, D), ``visible`` (B, L), ``column`` (B, L) and the factors as ``factor/NAME``.

    As in the released code, an entity's latent is that of the slot that overlaps it most after the last step. Its
    column is that of its center.

    Args:
        result: with ``steps``; a model without refinement has one step.
        batch: with ``label`` and ``factors``.
        field: the sample that was decoded, or the posterior's mean.
    """
    entities = next(iter(batch["factors"].values())).shape[1]
    slots = slot_of_entity(batch["label"], result.masks, entities)
    latents = torch.stack([getattr(step, field) for step in result.steps or (result,)], dim=2)  # (B, K, T+1, D)
    index = slots[:, :, None, None].expand(-1, -1, *latents.shape[2:]).to(latents.device)
    by_column = entity_masks(batch["label"], entities).sum(dim=2)  # (B, L, W)
    pixels = by_column.sum(dim=2)
    columns = torch.arange(by_column.shape[2], dtype=by_column.dtype)
    factors = {f"factor/{name}": values for name, values in batch["factors"].items()}
    middle = (by_column * columns).sum(dim=2) / pixels.clamp(min=1.0)
    return {"latents": latents.gather(1, index), "visible": pixels > 0, "column": middle, **factors}


def objects_of(rows: Columns) -> Objects:
    """Keeps the visible objects of every scene, without the background, entity 0."""
    visible = rows["visible"].copy()
    visible[:, 0] = False
    factors = {name.removeprefix("factor/"): x[visible] for name, x in rows.items() if name.startswith("factor/")}
    return Objects(rows["latents"][visible], factors)


def scenes_of(rows: Columns, objects: int) -> Objects:
    """Treats a whole scene as one object, with the factors of its first objects from left to right: ``1 x``, ``2 x``.

    The latent is that of the only slot of the model.

    Args:
        rows: of many scenes.
        objects: number of objects to use; every scene must have this many.
    """
    visible = rows["visible"].copy()
    visible[:, 0] = False
    order = np.argsort(np.where(visible, rows["column"], np.inf), axis=1, kind="stable")
    scene = np.arange(len(order))
    factors = {
        f"{place + 1} {name.removeprefix('factor/')}": values[scene, order[:, place]]
        for place in range(objects)
        for name, values in rows.items()
        if name.startswith("factor/")
    }
    return Objects(rows["latents"][:, 0], factors)


def varying(experiment: Experiment, kinds: Mapping[str, FactorKind], train: Objects) -> dict[str, FactorKind]:
    """Leaves out the factors that are the same in all training objects, such as the color of white sprites.

    Raises:
        MisconfigurationException: if the data have no such factor, or none that varies.
    """
    if missing := [name for name in kinds if name not in train.factors]:
        raise MisconfigurationException(
            f"{type(experiment).__name__}: the data have no factor {', '.join(missing)}, but {', '.join(train.factors)}"
        )
    vary = {name: kind for name, kind in kinds.items() if (train.factors[name] != train.factors[name][:1]).any()}
    if not vary:
        raise MisconfigurationException(
            f"{type(experiment).__name__}: of {', '.join(kinds)} nothing varies in these {len(train.latents)} objects"
        )
    return vary
