"""Predicts the factors of an object from its slot's latent by one linear layer (section 4.3 of the paper)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from iodine_pl.evaluation.extra import require_experiments

__all__ = ["FactorKind", "LinearProbe", "factor_sizes"]

FactorKind = Literal["scalar", "angle", "category"]
"""``scalar``: one or more numbers; ``angle``: in radians, predicted as cosine and sine; ``category``: a code from 0."""

Array = NDArray[np.float64]


def factor_sizes(factors: Mapping[str, NDArray[Any]], kinds: Mapping[str, FactorKind]) -> dict[str, int]:
    """Returns the number of outputs of each factor; a category has as many as its largest code + 1."""
    sizes = {}
    for name, kind in kinds.items():
        values = factors[name].reshape(len(factors[name]), -1)
        if kind == "angle" and values.shape[1] != 1:
            raise ValueError(f"factor {name} has {values.shape[1]} numbers, but an angle is one")
        sizes[name] = {"scalar": values.shape[1], "angle": 2, "category": int(values.max()) + 1}[kind]
    return sizes


class LinearProbe:
    """Maps the latent of a slot to all factors of its object by ``latents @ weight + bias``.

    Args:
        kinds: factor -> kind, in the order of the outputs.
        sizes: factor -> number of outputs: C for a category of C codes, 2 for an angle.
        weight: ``(D, outputs)``.
        bias: ``(outputs,)``.

    Raises:
        ValueError: if the shapes do not fit.
    """

    def __init__(self, kinds: Mapping[str, FactorKind], sizes: Mapping[str, int], weight: Array, bias: Array) -> None:
        if weight.shape[1:] != bias.shape or bias.shape != (sum(sizes.values()),):
            raise ValueError(f"{sum(sizes.values())} outputs, but weight {weight.shape} and bias {bias.shape}")
        self.kinds, self.sizes = dict(kinds), dict(sizes)
        self.weight, self.bias = weight, bias

    @classmethod
    def fit(
        cls, latents: NDArray[Any], factors: Mapping[str, NDArray[Any]], kinds: Mapping[str, FactorKind]
    ) -> LinearProbe:
        """Fits each factor: scalars and angles by least squares, categories by cross-entropy.

        The cross-entropy has a small ridge penalty (1/2 of the squared norm over all objects, for latents in units of
        their standard deviation). Without it there would be no minimum where the categories are separable.

        Args:
            latents: ``(N, D)``, one for each object.
            factors: name -> ``(N, ...)``.
            kinds: factor -> kind; other factors are ignored.

        Raises:
            ImportError: if scikit-learn is not installed.
            ValueError: if an angle has more than one number.
        """
        require_experiments("LinearProbe.fit", "sklearn")
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        center, spread = latents.mean(axis=0), latents.std(axis=0)
        inputs = (latents.astype(np.float64) - center) / np.where(spread > 0.0, spread, 1.0)
        affine = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
        sizes = factor_sizes(factors, kinds)
        maps = []
        for name, kind in kinds.items():
            if kind != "category":
                maps.append(np.linalg.lstsq(affine, _targets(factors[name], kind, sizes[name]), rcond=None)[0])
                continue
            codes = factors[name].reshape(-1).astype(int)
            found = np.zeros((affine.shape[1], sizes[name]))
            found[-1] = -1e3  # a code that was not seen is never predicted
            seen = np.unique(codes)
            if len(seen) == 1:
                found[-1, seen] = 0.0
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)  # only the last 0.1 % of a convex loss
                    fitted = LogisticRegression(max_iter=500).fit(inputs, codes)
                slopes, offsets = fitted.coef_, fitted.intercept_
                if len(seen) == 2:  # scikit-learn fits only the second of two classes
                    slopes, offsets = np.concatenate([-slopes, slopes]) / 2, np.concatenate([-offsets, offsets]) / 2
                found[:-1, seen], found[-1, seen] = slopes.T, offsets
            maps.append(found)
        joined = np.concatenate(maps, axis=1)
        weight = joined[:-1] / np.where(spread > 0.0, spread, 1.0)[:, None]
        return cls(kinds, sizes, weight, joined[-1] - center @ weight)

    def outputs(self, latents: NDArray[Any]) -> dict[str, Array]:
        """Returns the outputs ``(N, size)`` of each factor: numbers, cosine and sine, or logits."""
        joined = latents.astype(np.float64) @ self.weight + self.bias
        ends = np.cumsum(list(self.sizes.values()))
        return dict(zip(self.kinds, np.split(joined, ends[:-1], axis=1), strict=True))

    def score(self, latents: NDArray[Any], factors: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        """Returns R2 of scalars and angles, averaged over their numbers, and the accuracy of categories.

        R2 is 1 - mean squared error / variance of these objects: 0 for always predicting the mean, negative for worse,
        NaN for a number that is the same in all objects.
        """
        scores = {}
        for name, output in self.outputs(latents).items():
            if self.kinds[name] == "category":
                codes = factors[name].reshape(-1).astype(int)
                scores[name] = float((output.argmax(axis=1) == codes).mean())
                continue
            target = _targets(factors[name], self.kinds[name], self.sizes[name])
            error, variance = ((output - target) ** 2).mean(axis=0), target.var(axis=0)
            with np.errstate(invalid="ignore", divide="ignore"):
                scores[name] = float(np.where(variance > 0.0, 1.0 - error / variance, np.nan).mean())
        return scores

    def loss(self, latents: NDArray[Any], factors: Mapping[str, NDArray[Any]]) -> float:
        """Returns the released code's loss, averaged over objects: summed squared errors and cross-entropy in nats."""
        total = 0.0
        for name, output in self.outputs(latents).items():
            if self.kinds[name] == "category":
                codes = factors[name].reshape(-1).astype(int)
                top = output.max(axis=1)
                normalizer = top + np.log(np.exp(output - top[:, None]).sum(axis=1))
                total += float((normalizer - output[np.arange(len(codes)), codes]).mean())
            else:
                target = _targets(factors[name], self.kinds[name], self.sizes[name])
                total += float(((output - target) ** 2).sum(axis=1).mean())
        return total


def _targets(values: NDArray[Any], kind: FactorKind, size: int) -> Array:
    if kind == "angle":
        angle = values.reshape(-1).astype(np.float64)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return values.reshape(len(values), size).astype(np.float64)
