"""One-to-one assignment, held against scipy's."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from iodine_pl.evaluation.assignment import best_assignment


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (4, 4), (3, 9), (9, 3), (11, 11), (30, 20)])
def test_the_sum_is_the_largest(shape):
    generator = np.random.default_rng(0)
    for kind in range(20):
        scores = generator.random(shape)
        scores[generator.random(shape) < kind / 25] = 0.0  # most pairs of objects and slots do not touch
        if kind % 2:
            scores = scores.round(1)  # equals
        pairs = best_assignment(scores.tolist())
        rows, columns = zip(*pairs, strict=True)
        assert len(pairs) == len(set(rows)) == len(set(columns)) == min(shape)
        assert list(rows) == sorted(rows)
        best = scores[linear_sum_assignment(scores, maximize=True)].sum()
        assert scores[rows, columns].sum() == pytest.approx(best, abs=1e-12)


def test_assignment_without_rows():
    assert best_assignment([]) == []
