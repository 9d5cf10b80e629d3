"""Disentanglement, completeness and informativeness (Eastwood & Williams 2018, ICLR)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iodine_pl.evaluation.probe import FactorKind

__all__ = ["DCI", "dci", "from_importance"]

_TREES = 50
_LEAF = 5  # objects in a leaf at least: deeper trees learn noise, and take longer


class DCI(NamedTuple):
    """Holds the three scores."""

    disentanglement: float
    """1 where each latent matters for one factor alone, 0 where each matters for all factors alike."""
    completeness: float
    """1 where one latent alone matters for each factor, 0 where all matter alike."""
    informativeness: float
    """R2 or accuracy on test objects, mean over factors."""


def from_importance(importance: NDArray[Any]) -> tuple[float, float]:
    """Returns disentanglement and completeness of an importance matrix ``(D, F)`` >= 0, latents by factors.

    One minus the entropy of each row, in units of log F, weighted by the row's share of the whole; and one minus the
    entropy of each column, in units of log D, mean over factors.
    """
    latents, factors = importance.shape
    total = importance.sum()
    if total <= 0.0:
        return 0.0, 0.0
    rows = 1.0 - _entropy(importance, axis=1) / max(np.log(factors), 1e-12)
    columns = 1.0 - _entropy(importance, axis=0) / max(np.log(latents), 1e-12)
    return float((rows * importance.sum(axis=1) / total).sum()), float(columns.mean())


def _entropy(weights: NDArray[Any], axis: int) -> NDArray[np.float64]:
    total = weights.sum(axis=axis, keepdims=True)
    share = np.where(total > 0.0, weights / np.where(total > 0.0, total, 1.0), 1.0 / weights.shape[axis])
    entropy: NDArray[np.float64] = -(share * np.log(np.where(share > 0.0, share, 1.0))).sum(axis=axis)
    return entropy


def dci(
    train: tuple[NDArray[Any], Mapping[str, NDArray[Any]]],
    test: tuple[NDArray[Any], Mapping[str, NDArray[Any]]],
    kinds: Mapping[str, FactorKind],
) -> DCI:
    """Fits a random forest from all latents to each factor; the importance of a latent is its share in what the trees'
    splits gain.

    Each number of a scalar factor counts as one factor, an angle as its cosine and its sine.

    Args:
        train, test: latents ``(N, D)`` and factors, name -> ``(N, ...)``.
        kinds: which factors, and what they are.
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    importance, scores = [], []
    options = {"n_estimators": _TREES, "min_samples_leaf": _LEAF, "random_state": 0, "max_features": None}
    for name, kind in kinds.items():
        for of_train, of_test in zip(_single(train[1][name], kind), _single(test[1][name], kind), strict=True):
            make = RandomForestClassifier if kind == "category" else RandomForestRegressor
            forest = make(**options).fit(train[0], of_train)
            importance.append(forest.feature_importances_)
            scores.append(float(forest.score(test[0], of_test)))
    disentanglement, completeness = from_importance(np.stack(importance, axis=1))
    return DCI(disentanglement, completeness, float(np.mean(scores)))


def _single(values: NDArray[Any], kind: FactorKind) -> list[NDArray[Any]]:
    """Returns the numbers of a factor one by one, each ``(N,)``."""
    flat = values.reshape(len(values), -1)
    if kind == "category":
        return [flat[:, 0].astype(int)]
    if kind == "angle":
        return [np.cos(flat[:, 0]), np.sin(flat[:, 0])]
    return list(flat.T)
