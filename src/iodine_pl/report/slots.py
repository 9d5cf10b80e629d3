"""The slots of test images at every refinement step, for the page's slider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from iodine_pl.evaluation.order import slot_order
from iodine_pl.evaluation.palette import hexadecimal, ink_on, slot_palette
from iodine_pl.evaluation.panels import Row, slot_rows
from iodine_pl.report.pictures import atlas, packed
from iodine_pl.result import Decomposition

__all__ = ["heads_of", "steps_of"]

_BUDGET = 700_000  # bytes


def steps_of(batch: Mapping[str, Any], result: Decomposition) -> dict[str, Any]:
    """Returns the page's data about a decomposition with its steps.

    Returns:
        ``atlas``: a picture with a row of tiles for each image at each step; ``height``, ``width``: of a tile;
        ``images``: number of images; ``last``: number of the last step; ``columns``: heads of the tiles; ``ari``: for
        each step the text of each image's ARI, empty without labels.
    """
    images, label = batch["image"], batch.get("label")
    steps = result.steps or (result,)
    frames = [images] * len(steps) if images.ndim == 4 else list(images.unbind(dim=1))  # sequences: one per step
    labels = [label] * len(steps) if label is None or label.ndim == 3 else list(label.unbind(dim=1))
    last = [None] * len(frames[-1]) if labels[-1] is None else list(labels[-1])
    orders = [slot_order(masks, true) for masks, true in zip(steps[-1].masks, last, strict=True)]
    rows = [slot_rows(frame, step, true, orders) for frame, step, true in zip(frames, steps, labels, strict=True)]
    behind = any(order.background for order in orders)
    most = max(order.numbers[-1] for order in orders) + 1
    numbers = range(0 if behind else 1, most)
    tiles = torch.stack([torch.stack(_tiles(row, behind, most)) for step in rows for row in step])
    words = ["image", "reconstruction", *(["masks"] if label is None else ["true", "found"])]
    heads = [{"head": word, "color": "", "ink": ""} for word in words]
    return {
        "atlas": packed(atlas(tiles), _BUDGET),
        "height": tiles.shape[3],
        "width": tiles.shape[4],
        "images": len(orders),
        "last": len(steps) - 1,
        "columns": heads + heads_of(numbers),
        "ari": [[_shown(row.ari) for row in step] for step in rows] if label is not None else [],
    }


def heads_of(numbers: range) -> list[dict[str, str]]:
    """Returns names and colors of the slots with these numbers in the palette."""
    colors = slot_palette(numbers[-1] + 1 if numbers else 0)
    return [
        {
            "head": f"slot {number}" if number else "background",
            "color": hexadecimal(colors[number]),
            "ink": ink_on(colors[number]),
        }
        for number in numbers
    ]


def _tiles(row: Row, behind: bool, most: int) -> list[torch.Tensor]:
    white = torch.ones_like(row.image)
    slots = [*([white] if behind and not row.background else []), *row.slots]
    missing = most - (0 if behind else 1) - len(slots)
    truth = [] if row.truth is None else [row.truth]
    return [row.image, row.reconstruction, *truth, row.found, *slots, *[white] * missing]


def _shown(ari: float | None) -> str:
    return "" if ari is None or ari != ari else f"{ari:.2f}"
