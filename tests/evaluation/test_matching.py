"""Objects and slots, matched."""

from itertools import permutations

import numpy as np
import pytest
import torch

from iodine_pl.evaluation.matching import MeanOverlap, mean_best_overlap, mean_iou, object_iou, slot_of_entity


def one_hot(assignment, slots):
    return torch.nn.functional.one_hot(assignment, slots).permute(0, 3, 1, 2).float()


def by_trying_all(label, slots, number):
    """Returns the IoU of each object under the best one-to-one assignment, found by trying all."""
    objects = [entity for entity in range(1, label.max() + 1) if (label == entity).any()]
    best = None
    for choice in permutations([*range(number), *[None] * len(objects)], len(objects)):
        iou = {}
        for entity, slot in zip(objects, choice, strict=True):
            true, won = label == entity, slots == slot
            iou[entity] = 0.0 if slot is None else (true & won).sum() / (true | won).sum()
        if best is None or sum(iou.values()) > sum(best.values()) + 1e-12:
            best = iou
    return best


@pytest.mark.parametrize("slots", [2, 4])
def test_best_of_all_matchings(slots):
    label = torch.randint(0, 4, (12, 6, 5))
    label[0][label[0] == 2] = 0  # an invisible object
    assignment = torch.randint(0, slots, (12, 6, 5))
    found = object_iou(label, one_hot(assignment, slots), 4)
    means = mean_iou(label, one_hot(assignment, slots))
    for image in range(12):
        best = by_trying_all(label[image].numpy(), assignment[image].numpy(), slots)
        assert float(means[image]) == pytest.approx(np.mean(list(best.values())))
        assert float(found[image].sum()) == pytest.approx(sum(best.values()))
    assert (found[:, 0] == 0).all()


def test_overlap_of_perfect_and_of_no_masks():
    label = torch.tensor([[[0, 0, 1, 2]], [[0, 0, 0, 0]]])
    iou = mean_iou(label, one_hot(torch.tensor([[[2, 2, 0, 1]], [[0, 1, 2, 0]]]), 3))
    assert iou[0] == 1.0
    assert iou[1].isnan()


def test_two_objects_in_one_slot():
    label, masks = torch.tensor([[[1, 1, 1, 2, 0, 0]]]), one_hot(torch.tensor([[[0, 0, 0, 0, 1, 1]]]), 2)
    assert float(mean_iou(label, masks)) == (3 / 4 + 0) / 2
    assert float(mean_best_overlap(label, masks)) == (3 / 4 + 1 / 4) / 2


def test_background_in_the_slot_of_an_object_counts():
    label = torch.tensor([[[1, 1, 0, 0]]])
    for slots, expected in (([0, 0, 1, 1], 1.0), ([0, 0, 0, 1], 2 / 3), ([0, 0, 0, 0], 1 / 2)):
        masks = one_hot(torch.tensor([[slots]]), 2)
        assert float(mean_iou(label, masks)) == float(mean_best_overlap(label, masks)) == expected


def test_mean_overlap_leaves_out_and_counts_images_without_objects():
    label, masks = torch.randint(0, 3, (6, 5, 5)), torch.rand(6, 4, 5, 5)
    label[2] = 0
    metric = MeanOverlap()
    metric.update(label[:4], masks[:4])
    metric.update(label[4:], masks[4:])
    found = metric.compute()
    for name, score in (("miou", mean_iou), ("mbo", mean_best_overlap)):
        each = score(label, masks)
        assert float(found[name]) == pytest.approx(float(each[~each.isnan()].mean()), abs=1e-12)
    assert metric.images_skipped == 1
    metric.reset()
    metric.update(label[2:3], masks[2:3])
    metric.update(label[:0], masks[:0])
    assert all(value.isnan() for value in metric.compute().values())


def test_slot_that_overlaps_most():
    label = torch.tensor([[[0, 1, 1, 2]]])
    masks = torch.tensor([[[[0.1, 0.6, 0.3, 0.9]], [[0.9, 0.4, 0.7, 0.1]]]])
    assert slot_of_entity(label, masks, 4).tolist() == [[1, 1, 0, 0]]  # 0.6 + 0.3 < 0.4 + 0.7
