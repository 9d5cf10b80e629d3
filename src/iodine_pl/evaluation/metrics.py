"""The adjusted Rand index of each image, and means over images that do not depend on the number of processes."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor
from torchmetrics import Metric

from iodine_pl.device import reading_waits
from iodine_pl.result import Trace, loss_terms

__all__ = [
    "MeanAdjustedRandIndex",
    "MeanOverCounted",
    "MeanTrace",
    "adjusted_rand_index",
    "contingency_table",
    "slot_of_pixel",
    "to_device",
]

AnyMetric = TypeVar("AnyMetric", bound=Metric)


def to_device(metric: AnyMetric, device: torch.device) -> AnyMetric:
    """Moves ``metric`` to ``device``. For Apple's GPUs, which have no float64, it stays on the CPU."""
    return metric if device.type == "mps" else metric.to(device)


def slot_of_pixel(masks: Tensor) -> Tensor:
    """Returns the slot with the largest of ``masks`` (B, K, H, W) at every pixel, the first if equal: (B, H, W)."""
    return masks.max(dim=1).indices  # argmax over an axis other than the last takes a CPU five times as long


def contingency_table(label: Tensor, assignment: Tensor, entities: int, slots: int) -> Tensor:
    """Counts the pixels of every true entity in every slot.

    Args:
        label: true entity of every pixel, ``(B, H, W)`` integers from 0 to L - 1.
        assignment: slot of every pixel, ``(B, H, W)`` integers from 0 to K - 1.
        entities: L.
        slots: K.

    Returns:
        ``(B, L, K)`` in float64.
    """
    cell = label.flatten(1).long() * slots + assignment.flatten(1).long()
    table = torch.zeros(len(cell), entities * slots, dtype=torch.float64, device=cell.device)
    table.scatter_add_(1, cell, torch.ones(cell.shape, dtype=torch.float64, device=cell.device))
    return table.view(len(cell), entities, slots)


def adjusted_rand_index(
    label: Tensor,
    assignment: Tensor,
    foreground: bool = True,
    entities: int | None = None,
    slots: int | None = None,
) -> Tensor:
    r"""Compares two segmentations of each image: 1 if equal up to renaming, 0 on average for a random one.

    .. math:: \frac{r - ab / n(n-1)}{(a+b)/2 - ab / n(n-1)}, \quad r = \sum_{ij} n_{ij} (n_{ij} - 1)

    Here :math:`n_{ij}` is the number of pixels of true entity i in slot j, and n is the number of all pixels. The sums
    a and b are like r, but over the row sums :math:`\sum_j n_{ij}` and the column sums :math:`\sum_i n_{ij}`. The
    result equals the metric of the reference code wherever that is not 0/0.

    References:
        | Comparing partitions (Hubert & Arabie, 1985)
        | https://doi.org/10.1007/BF01908075

    Args:
        label: true entity of every pixel, ``(B, H, W)`` integers >= 0; 0 is the background.
        assignment: slot of every pixel, ``(B, H, W)`` integers >= 0.
        foreground: count only the pixels whose label is not 0, whatever slot they are in.
        entities, slots: above every label and every assignment. None: found in the tensors, which waits for a GPU.

    Returns:
        ``(B,)`` in float64. 1 where the denominator is 0 (both segmentations are one piece, or both all single pixels);
        NaN where no pixel is counted.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> label = torch.tensor([[[0, 1, 1], [0, 2, 2]]])
        >>> adjusted_rand_index(label, torch.tensor([[[3, 0, 0], [1, 2, 2]]]))  # the objects, under other names
        tensor([1.], dtype=torch.float64)
        >>> adjusted_rand_index(label, torch.tensor([[[3, 0, 0], [1, 2, 2]]]), foreground=False)
        tensor([0.7619], dtype=torch.float64)
        >>> adjusted_rand_index(label, torch.tensor([[[0, 0, 0], [0, 0, 0]]]))  # all in one slot
        tensor([0.], dtype=torch.float64)
    """
    if label.shape != assignment.shape:
        raise ValueError(f"label {tuple(label.shape)} and assignment {tuple(assignment.shape)} must have one shape")
    entities, slots = _above(label) if entities is None else entities, _above(assignment) if slots is None else slots
    table = contingency_table(label, assignment, entities, slots)
    if foreground:
        table = table[:, 1:]

    def pairs(count: Tensor) -> Tensor:
        return count * (count - 1.0)

    pixels = table.sum(dim=(1, 2))
    index = pairs(table).sum(dim=(1, 2))
    rows, columns = pairs(table.sum(dim=2)).sum(dim=1), pairs(table.sum(dim=1)).sum(dim=1)
    expected = rows * columns / pairs(pixels).clamp(min=1.0)
    denominator = (rows + columns) / 2.0 - expected
    perfect = torch.ones_like(index)
    ari = torch.where(
        denominator == 0.0, perfect, (index - expected) / torch.where(denominator == 0.0, 1.0, denominator)
    )
    return torch.where(pixels == 0.0, torch.nan, ari)


def _above(x: Tensor) -> int:
    return int(x.max()) + 1 if x.numel() else 1


class MeanOverCounted(Metric):
    """Averages values over the images that have them, with the same result on any number of processes.

    A subclass's ``update`` calls :meth:`add`, and its ``compute`` calls :meth:`mean`. After that, ``images_skipped`` is
    the number of images without values on all processes. The mean is NaN if no image has values.

    Args:
        shape: of each image's values.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    total: Tensor
    images: Tensor
    skipped: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.images_skipped = 0
        for name, size in (("total", shape), ("images", ()), ("skipped", ())):
            self.add_state(name, torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")

    def add(self, values: Tensor) -> None:
        """Adds images with ``values`` (..., B), which are NaN for an image without values."""
        values = values.to(self.total.device)
        counted = ~values.isnan()
        of_image = counted[(0,) * (counted.ndim - 1)]  # (B,): an image has all values or none
        self.total += values.nan_to_num(nan=0.0).sum(dim=-1)
        self.images += of_image.sum()
        self.skipped += (~of_image).sum()

    def mean(self) -> Tensor:
        """Returns the means, float64, in the shape of an image's values."""
        self.images_skipped = int(self.skipped)
        return self.total / self.images


class MeanAdjustedRandIndex(MeanOverCounted):
    """Averages :func:`adjusted_rand_index` over images; those without any counted pixel are left out.

    Args:
        foreground: leave out the background, as in the paper; False: count all pixels.

    Example:
        >>> metric = MeanAdjustedRandIndex()
        >>> label = torch.tensor([[[0, 1, 2]], [[0, 0, 0]]])  # the second image has no foreground
        >>> metric.update(label, torch.eye(3).expand(2, 3, 3).unsqueeze(2))  # masks: each pixel has a slot of its own
        >>> metric.compute(), metric.images_skipped
        (tensor(1., dtype=torch.float64), 1)
    """

    def __init__(self, foreground: bool = True) -> None:
        super().__init__()
        self.foreground = foreground

    def update(self, label: Tensor, masks: Tensor) -> None:
        """Adds images: true ``label`` (B, H, W), and ``masks`` (B, K, H, W) whose largest over K takes the pixel."""
        device = self.total.device
        entities = 256 if label.dtype == torch.uint8 and reading_waits(label) else None  # known without reading them
        label, assignment = label.to(device), slot_of_pixel(masks).to(device)
        self.add(adjusted_rand_index(label, assignment, self.foreground, entities, slots=masks.shape[1]))

    def compute(self) -> Tensor:
        """Returns the mean, a float64 scalar."""
        return self.mean()


class MeanTrace(Metric):
    """Averages the terms of the loss over images, at every refinement step.

    Lightning's own mean over processes is wrong where they have different numbers of images.

    Args:
        num_iterations: T of the traces.
    """

    full_state_update = False

    total: Tensor
    images: Tensor

    def __init__(self, num_iterations: int) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(3, num_iterations + 1, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, trace: Trace) -> None:
        """Adds the images of a trace."""
        terms = torch.stack([trace.nll, trace.kl.sum(dim=2), trace.mse])  # (3, T+1, B)
        self.total += terms.to(self.total.device).sum(dim=2, dtype=torch.float64)
        self.images += terms.shape[2]

    def compute(self) -> dict[str, Tensor]:
        """Returns ``nll``, ``kl`` and ``elbo`` in nats and ``mse`` in squared intensities, each (T+1,)."""
        return loss_terms(*(self.total / self.images))
