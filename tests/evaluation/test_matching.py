"""Objects and slots, matched."""

import sys
from itertools import permutations

import numpy as np
import pytest
import torch

from iodine_pl.evaluation.matching import mean_iou, object_iou, slot_of_entity


def one_hot(assignment, slots):
    return torch.nn.functional.one_hot(assignment, slots).permute(0, 3, 1, 2).float()


def by_trying_all(label, slots, number):
    """Returns the IoU of each object under the best of all ways to give each object a slot of its own."""
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
    label[0][label[0] == 2] = 0  # an object that does not show
    assignment = torch.randint(0, slots, (12, 6, 5))
    found = object_iou(label, one_hot(assignment, slots), 4)
    means = mean_iou(label, one_hot(assignment, slots))
    for image in range(12):
        best = by_trying_all(label[image].numpy(), assignment[image].numpy(), slots)
        assert float(means[image]) == pytest.approx(np.mean(list(best.values())))
        assert float(found[image].sum()) == pytest.approx(sum(best.values()))
    assert (found[:, 0] == 0).all()


def test_without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    label = torch.tensor([[[0, 1]]])
    with pytest.raises(ImportError, match=r"^object_iou needs scipy: pip install iodine-pl\[experiments\]$"):
        mean_iou(label, one_hot(label, 2))
    assert slot_of_entity(label, one_hot(label, 2), 2).tolist() == [[0, 1]]  # this one needs none


def test_perfect_and_none():
    label = torch.tensor([[[0, 0, 1, 2]], [[0, 0, 0, 0]]])
    iou = mean_iou(label, one_hot(torch.tensor([[[2, 2, 0, 1]], [[0, 1, 2, 0]]]), 3))
    assert iou[0] == 1.0
    assert iou[1].isnan()


def test_slot_that_overlaps_most():
    label = torch.tensor([[[0, 1, 1, 2]]])
    masks = torch.tensor([[[[0.1, 0.6, 0.3, 0.9]], [[0.9, 0.4, 0.7, 0.1]]]])
    assert slot_of_entity(label, masks, 4).tolist() == [[1, 1, 0, 0]]  # 0.6 + 0.3 < 0.4 + 0.7
