"""Counts the segmentations that a model finds in one image over many runs (section 4.5 of the paper)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from iodine_pl import adjusted_rand_index
from iodine_pl.callbacks.contract import decompose
from iodine_pl.callbacks.experiments.common.experiment import Experiment
from iodine_pl.callbacks.experiments.common.figures import color_of, tidy
from iodine_pl.callbacks.experiments.common.outcome import Outcome, Picture, Row
from iodine_pl.callbacks.experiments.common.rows import Columns
from iodine_pl.evaluation.order import slot_order
from iodine_pl.evaluation.palette import mask_image, slot_palette

__all__ = ["MultiModality", "distinct_segmentations"]


def distinct_segmentations(assignment: Tensor, counted: Tensor, same: float) -> list[list[int]]:
    """Groups the runs of one image by the segmentation that they found, up to the order of the slots.

    Each run joins the first group with whose first run it has an adjusted Rand index of at least ``same``, or starts a
    new group.

    Args:
        assignment: slot of every pixel in every run, ``(R, H, W)``.
        counted: the pixels to compare, ``(H, W)`` bool.
        same: minimum adjusted Rand index of equal segmentations; 1: only identical ones.

    Returns:
        The groups, the largest first, each as the numbers of its runs.
    """
    groups: list[list[int]] = []
    label = torch.where(counted, assignment + 1, 0)  # pixels with label 0 are left out
    for run in range(len(assignment)):
        for group in groups:
            if float(adjusted_rand_index(label[group[:1]], assignment[run : run + 1])) >= same:
                group.append(run)
                break
        else:
            groups.append([run])
    return sorted(groups, key=len, reverse=True)


class MultiModality(Experiment):
    """Runs every test image many times, each time with other noise, and counts the resulting segmentations.

    Two runs have the same segmentation if their adjusted Rand index is at least ``same``. It is taken over the pixels
    of objects if the data have labels, else over all pixels. The table has a row for each segmentation that is found at
    least twice: its frequency, its mean ELBO, and its ARI with the truth.

    ``multi_modality.png`` has a row for each image: the image, its most frequent segmentations as decoded by the first
    run of each, and the posterior means of all slots in all runs over the refinement steps. With labels, images are
    cropped to the objects. The posterior means are drawn in the plane of their two principal components, in the color
    of the frame of their final segmentation.

    Use few images: ``num_test: 8``.

    Args:
        num_runs: number of runs of each image.
        same: minimum adjusted Rand index of equal segmentations.
        num_shown: number of segmentations in the picture.
        folder: where to write; None: ``experiments/`` in the run's folder.

    Raises:
        ValueError: if there are fewer than two runs.
    """

    name = "multi_modality"
    fields = ("masks", "mean", "nll", "kl")

    def __init__(
        self, num_runs: int = 50, same: float = 0.9, num_shown: int = 4, folder: str | Path | None = None
    ) -> None:
        super().__init__(folder)
        if num_runs < 2 or num_shown < 1:
            raise ValueError(f"need at least 2 runs and 1 to be shown, got {num_runs} and {num_shown}")
        self.num_runs = num_runs
        self.same = same
        self.num_shown = num_shown

    def measure(self, module: pl.LightningModule, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        assignments, elbos, means = [], [], []
        for run in range(self.num_runs):
            result = decompose(module, batch, batch_idx, return_steps=True, run=run)
            assignments.append(result.masks.argmax(dim=1).to(torch.uint8))
            elbos.append(result.elbo)
            means.append(torch.stack([step.mean for step in result.steps or (result,)], dim=1))
        label = batch.get("label")
        return {
            "image": batch["image"],
            "label": torch.ones_like(assignments[0]) if label is None else label,
            "assignment": torch.stack(assignments, dim=1),  # (B, R, H, W)
            "elbo": torch.stack(elbos, dim=1),  # (B, R)
            "mean": torch.stack(means, dim=1),  # (B, R, T+1, K, D)
        }

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, rows: Columns) -> Outcome:
        table: list[Row] = []
        found = []
        for i, index in enumerate(rows["index"]):
            assignment = torch.from_numpy(rows["assignment"][i]).long()
            label = torch.from_numpy(rows["label"][i])
            counted = label > 0
            if not counted.any():
                counted = torch.ones_like(counted)
            groups = distinct_segmentations(assignment, counted, self.same)
            found.append({"image": int(index), "groups": groups, "elbo": rows["elbo"][i].tolist()})
            for rank, group in enumerate(groups):
                if len(group) < 2:
                    break
                truth = adjusted_rand_index(label[None].expand(len(group), -1, -1), assignment[group])
                table.append(
                    {
                        "image": int(index),
                        "segmentation": rank + 1,
                        "share": len(group) / self.num_runs,
                        "ELBO": float(rows["elbo"][i][group].mean()),
                        "ARI with the truth": float(truth.mean()),
                    }
                )
            lonely = sum(len(group) == 1 for group in groups)
            if lonely:
                table.append(
                    {
                        "image": int(index),
                        "segmentation": f"{lonely} found once",
                        "share": lonely / self.num_runs,
                        "ELBO": float(rows["elbo"][i][[group[0] for group in groups if len(group) == 1]].mean()),
                        "ARI with the truth": "",
                    }
                )
        caption = (
            "A row for each image: the image, its most frequent segmentations, and the posterior means of all slots in "
            "all runs over the refinement steps, each in the color of the frame of its segmentation."
        )
        pictures = {"": Picture(self._draw(rows, found), caption)}
        return Outcome(table, pictures, {"runs": self.num_runs, "same": self.same, "found": found})

    def _draw(self, rows: Columns, found: list[dict[str, Any]]) -> Figure:
        columns = self.num_shown + 2
        figure = Figure(figsize=(1.7 * columns + 1.6, 2.1 * len(found)), layout="constrained")
        grid = figure.subplots(len(found), columns, squeeze=False, width_ratios=[1] * (columns - 1) + [1.8])
        slots = rows["mean"].shape[3]
        for i, (axes, image) in enumerate(zip(grid, found, strict=True)):
            label = torch.from_numpy(rows["label"][i])
            part = _part_with_objects(label)
            for tile in axes[1:-1]:
                tile.axis("off")
            picture = np.broadcast_to(rows["image"][i], (3, *rows["image"].shape[2:]))  # images may have one channel
            _show(axes[0], picture.transpose(1, 2, 0).clip(0, 1)[part], "0.6")
            axes[0].set_title(f"image {image['image']}", fontsize="small")
            for rank, (tile, group) in enumerate(zip(axes[1:-1], image["groups"], strict=False)):
                masks = F.one_hot(torch.from_numpy(rows["assignment"][i][group[0]]).long(), slots).permute(2, 0, 1)
                order = slot_order(masks, label)
                colors = slot_palette(slots + 1)[list(order.numbers)]
                _show(tile, mask_image(masks[order.slots].float(), colors).permute(1, 2, 0).numpy()[part], _color(rank))
                elbo = float(rows["elbo"][i][group].mean())
                tile.set_title(f"{len(group) / self.num_runs:.0%}, ELBO {elbo:.0f}", fontsize="small")
            _draw_paths(axes[-1], rows["mean"][i], image["groups"])
        return figure


def _part_with_objects(label: Tensor) -> tuple[slice, slice]:
    """Returns rows and columns of the smallest square around all objects of a label map (H, W), plus two pixels.

    For an image without objects it is the whole image.
    """
    at = (label > 0).nonzero()
    if not len(at):
        return slice(None), slice(None)
    low, high = at.amin(dim=0).tolist(), at.amax(dim=0).tolist()
    side = max(end - start for start, end in zip(low, high, strict=True)) + 5
    first = [max(0, (start + end + 1 - side) // 2) for start, end in zip(low, high, strict=True)]
    return slice(first[0], first[0] + side), slice(first[1], first[1] + side)


def _show(axes: Axes, image: NDArray[Any], frame: str) -> None:
    axes.axis("on")
    axes.imshow(image)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(color=frame, linewidth=2.0)


def _color(rank: int) -> str:
    """Returns the color of a segmentation; rare ones are gray."""
    return color_of(rank) if rank < 7 else "0.6"


def _draw_paths(axes: Axes, means: NDArray[Any], groups: list[list[int]]) -> None:
    """Draws the posterior ``means`` (R, T+1, K, D) of all slots and runs over the steps, in the plane of the last."""
    from sklearn.decomposition import PCA

    plane = PCA(n_components=2).fit(means[:, -1].reshape(-1, means.shape[-1]))
    runs, steps, slots, size = means.shape
    paths = plane.transform(means.reshape(-1, size)).reshape(runs, steps, slots, 2)
    for rank, group in reversed(list(enumerate(groups))):  # the most frequent on top
        for run in group:
            for slot in range(slots):
                axes.plot(*paths[run, :, slot].T, color=_color(rank), linewidth=0.5, alpha=0.4)
                axes.plot(*paths[run, -1, slot], ".", color=_color(rank), markersize=3)
    first, second = plane.explained_variance_ratio_
    axes.set_xlabel(f"component 1 ({first:.0%})", fontsize="x-small")
    axes.set_ylabel(f"component 2 ({second:.0%})", fontsize="x-small")
    axes.tick_params(labelsize="x-small")
    tidy(axes)
