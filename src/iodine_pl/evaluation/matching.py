"""Which slot shows which true object, and how well."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from iodine_pl.evaluation.assignment import best_assignment
from iodine_pl.evaluation.metrics import MeanOverCounted, contingency_table, slot_of_pixel

__all__ = ["MeanOverlap", "entity_masks", "mean_best_overlap", "mean_iou", "object_iou", "slot_of_entity"]


def entity_masks(label: Tensor, entities: int) -> Tensor:
    """Returns the true masks ``(B, L, H, W)`` of a label map ``(B, H, W)``; entity 0 is the background.

    They are in float64 and on the CPU, since Apple's GPUs have no float64.
    """
    return F.one_hot(label.cpu().long(), entities).permute(0, 3, 1, 2).double()


def slot_of_entity(label: Tensor, masks: Tensor, entities: int) -> Tensor:
    """Matches every true entity to the slot whose mask overlaps it most, as the released code does.

    Two entities may be matched to the same slot.

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
    largest (Kuhn 1955). Unmatched slots, such as that of the background, are ignored.

    Args:
        label: true entity of every pixel, ``(B, H, W)`` integers >= 0; 0 is the background, not an object.
        masks: ``(B, K, H, W)``.
        entities: L, above every label.

    Returns:
        ``(B, L)`` in float64 on the CPU; 0 for an object without a slot, and for the background.
    """
    return _one_to_one(_iou_of_pairs(label, masks, entities)[0])


def mean_iou(label: Tensor, masks: Tensor) -> Tensor:
    """Returns the mIoU: the mean of :func:`object_iou` over the objects that have visible pixels.

    This is the definition of OCLF (the code of Seitzer et al. 2023) and of VideoSAUR (Zadaianchuk et al. 2023) with
    ``matching="hungarian"`` and ``ignore_background=True``. The true background is not an object and is not matched.
    Its pixels still count where they belong to an object's slot, because they enlarge the union. A model without a slot
    for the background therefore has a low mIoU, whatever its foreground ARI is.

    Args:
        label: true entity of every pixel, ``(B, H, W)`` integers >= 0; 0 is the background.
        masks: ``(B, K, H, W)``; each pixel belongs to the slot with the largest.

    Returns:
        ``(B,)`` from 0 to 1, in float64 on the CPU. NaN for an image without objects.

    Example:
        >>> label = torch.tensor([[[1, 1, 2, 2, 0, 0]]])
        >>> masks = torch.tensor([[[1, 1, 0, 0, 0, 0]], [[0, 0, 1, 1, 1, 1]]]).unsqueeze(0)
        >>> mean_iou(label, masks)  # 1 for the first object; 2 of 4 pixels for the second
        tensor([0.7500], dtype=torch.float64)
    """
    return _overlaps(label, masks)[0]


def mean_best_overlap(label: Tensor, masks: Tensor) -> Tensor:
    """Returns the mBO: the largest intersection over union of each object with any slot, averaged over objects.

    It is at least :func:`mean_iou`, which does not match two objects to one slot. Arguments, shapes and the treatment
    of pixels and background are the same. Pont-Tuset et al. (2017) defined it over proposals; OCLF and VideoSAUR
    (``matching="overlap"``) compute it as here. Object-centric-library calls it the mean segmentation covering (mSC).
    """
    return _overlaps(label, masks)[1]


class MeanOverlap(MeanOverCounted):
    """Averages :func:`mean_iou` and :func:`mean_best_overlap` over images. Images without objects are left out, as in
    OCLF and VideoSAUR.

    Example:
        >>> metric = MeanOverlap()
        >>> label = torch.tensor([[[0, 1, 2]], [[0, 0, 0]]])  # the second image has no object
        >>> metric.update(label, torch.eye(3).expand(2, 3, 3).unsqueeze(2))  # masks: each pixel has a slot of its own
        >>> {name: float(value) for name, value in metric.compute().items()}, metric.images_skipped
        ({'miou': 1.0, 'mbo': 1.0}, 1)
    """

    def __init__(self) -> None:
        super().__init__(2)

    def update(self, label: Tensor, masks: Tensor) -> None:
        """Adds images: true ``label`` (B, H, W), and ``masks`` (B, K, H, W) whose largest over K takes the pixel."""
        self.add(_overlaps(label, masks))

    def compute(self) -> dict[str, Tensor]:
        """Returns the means ``miou`` and ``mbo``, float64 scalars."""
        miou, mbo = self.mean()
        return {"miou": miou, "mbo": mbo}


def _iou_of_pairs(label: Tensor, masks: Tensor, entities: int) -> tuple[Tensor, Tensor]:
    """Returns the IoU of every entity and slot, (B, L, K), 0 for the background; and the pixels of entities (B, L).

    They are in float64, on Apple's GPUs therefore on the CPU.
    """
    slots, assignment = masks.shape[1], slot_of_pixel(masks)
    if assignment.device.type == "mps":
        assignment = assignment.cpu()
    table = contingency_table(label.to(assignment.device), assignment, entities, slots).cpu()
    pixels = table.sum(dim=2)
    union = pixels.unsqueeze(2) + table.sum(dim=1, keepdim=True) - table
    iou = table / union.clamp(min=1.0)
    iou[:, 0] = 0.0
    return iou, pixels


def _one_to_one(iou: Tensor) -> Tensor:
    """Returns the IoU (B, L) of each entity and its slot; no two entities have the same slot."""
    matched, slot = iou.max(dim=2)
    wanted = F.one_hot(slot, iou.shape[2]) * (matched > 0.0).unsqueeze(2)
    for image in (wanted.sum(dim=1) > 1).any(dim=1).nonzero().flatten().tolist():  # else the best slots are distinct
        scores = iou[image].tolist()
        rivals = [entity for entity, row in enumerate(scores) if max(row) > 0.0]
        row = [0.0] * len(scores)
        for number, slot_of_it in best_assignment([scores[entity] for entity in rivals]):
            row[rivals[number]] = scores[rivals[number]][slot_of_it]
        matched[image] = torch.tensor(row, dtype=torch.float64)
    return matched


def _overlaps(label: Tensor, masks: Tensor) -> Tensor:
    """Returns mIoU and mBO of every image, (2, B) in float64 on the CPU."""
    entities = int(label.max()) + 1 if label.numel() else 1
    iou, pixels = _iou_of_pairs(label, masks, entities)
    objects = (pixels[:, 1:] > 0.0).sum(dim=1)
    counted = torch.where(objects > 0, objects.double(), torch.nan)
    return torch.stack([_one_to_one(iou).sum(dim=1), iou.amax(dim=2).sum(dim=1)]) / counted
