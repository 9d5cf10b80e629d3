"""Statistics and curves of scores over the refinement steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from iodine_pl.callbacks.experiments.common.figures import line_style, tidy
from iodine_pl.evaluation.scores import SCORES

__all__ = ["plot_steps", "quartiles"]


def quartiles(values: NDArray[Any]) -> dict[str, Any]:
    """Returns the mean, its standard error and the quartiles over axis 0 without NaN, as lists or numbers."""
    low, median, high = np.nanquantile(values, [0.25, 0.5, 0.75], axis=0)
    return {
        "mean": np.nanmean(values, axis=0).tolist(),
        "standard error": (np.nanstd(values, axis=0) / np.sqrt((~np.isnan(values)).sum(axis=0))).tolist(),
        "lower quartile": low.tolist(),
        "median": median.tolist(),
        "upper quartile": high.tolist(),
    }


def plot_steps(curves: Mapping[str, Mapping[str, NDArray[Any]]], scores: tuple[str, ...]) -> Figure:
    """Draws medians over the refinement steps with shaded quartiles: a plot per score, a color and marker per curve.

    Args:
        curves: name -> score -> ``(N, T+1)``.
        scores: of :data:`iodine_pl.evaluation.scores.SCORES`.
    """
    figure = Figure(figsize=(3.6 * len(scores), 3.2), layout="constrained")
    for axes, score in zip(figure.subplots(1, len(scores), squeeze=False)[0], scores, strict=True):
        for number, (name, values) in enumerate(curves.items()):
            low, median, high = np.nanquantile(values[score], [0.25, 0.5, 0.75], axis=0)
            steps = np.arange(len(median))
            style = line_style(number)
            axes.plot(steps, median, label=name, **style)
            axes.fill_between(steps, low, high, alpha=0.15, color=style["color"], linewidth=0)
        axes.set_xlabel("refinement step")
        axes.set_title(SCORES[score])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        tidy(axes)
        if len(curves) > 1:
            axes.legend(fontsize="small")
    return figure
