import itertools

import numpy as np
import pytest
import torch
from reference import DATA

from iodine_pl import MeanAdjustedRandIndex, Trace, adjusted_rand_index
from iodine_pl.evaluation.metrics import MeanTrace


def by_counting_pairs(label, assignment):
    """Returns the ARI from a count of all pairs of pixels."""
    together = agree_label = agree_assignment = pairs = 0
    for i, j in itertools.permutations(range(len(label)), 2):
        same_label, same_assignment = label[i] == label[j], assignment[i] == assignment[j]
        pairs += 1
        together += same_label and same_assignment
        agree_label += same_label
        agree_assignment += same_assignment
    expected = agree_label * agree_assignment / pairs
    return (together - expected) / ((agree_label + agree_assignment) / 2 - expected)


@pytest.mark.parametrize("foreground", [True, False])
def test_ari_equals_counting_pairs(foreground):
    label, assignment = torch.randint(0, 4, (5, 4, 6)), torch.randint(0, 5, (5, 4, 6))
    ours = adjusted_rand_index(label, assignment, foreground)
    assert ours.dtype == torch.float64
    for b in range(5):
        kept = label[b].flatten() > 0 if foreground else torch.ones(24, dtype=torch.bool)
        expected = by_counting_pairs(label[b].flatten()[kept].tolist(), assignment[b].flatten()[kept].tolist())
        assert float(ours[b]) == pytest.approx(expected, abs=1e-12)


def test_ari_equals_the_reference_code_where_that_is_finite():
    with np.load(DATA / "ari.npz") as file:
        arrays = dict(file)
    # (case, image, point, entity or slot): each case and image becomes one image of 60 x 1 pixels
    label, assignment = (torch.from_numpy(arrays[key]).argmax(-1).view(-1, 60, 1) for key in ("true_mask", "pred_mask"))
    compared = 0
    for key, foreground in (("ari", False), ("ari_nobg", True)):
        reference = torch.from_numpy(arrays[key]).double().flatten()
        ours = adjusted_rand_index(label, assignment, foreground)
        counted = (label > 0).any(1).flatten() | (not foreground)
        assert torch.equal(~ours.isnan(), counted)  # the reference calls an image without foreground perfect or NaN
        known = ~reference.isnan() & counted
        torch.testing.assert_close(ours[known], reference[known], rtol=1e-5, atol=1e-6)
        compared += int(known.sum())
    assert compared == 18 + 12


def test_degenerate_images():
    one = torch.ones(1, 3, 3, dtype=torch.long)
    cases = {
        "one object in one slot": (one, one, 1.0),
        "one object cut in two": (one, torch.arange(9).view(1, 3, 3) % 2, 0.0),
        "renamed": (torch.arange(9).view(1, 3, 3) % 3 + 1, (torch.arange(9).view(1, 3, 3) + 1) % 3, 1.0),
        "single pixels": (torch.arange(9).view(1, 3, 3) + 1, torch.arange(9).view(1, 3, 3), 1.0),
    }
    for name, (label, assignment, expected) in cases.items():
        assert float(adjusted_rand_index(label, assignment)) == expected, name
    only_background = adjusted_rand_index(torch.zeros_like(one), one)
    assert only_background.isnan().all()
    one_pixel = torch.zeros(1, 3, 3, dtype=torch.long)
    one_pixel[0, 0, 0] = 1
    assert float(adjusted_rand_index(one_pixel, one)) == 1.0
    with pytest.raises(ValueError, match="must have one shape"):
        adjusted_rand_index(one, one[0])


def test_large_images_do_not_overflow():
    label = torch.zeros(1, 1024, 1024, dtype=torch.long)
    label[:, :512] = 1
    assert float(adjusted_rand_index(label, 1 - label, foreground=False)) == 1.0


def test_mean_leaves_out_and_counts_images_without_foreground():
    label = torch.randint(0, 3, (6, 5, 5))
    label[2] = 0
    masks = torch.rand(6, 4, 5, 5)
    metric = MeanAdjustedRandIndex()
    metric.update(label[:4], masks[:4])
    metric.update(label[4:], masks[4:])
    each = adjusted_rand_index(label, masks.argmax(1))
    assert float(metric.compute()) == pytest.approx(float(each[~each.isnan()].mean()), abs=1e-12)
    assert metric.images_skipped == 1
    metric.reset()
    metric.update(label[2:3], masks[2:3])
    assert metric.compute().isnan()


def test_mean_trace_weighs_images_not_batches():
    trace = Trace(torch.rand(3, 7), torch.rand(3, 7, 2), torch.rand(3, 7))
    metric = MeanTrace(2)
    for part in (slice(0, 5), slice(5, 7)):
        metric.update(Trace(*(term[:, part] for term in trace)))
    means = metric.compute()
    torch.testing.assert_close(means["nll"], trace.nll.double().mean(1))
    torch.testing.assert_close(means["mse"], trace.mse.double().mean(1))
    torch.testing.assert_close(means["kl"], trace.kl.double().sum(2).mean(1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(means["elbo"], -means["nll"] - means["kl"])
