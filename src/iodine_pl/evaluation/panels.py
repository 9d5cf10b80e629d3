"""Pictures of a decomposition: tensors in, images as arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from iodine_pl.evaluation.drawing import Column, Pixels, as_pixels, draw_table, outlined
from iodine_pl.evaluation.metrics import adjusted_rand_index, slot_of_pixel
from iodine_pl.evaluation.order import SlotOrder, slot_order
from iodine_pl.evaluation.palette import hexadecimal, ink_on, mask_image, slot_palette
from iodine_pl.result import Decomposition

__all__ = ["COLUMNS", "Row", "draw_rows", "refinement_panel", "slot_images", "slot_panel", "slot_rows"]

COLUMNS = "input, reconstruction, true and found segmentation, foreground ARI, and every slot on white"
"""Describes the columns of :func:`slot_panel` and :func:`refinement_panel` for labeled images."""


class Row(NamedTuple):
    """Holds what one row of a panel shows, on the CPU: images ``(3, H, W)`` in [0, 1]."""

    image: Tensor
    reconstruction: Tensor
    truth: Tensor | None
    """The true segmentation, each object in the color of its slot; None without labels."""
    found: Tensor
    """The masks, with a color for each slot."""
    ari: float | None
    """Foreground ARI; None without labels, NaN without foreground."""
    slots: list[Tensor]
    """Every slot on white, in the order of :func:`slot_order`."""
    background: bool
    """Whether the first slot is the background's."""
    name: str = ""
    """Drawn before the row."""
    marked: Tensor | None = None
    """``(H, W)`` bool: region to outline in image and reconstruction."""


def slot_images(result: Decomposition) -> Tensor:
    """Puts each slot's mean on white where its mask is low, ``mean * mask + (1 - mask)``: ``(B, K, C, H, W)``."""
    masks = result.masks.unsqueeze(2)
    return result.means * masks + (1.0 - masks)


def slot_panel(
    images: Tensor, result: Decomposition, label: Tensor | None = None, marked: Tensor | None = None
) -> Pixels:
    """Draws one row per image, with the columns of :data:`COLUMNS`.

    A column and a color mean the same in every row. Gray is the background's slot; there is none where several slots
    share the background.

    Args:
        images: ``(B, C, H, W)`` in [0, 1], or sequences ``(B, T+1, C, H, W)``, whose last frame is shown.
        result: their decomposition.
        label: true entity of every pixel, ``(B, H, W)``, or ``(B, T+1, H, W)`` for sequences; 0 is the background.
        marked: regions to outline in image and reconstruction, ``(B, H, W)`` bool.

    Returns:
        ``(height, width, 3)`` uint8.
    """
    rows = slot_rows(images, result, label)
    if marked is not None:
        rows = [row._replace(marked=region.cpu()) for row, region in zip(rows, marked, strict=True)]
    return draw_rows(rows)


def slot_rows(
    images: Tensor, result: Decomposition, label: Tensor | None = None, orders: Sequence[SlotOrder] | None = None
) -> list[Row]:
    """Returns the rows of :func:`slot_panel`.

    Args:
        images, result, label: as in :func:`slot_panel`.
        orders: of the slots of each image; None: by :func:`slot_order`.
    """
    images = images if images.ndim == 4 else images[:, -1]
    label = label if label is None or label.ndim == 3 else label[:, -1]
    masks, slots = result.masks.detach().float().cpu(), _rgb(slot_images(result))
    labels = [None] * len(masks) if label is None else list(label.cpu())
    if orders is None:
        orders = [slot_order(each, true) for each, true in zip(masks, labels, strict=True)]
    scores: list[float | None] = [None] * len(masks)
    if label is not None:
        scores = adjusted_rand_index(label.cpu(), slot_of_pixel(masks)).tolist()
    rows = []
    for i, (order, true) in enumerate(zip(orders, labels, strict=True)):
        colors = slot_palette(max([*order.numbers, *order.entities]) + 1)
        truth = None if true is None else colors[_number_of_pixel(true, order)].permute(2, 0, 1)
        found = mask_image(masks[i, order.slots], colors[list(order.numbers)])
        shown = list(slots[i, order.slots])
        image, reconstruction = _rgb(images[i]), _rgb(result.reconstruction[i])
        rows.append(Row(image, reconstruction, truth, found, scores[i], shown, order.background))
    return rows


def refinement_panel(
    images: Tensor,
    steps: Sequence[Decomposition],
    label: Tensor | None = None,
    mean: Decomposition | None = None,
    image: int = 0,
) -> Pixels:
    """Draws one image over the refinement steps: a row per step, the initial state on top, with the columns of
    :func:`slot_panel`. The order of the slots is that of the last step.

    Args:
        images: ``(B, C, H, W)`` in [0, 1], or sequences ``(B, T+1, C, H, W)``, with a frame for each step.
        steps: the decompositions at every step, each decoded from a sample of its posterior.
        label: as in :func:`slot_panel`.
        mean: the last step decoded from the posterior's mean, drawn as the last row.
        image: index in the batch.
    """
    one = slice(image, image + 1)
    shown = [step.select(one) for step in (*steps, *([] if mean is None else [mean]))]
    frames = [images[one]] * len(steps) if images.ndim == 4 else list(images[one].unbind(dim=1))
    labels = [None] * len(steps) if label is None else [label[one]] * len(steps)
    if label is not None and label.ndim == 4:
        labels = list(label[one].unbind(dim=1))
    if mean is not None:
        frames, labels = [*frames, frames[-1]], [*labels, labels[-1]]
    order = slot_order(steps[-1].masks[image], None if labels[-1] is None else labels[-1][0])
    names = [*map(str, range(len(steps))), "mean"]
    rows = [
        slot_rows(frame, step, true, [order])[0]._replace(name=name)
        for frame, step, true, name in zip(frames, shown, labels, names, strict=False)
    ]
    return draw_rows(rows, names="step")


def draw_rows(rows: Sequence[Row], names: str = "") -> Pixels:
    """Draws rows below each other: ``(height, width, 3)`` uint8.

    Args:
        rows: at least one.
        names: head of the column with the rows' names.
    """
    labeled, named = any(row.truth is not None for row in rows), any(row.name for row in rows)
    behind = any(row.background for row in rows)
    most = max(len(row.slots) + (not row.background) for row in rows)  # a background and the slots of objects
    colors = slot_palette(most)
    columns = [*([Column(names)] if named else []), Column("image"), Column("reconstruction")]
    columns += [Column("true", apart=True), Column("found"), Column("FG-ARI")] if labeled else [Column("masks")]
    for number in range(0 if behind else 1, most):
        head = f"slot {number}" if number else "background"
        first = number == (0 if behind else 1)
        columns.append(Column(head, hexadecimal(colors[number]), ink_on(colors[number]), apart=first))
    return draw_table(columns, [_cells(row, labeled, named, behind, most) for row in rows])


def _cells(row: Row, labeled: bool, named: bool, behind: bool, most: int) -> list[Pixels | str | None]:
    cells: list[Pixels | str | None] = [row.name] if named else []
    for tile in map(_pixels, (row.image, row.reconstruction)):
        cells.append(tile if row.marked is None else outlined(tile, row.marked.numpy()))
    if labeled:
        cells.append(None if row.truth is None else _pixels(row.truth))
    cells.append(_pixels(row.found))
    if labeled:
        cells.append("" if row.ari is None or row.ari != row.ari else f"{row.ari:.2f}")
    if behind and not row.background:
        cells.append(None)
    cells += map(_pixels, row.slots)
    return cells + [None] * (most - len(row.slots) - (not row.background))


def _pixels(image: Tensor) -> Pixels:
    return as_pixels(image.numpy())


def _number_of_pixel(label: Tensor, order: SlotOrder) -> Tensor:
    """Returns the number in the palette of every pixel of a label map (H, W)."""
    return torch.tensor(order.entities)[label.long()]


def _rgb(x: Tensor) -> Tensor:
    return x.detach().float().cpu().clamp(0, 1).expand(*x.shape[:-3], 3, *x.shape[-2:])
