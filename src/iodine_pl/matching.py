"""Which slot shows which true object."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

__all__ = ["entity_masks", "mean_iou", "slot_of_entity"]


def entity_masks(label: Tensor, entities: int) -> Tensor:
    """Returns the true masks ``(B, L, H, W)`` of a label map ``(B, H, W)``, in float64; entity 0 is the background."""
    return F.one_hot(label.long(), entities).permute(0, 3, 1, 2).double()


def slot_of_entity(label: Tensor, masks: Tensor, entities: int) -> Tensor:
    """Matches every true entity to the slot whose mask overlaps its own most, as the released code does.

    Two entities may have the same slot.

    Args:
        label: true entity of every pixel, ``(B, H, W)`` integers >= 0.
        masks: ``(B, K, H, W)``, not rounded.
        entities: L, above every label.

    Returns:
        ``(B, L)`` slots; 0 for an entity without pixels.
    """
    return torch.einsum("blhw,bkhw->blk", entity_masks(label, entities), masks.double()).argmax(dim=2)


def mean_iou(label: Tensor, masks: Tensor) -> Tensor:
    """Returns the intersection over union of objects and their slots, mean over the objects of each image.

    Each pixel belongs to the slot with the largest mask. Objects and slots are matched one to one so that the mean is
    highest (Kuhn 1955); an object without a slot counts as 0, and slots that are left, such as that of the background,
    do not count.

    Args:
        label: true entity of every pixel, ``(B, H, W)`` integers >= 0; 0 is the background, not an object.
        masks: ``(B, K, H, W)``.

    Returns:
        ``(B,)`` in float64 on the CPU; NaN for an image without objects.
    """
    label, slots = label.cpu(), masks.shape[1]
    true = entity_masks(label, int(label.max()) + 1)[:, 1:]
    won = F.one_hot(masks.argmax(dim=1).cpu(), slots).permute(0, 3, 1, 2).double()
    both = torch.einsum("blhw,bkhw->blk", true, won)
    size = true.sum(dim=(2, 3))
    union = size.unsqueeze(2) + won.sum(dim=(2, 3)).unsqueeze(1) - both
    iou = torch.where(size.unsqueeze(2) > 0.0, both / union.clamp(min=1.0), 0.0).numpy()
    matched = np.array([image[linear_sum_assignment(image, maximize=True)].sum() for image in iou])
    objects = (size > 0.0).sum(dim=1)
    return torch.where(objects > 0, torch.from_numpy(matched) / objects.clamp(min=1), torch.nan)
