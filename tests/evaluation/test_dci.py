"""Disentanglement, completeness, informativeness."""

import numpy as np
import pytest

from iodine_pl.evaluation.dci import dci, from_importance


def test_scores_of_known_matrices():
    assert from_importance(np.eye(3)) == pytest.approx((1.0, 1.0))
    assert from_importance(np.ones((4, 3))) == pytest.approx((0.0, 0.0), abs=1e-12)
    # Two latents of one factor each, and one factor of two latents: disentangled, not complete.
    disentanglement, completeness = from_importance(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]))
    assert disentanglement == pytest.approx(1.0)
    assert completeness == pytest.approx((2.0 - np.log(2) / np.log(3)) / 2)
    # A latent without importance has no weight.
    assert from_importance(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))[0] == pytest.approx(1.0)
    assert from_importance(np.zeros((2, 2))) == (0.0, 0.0)


def test_rotated_latents_are_less_disentangled():
    random = np.random.default_rng(0)
    factors = random.uniform(-1, 1, size=(900, 3))
    kinds = {"place": "scalar", "kind": "category"}

    def of(latents):
        parts = [
            (latents[rows], {"place": factors[rows, :2], "kind": (factors[rows, 2:] > 0).astype(int)})
            for rows in (slice(600), slice(600, None))
        ]
        return dci(*parts, kinds)

    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    straight, turned = of(factors * [1.0, 5.0, 0.1]), of(factors @ turn)
    assert straight.disentanglement > 0.95
    assert straight.completeness > 0.95
    assert straight.informativeness > 0.98
    assert turned.disentanglement < straight.disentanglement - 0.2
    assert turned.completeness < straight.completeness - 0.2
    assert dci_of_noise(random).informativeness < 0.3


def dci_of_noise(random):
    part = [(random.normal(size=(300, 3)), {"place": random.normal(size=(300, 1))}) for _ in range(2)]
    return dci(*part, {"place": "scalar"})
