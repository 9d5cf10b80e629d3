"""Our scores equal those of the libraries that papers use, written here in plain numpy, image by image.

They all agree on images with foreground. For an image without foreground they give:

=================  ==========================  ==========  ============
..                 object-centric-library      VideoSAUR   ours
=================  ==========================  ==========  ============
foreground ARI     1, counted                  1, counted  not counted
mIoU               has none                    left out    left out
mBO                0, counted (as mSC)         left out    left out
=================  ==========================  ==========  ============

OCLF's mIoU and mBO are VideoSAUR's.
"""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from iodine_pl import MeanAdjustedRandIndex, adjusted_rand_index
from iodine_pl.evaluation.matching import MeanOverlap, mean_best_overlap, mean_iou


def pairs(count):
    """Returns the number of pairs of ``count`` pixels."""
    return count * (count - 1) / 2


def ari_of_object_centric_library(label, slots, ignored):
    """ARI as scikit-learn has it, from pairs of pixels that are together in both, one or no segmentation."""
    kept = label >= ignored
    label, slots = label[kept], slots[kept]
    both = sum(pairs(((label == i) & (slots == j)).sum()) for i in np.unique(label) for j in np.unique(slots))
    in_label, in_slots = (sum(pairs((x == i).sum()) for i in np.unique(x)) for x in (label, slots))
    only_label, only_slots = in_label - both, in_slots - both
    neither = pairs(len(label)) - both - only_label - only_slots
    if only_label == only_slots == 0:
        return 1.0
    split = (both + only_label) * (only_label + neither) + (both + only_slots) * (only_slots + neither)
    return 2.0 * (both * neither - only_label * only_slots) / split


def mean_segmentation_covering(label, slots, ignored):
    """mSC of object-centric-library: the mean over visible objects of the best IoU; 0 if there is none."""
    best = []
    for i in np.unique(label[label >= ignored]):
        true = label == i
        best.append(max((true & (slots == j)).sum() / (true | (slots == j)).sum() for j in np.unique(slots)))
    return sum(best) / max(1, len(best))


def one_hot(numbers, count):
    return np.eye(count)[numbers.reshape(-1)]  # (pixels, count)


def ari_of_videosaur(label, slots, entities, number, foreground):
    """ARI over one-hot masks; the background's is dropped."""
    true = one_hot(label, entities)[:, 1 if foreground else 0 :]
    table = true.T @ one_hot(slots, number)
    together, of_true, of_slots = (2 * pairs(x).sum() for x in (table, table.sum(1), table.sum(0)))
    expected = of_true * of_slots / max(2 * pairs(table.sum()), 1)
    largest = (of_true + of_slots) / 2
    return 1.0 if largest == expected else (together - expected) / (largest - expected)


def iou_of_videosaur(label, slots, entities, number, matching):
    """Mean over visible objects of the IoU with the matched slot; NaN if there is none."""
    true, won = one_hot(label, entities)[:, 1:], one_hot(slots, number)
    both = true.T @ won
    union = true.sum(0)[:, None] + won.sum(0)[None] - both
    iou = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    found = iou[linear_sum_assignment(iou, maximize=True)] if matching == "hungarian" else iou.max(1)
    there = (true.sum(0) > 0).sum()
    return found.sum() / there if there else np.nan


def structured():
    """Makes images whose segmentations are right, renamed, merged, split, shifted, or leave entities out."""
    label = np.zeros((8, 12, 12), int)
    label[:, 1:5, 1:5], label[:, 6:11, 2:6], label[:, 3:9, 7:11] = 1, 2, 4  # entity 3 is missing
    slots = label.copy()
    slots[1] = (label[1] + 3) % 5
    slots[2][label[2] == 2] = 1
    slots[3][:3][label[3][:3] == 1] = 3
    slots[4] = np.roll(label[4], 2, axis=1)
    slots[5] = 0
    slots[6][label[6] == 0] = 1
    label[7] = np.where(label[7] == 4, 4, 0)
    return label, slots, 5, 5


def random(entities, number):
    generator = np.random.default_rng(entities)
    shape = (6, 9, 10)
    label = generator.integers(0, entities, shape)
    agree = generator.random(shape) < np.linspace(0, 0.9, 6)[:, None, None]
    slots = np.where(agree, label % number, generator.integers(0, number, shape))
    return label, slots, entities, number


def as_masks(slots, number):
    return torch.from_numpy(np.moveaxis(np.eye(number)[slots], -1, 1))


@pytest.mark.parametrize("case", [structured(), random(4, 7), random(7, 4), random(11, 11), random(2, 1)])
def test_scores_agree_on_images_with_foreground(case):
    labels, assignments, entities, number = case
    label, masks = torch.from_numpy(labels), as_masks(assignments, number)
    ours = {
        "ari_fg": adjusted_rand_index(label, torch.from_numpy(assignments)),
        "ari": adjusted_rand_index(label, torch.from_numpy(assignments), foreground=False),
        "miou": mean_iou(label, masks),
        "mbo": mean_best_overlap(label, masks),
    }
    for image, (true, slots) in enumerate(zip(labels, assignments, strict=True)):
        sizes = (true, slots, entities, number)
        theirs = {
            "ari_fg": (ari_of_object_centric_library(true, slots, 1), ari_of_videosaur(*sizes, foreground=True)),
            "ari": (ari_of_object_centric_library(true, slots, 0), ari_of_videosaur(*sizes, foreground=False)),
            "miou": (iou_of_videosaur(*sizes, "hungarian"),),
            "mbo": (mean_segmentation_covering(true, slots, 1), iou_of_videosaur(*sizes, "overlap")),
        }
        for name, values in theirs.items():
            for value in values:
                assert float(ours[name][image]) == pytest.approx(value, abs=1e-6), (name, image)


def test_an_image_without_foreground():
    label, slots = np.zeros((1, 3, 3), int), np.arange(9).reshape(1, 3, 3) % 2
    assert ari_of_object_centric_library(label[0], slots[0], 1) == 1.0
    assert ari_of_videosaur(label[0], slots[0], 2, 2, foreground=True) == 1.0
    assert mean_segmentation_covering(label[0], slots[0], 1) == 0.0
    assert np.isnan(iou_of_videosaur(label[0], slots[0], 2, 2, "overlap"))
    for metric in (MeanAdjustedRandIndex(), MeanOverlap()):
        metric.update(torch.from_numpy(label), as_masks(slots, 2))
        metric.compute()
        assert (float(metric.images), metric.images_skipped) == (0.0, 1)
