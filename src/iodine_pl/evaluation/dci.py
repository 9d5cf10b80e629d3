"""Disentanglement, completeness and informativeness (Eastwood & Williams 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iodine_pl.evaluation.extra import require_experiments
from iodine_pl.evaluation.probe import FactorKind

__all__ = ["DCI", "dci", "from_importance"]

_TREES = 50
_LEAF = 5  # minimum of objects in a leaf: deeper trees learn noise, and take longer


class DCI(NamedTuple):
    """Holds the three scores."""

    disentanglement: float
    """1 if each latent matters for only one factor, 0 if each matters equally for all factors."""
    completeness: float
    """1 if only one latent matters for each factor, 0 if all matter equally."""
    informativeness: float
    """R2 or accuracy on test objects, mean over factors."""


def from_importance(importance: NDArray[Any]) -> tuple[float, float]:
    r"""Returns disentanglement and completeness of an importance matrix R, latents by factors.

    .. math::
        \sum_d \frac{\sum_f R_{df}}{\sum_{d'f} R_{d'f}} \Big(1 - \frac{H(R_{d\cdot})}{\log F}\Big), \qquad
        \frac{1}{F} \sum_f \Big(1 - \frac{H(R_{\cdot f})}{\log D}\Big)

    H is the entropy of a row or a column, divided by its sum. Both scores are 0 if R is 0.

    References:
        | A Framework for the Quantitative Evaluation of Disentangled Representations (Eastwood & Williams, 2018)
        | https://openreview.net/forum?id=By-7dz-AZ

    Args:
        importance: R, ``(D, F)``, >= 0.

    Example:
        >>> from_importance(np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))  # one latent for each factor
        (1.0, 1.0)
        >>> from_importance(np.ones((2, 2)))  # every latent matters equally for every factor
        (0.0, 0.0)
        >>> disentanglement, completeness = from_importance(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]))
        >>> disentanglement, round(completeness, 3)  # two latents share the first factor
        (1.0, 0.685)
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
    """Computes DCI by a random forest from all latents to each factor. The importance of a latent is its share of the
    gain of the trees' splits.

    Each number of a scalar factor counts as one factor, and an angle as its cosine and its sine.

    References:
        | A Framework for the Quantitative Evaluation of Disentangled Representations (Eastwood & Williams, 2018)
        | https://openreview.net/forum?id=By-7dz-AZ

    Args:
        train, test: latents ``(N, D)`` and factors, name -> ``(N, ...)``.
        kinds: factor -> kind; other factors are ignored.

    Raises:
        ImportError: if scikit-learn is not installed.

    Example:
        >>> latents = np.random.default_rng(0).uniform(size=(400, 2))
        >>> factors = {"x": latents[:, 0], "shape": (latents[:, 1] > 0.5).astype(int)}
        >>> scenes = (latents, factors)
        >>> min(dci(scenes, scenes, {"x": "scalar", "shape": "category"})) > 0.9
        True
    """
    require_experiments("dci", "sklearn")
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
    """Returns the columns of a factor, each ``(N,)``."""
    flat = values.reshape(len(values), -1)
    if kind == "category":
        return [flat[:, 0].astype(int)]
    if kind == "angle":
        return [np.cos(flat[:, 0]), np.sin(flat[:, 0])]
    return list(flat.T)
