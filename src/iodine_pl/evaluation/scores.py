"""The scores of a decomposition, at one refinement step or at all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from iodine_pl.evaluation.matching import mean_best_overlap, mean_iou
from iodine_pl.evaluation.metrics import adjusted_rand_index, slot_of_pixel
from iodine_pl.result import Decomposition

__all__ = ["SCORES", "step_scores"]

SCORES = {
    "ari_fg": "foreground ARI",
    "ari": "ARI of all pixels",
    "miou": "mean IoU",
    "mbo": "mean best overlap",
    "mse": "MSE",
    "elbo": "ELBO (nats)",
    "kl": "KL (nats)",
}
"""Score -> its name in tables and pictures."""


def step_scores(result: Decomposition, label: Tensor | None) -> dict[str, Tensor]:
    """Scores the refinement steps of every image.

    Args:
        result: with S ``steps``, or without: then S = 1, and the last step is scored.
        label: true entity of every pixel, ``(B, H, W)``; 0 is the background. For sequences ``(B, T+1, H, W)``: each
            step is scored on its own frame. None: only the scores that need no segmentation.

    Returns:
        Each of :data:`SCORES`, ``(B, S)`` float64, on the CPU. NaN where an image has no foreground.
    """
    steps = result.steps or (result,)
    count = len(steps)
    nll, kl, mse = (x.cpu().double()[-count:] for x in result.trace)  # (S, B), (S, B, K), (S, B)
    kl = kl.sum(dim=2)
    of_trace = {"mse": mse.T, "elbo": -(nll + kl).T, "kl": kl.T}
    if label is None:
        return of_trace
    labels = [label] * count if label.ndim == 3 else label.unbind(dim=1)[-count:]
    masks = [(true, step.masks) for true, step in zip(labels, steps, strict=True)]
    both = [(true, slot_of_pixel(given)) for true, given in masks]
    return {
        "ari_fg": torch.stack([adjusted_rand_index(true, slots).cpu() for true, slots in both], dim=1),
        "ari": torch.stack([adjusted_rand_index(true, slots, foreground=False).cpu() for true, slots in both], dim=1),
        "miou": torch.stack([mean_iou(true, given) for true, given in masks], dim=1),
        "mbo": torch.stack([mean_best_overlap(true, given) for true, given in masks], dim=1),
        **of_trace,
    }
