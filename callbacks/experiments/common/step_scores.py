"""Scores of a decomposition at every refinement step, and their curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from iodine_pl import Decomposition, adjusted_rand_index
from iodine_pl.callbacks.experiments.common.figures import line_style, tidy
from iodine_pl.evaluation.matching import mean_best_overlap, mean_iou
from iodine_pl.evaluation.metrics import slot_of_pixel

__all__ = ["SCORES", "plot_steps", "quartiles", "step_scores"]

SCORES = {
    "ari_fg": "foreground ARI",
    "ari": "ARI of all pixels",
    "miou": "mean IoU",
    "mbo": "mean best overlap",
    "mse": "MSE",
    "elbo": "ELBO (nats)",
    "kl": "KL (nats)",
}
"""Score -> its name in pictures."""


def step_scores(result: Decomposition, label: Tensor) -> dict[str, Tensor]:
    """Scores every refinement step of every image.

    Args:
        result: with ``steps``; a model without refinement has one step.
        label: true entity of every pixel, ``(B, H, W)``; 0 is the background. For sequences ``(B, T+1, H, W)``: each
            step is scored on its own frame.

    Returns:
        Each of :data:`SCORES`, ``(B, T+1)`` float64, on the CPU. NaN where an image has no foreground.
    """
    steps = result.steps or (result,)
    nll, kl, mse = (x.cpu().double() for x in result.trace)
    kl = kl.sum(dim=2)
    labels = [label] * len(steps) if label.ndim == 3 else label.unbind(dim=1)
    masks = [(true, step.masks) for true, step in zip(labels, steps, strict=True)]
    both = [(true, slot_of_pixel(given)) for true, given in masks]
    return {
        "ari_fg": torch.stack([adjusted_rand_index(true, slots).cpu() for true, slots in both], dim=1),
        "ari": torch.stack([adjusted_rand_index(true, slots, foreground=False).cpu() for true, slots in both], dim=1),
        "miou": torch.stack([mean_iou(true, given) for true, given in masks], dim=1),
        "mbo": torch.stack([mean_best_overlap(true, given) for true, given in masks], dim=1),
        "mse": mse.T,
        "elbo": -(nll + kl).T,
        "kl": kl.T,
    }


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
        scores: of :data:`SCORES`.
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
