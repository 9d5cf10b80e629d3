"""Which slot shows which true object."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from iodine_pl.evaluation.extra import require_experiments

__all__ = ["entity_masks", "mean_iou", "object_iou", "slot_of_entity"]


def entity_masks(label: Tensor, entities: int) -> Tensor:
    """Returns the true masks ``(B, L, H, W)`` of a label map ``(B, H, W)``; entity 0 is the background.

    In float64, which Apple's GPUs do not have: so on the CPU, as all that follows from them here.
    """
    return F.one_hot(label.cpu().long(), entities).permute(0, 3, 1, 2).double()


def slot_of_entity(label: Tensor, masks: Tensor, entities: int) -> Tensor:
    """Matches every true entity to the slot whose mask overlaps its own most, as the released code does.

    Two entities may have the same slot.

    Args:
        label: true entity of every pixel, ``(B, H, W)`` integers >= 0.
        masks: ``(B, K, H, W)``, not rounded.
        entities: L, above every label.

    Returns:
        ``(B, L)`` slots, on the CPU; 0 for an entity without pixels.
    """
    return torch.einsum("blhw,bkhw->blk", entity_masks(label, entities), masks.cpu().double()).argmax(dim=2)


def object_iou(label: Tensor, masks: Tensor, entities: int) -> Tensor:
    """Returns the intersection over union of every object and its slot.

    Each pixel belongs to the slot with the largest mask. Objects and slots are matched one to one so that the sum is
    largest (Kuhn 1955); slots that are left, such as that of the background, do not count.

    Args:
        label: true entity of every pixel, ``(B, H, W)`` integers >= 0; 0 is the background, not an object.
        masks: ``(B, K, H, W)``.
        entities: L, above every label.

    Returns:
        ``(B, L)`` in float64 on the CPU; 0 for an object without a slot, and for the background.

    Raises:
        ImportError: if scipy is not installed.
    """
    require_experiments("object_iou", "scipy")
    from scipy.optimize import linear_sum_assignment

    true = entity_masks(label, entities)
    true[:, 0] = 0.0
    won = F.one_hot(masks.argmax(dim=1).cpu(), masks.shape[1]).permute(0, 3, 1, 2).double()
    both = torch.einsum("blhw,bkhw->blk", true, won)
    union = true.sum(dim=(2, 3)).unsqueeze(2) + won.sum(dim=(2, 3)).unsqueeze(1) - both
    iou = both / union.clamp(min=1.0)
    matched = torch.zeros(iou.shape[:2], dtype=torch.float64)
    for image, row in zip(iou.numpy(), matched, strict=True):
        objects, slots = linear_sum_assignment(image, maximize=True)
        row[objects] = torch.from_numpy(image[objects, slots])
    return matched


def mean_iou(label: Tensor, masks: Tensor) -> Tensor:
    """Returns the mean of :func:`object_iou` over the objects that show a pixel: ``(B,)`` in float64 on the CPU.

    NaN for an image without objects.

    Raises:
        ImportError: if scipy is not installed.
    """
    entities = int(label.max()) + 1
    objects = (entity_masks(label, entities)[:, 1:].sum(dim=(2, 3)) > 0.0).sum(dim=1)
    return object_iou(label, masks, entities).sum(dim=1) / torch.where(objects > 0, objects.double(), torch.nan)
