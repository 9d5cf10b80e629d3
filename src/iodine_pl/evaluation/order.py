"""The order in which slots are drawn, so that a column means the same in every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from iodine_pl.evaluation.assignment import best_assignment
from iodine_pl.evaluation.metrics import contingency_table, slot_of_pixel

__all__ = ["SlotOrder", "slot_order"]

_MOST = 0.75  # share of the background that its slot must have


class SlotOrder(NamedTuple):
    """Holds the order in which the slots of one image are drawn, and the colors of its true entities."""

    slots: list[int]
    """All K slots: that of the background if there is one, those of the objects in the order of their labels, then the
    others, the largest first."""
    background: bool
    """Whether the first slot is the background's."""
    entities: list[int]
    """The number in the palette of each true entity 0 .. L - 1, 0 for the background; empty without labels."""

    @property
    def numbers(self) -> range:
        """The number in the palette of each of ``slots``."""
        first = 0 if self.background else 1
        return range(first, first + len(self.slots))


def slot_order(masks: Tensor, label: Tensor | None = None) -> SlotOrder:
    """Orders the slots of one image.

    The background's slot is the one that covers at least three quarters of it. Without labels the border of the image
    is taken as the background. Objects and the other slots are matched one to one so that the sum of their
    intersections over unions is largest. An object gets the number of its slot.

    Args:
        masks: ``(K, H, W)``.
        label: true entity of every pixel, ``(H, W)`` integers >= 0; 0 is the background.

    Example:
        >>> label = torch.tensor([[0, 0, 0, 0, 0, 1, 2]])
        >>> masks = torch.tensor([[[0, 0, 0, 0, 0, 0, 1]], [[1, 1, 1, 1, 1, 0, 0]], [[0, 0, 0, 0, 0, 1, 0]]])
        >>> slot_order(masks, label)
        SlotOrder(slots=[1, 2, 0], background=True, entities=[0, 1, 2])
        >>> slot_order(masks).slots
        [1, 0, 2]
    """
    masks = masks.detach().float().cpu()
    label = None if label is None else label.cpu()
    behind = _border(masks) if label is None else label == 0
    shares = masks[:, behind].mean(dim=1) if behind.any() else masks.new_zeros(len(masks))
    background = int(shares.argmax()) if float(shares.max()) >= _MOST else None
    free = [slot for slot in range(len(masks)) if slot != background]
    matched = {} if label is None else _matched(label, masks, free)
    ordered = list(matched.values())
    areas = masks.sum(dim=(1, 2)).tolist()
    ordered += sorted((slot for slot in free if slot not in ordered), key=lambda slot: -areas[slot])
    slots = ordered if background is None else [background, *ordered]
    return SlotOrder(slots, background is not None, _numbers(label, list(matched), len(ordered)))


def _border(masks: Tensor) -> Tensor:
    border = torch.ones(masks.shape[1:], dtype=torch.bool)
    border[1:-1, 1:-1] = False
    return border


def _matched(label: Tensor, masks: Tensor, free: Sequence[int]) -> dict[int, int]:
    """Returns object -> slot, by the number of the object."""
    entities = int(label.max()) + 1
    table = contingency_table(label[None], slot_of_pixel(masks[None]), entities, len(masks))[0]
    union = table.sum(dim=1, keepdim=True) + table.sum(dim=0) - table
    overlap = (table / union.clamp(min=1.0))[1:, list(free)].tolist()
    pairs = best_assignment(overlap) if overlap and free else []
    return {entity + 1: free[column] for entity, column in pairs if overlap[entity][column] > 0.0}


def _numbers(label: Tensor | None, matched: Sequence[int], slots: int) -> list[int]:
    """Numbers the entities: those with a slot like their slots, then those without a slot."""
    if label is None:
        return []
    entities = range(1, int(label.max()) + 1)
    missed = [entity for entity in entities if entity not in matched]
    number = {entity: place + 1 for place, entity in enumerate(matched)}
    number |= {entity: slots + place + 1 for place, entity in enumerate(missed)}
    return [0, *(number[entity] for entity in entities)]
