"""The distribution of one color channel of one pixel, p(x | mu), and its scale in the course of training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "Bernoulli",
    "Bounded",
    "Gaussian",
    "LocationDistribution",
    "Logistic",
    "PixelDistribution",
    "ScaleSchedule",
    "make_distribution",
]


class PixelDistribution(Protocol):
    """Describes one colour channel of one pixel by a parameter; all methods are elementwise and broadcast."""

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Returns the log density (or log probability) of ``x`` in nats."""

    def score(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Returns the derivative of ``log_prob`` with respect to the parameter."""

    def mean(self, parameter: Tensor) -> Tensor:
        """Returns the mean of the distribution."""


class LocationDistribution(PixelDistribution, Protocol):
    """Describes a channel by a density about its mean, which is a function of the parameter."""

    @property
    def about(self) -> PixelDistribution:
        """The same density, with the mean itself as its parameter."""

    def slope(self, mean: Tensor) -> Tensor | float:
        """Returns the derivative of the mean with respect to the parameter, where the mean is ``mean``."""


class _AboutParameter:
    """Is shared by the distributions whose parameter is their mean."""

    @property
    def about(self) -> Any:
        return self

    def mean(self, parameter: Tensor) -> Tensor:
        return parameter

    def slope(self, mean: Tensor) -> float:
        return 1.0


class Logistic(_AboutParameter):
    """Logistic distribution about the parameter. The released code uses it with scale 0.03 (std 0.054)."""

    def __init__(self, scale: float = 0.03) -> None:
        self.scale = scale

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        u = (x - parameter) / self.scale
        return 2.0 * F.logsigmoid(u) - u - math.log(self.scale)  # torch's softplus is cut at 20: less exact

    def score(self, x: Tensor, parameter: Tensor) -> Tensor:
        return torch.tanh((x - parameter) / (2.0 * self.scale)) / self.scale


class Gaussian(_AboutParameter):
    """Normal distribution about the parameter. The paper says that it uses it with standard deviation 0.1."""

    def __init__(self, scale: float = 0.1) -> None:
        self.scale = scale

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        return -0.5 * ((x - parameter) / self.scale).square() - math.log(self.scale) - 0.5 * math.log(2.0 * math.pi)

    def score(self, x: Tensor, parameter: Tensor) -> Tensor:
        return (x - parameter) / self.scale**2


class Bounded:
    """Puts a logistic or normal distribution about the sigmoid of its parameter, so that its mean is in (0, 1).

    Neither the paper nor the code bounds the means; EfficientMORL (Emami et al. 2021) and Slot Attention's successors
    do.

    Args:
        about: the distribution, whose own parameter is its mean.
    """

    def __init__(self, about: Logistic | Gaussian) -> None:
        self.about = about

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        return self.about.log_prob(x, torch.sigmoid(parameter))

    def score(self, x: Tensor, parameter: Tensor) -> Tensor:
        mean = torch.sigmoid(parameter)
        return self.about.score(x, mean) * self.slope(mean)

    def mean(self, parameter: Tensor) -> Tensor:
        return torch.sigmoid(parameter)

    def slope(self, mean: Tensor) -> Tensor:
        return mean * (1.0 - mean)


class Bernoulli:
    """Bernoulli distribution whose parameter is its logit, for binary images (x in {0, 1})."""

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        return x * parameter + F.logsigmoid(-parameter)

    def score(self, x: Tensor, parameter: Tensor) -> Tensor:
        return x - torch.sigmoid(parameter)

    def mean(self, parameter: Tensor) -> Tensor:
        return torch.sigmoid(parameter)


def make_distribution(
    name: Literal["logistic", "gaussian", "bernoulli"], scale: float | None = None, bounded: bool = False
) -> PixelDistribution:
    """Returns the named distribution, with its published scale where ``scale`` is None, its mean bounded if wanted.

    Raises:
        ValueError: for an unknown name, a scale that is not positive, or any scale with ``bernoulli``.
    """
    if scale is not None and not scale > 0.0:
        raise ValueError(f"pixel_scale must be positive, got {scale}")
    if name == "bernoulli":
        if scale is not None:
            raise ValueError("pixel_distribution='bernoulli' has no scale: leave pixel_scale at None")
        return Bernoulli()  # bounded as it is: the mean is the sigmoid of the logit
    if name not in ("logistic", "gaussian"):
        raise ValueError(f"pixel_distribution must be 'logistic', 'gaussian' or 'bernoulli', got {name!r}")
    kind = Logistic if name == "logistic" else Gaussian
    about = kind() if scale is None else kind(scale)
    return Bounded(about) if bounded else about


class ScaleSchedule:
    """Gives the pixel scale after so many updates: straight lines between those given, constant before and after.

    Args:
        scales: updates done -> scale.

    Raises:
        ValueError: if it is empty, or has a negative number of updates or a scale that is not positive.
    """

    def __init__(self, scales: Mapping[int, float]) -> None:
        scales = {int(updates): scale for updates, scale in scales.items()}  # a checkpoint of the command line has text
        if not scales or min(scales) < 0 or not all(scale > 0.0 for scale in scales.values()):
            raise ValueError(
                f"pixel_scale must be positive, or scales by the updates done, like {{0: 0.3, 1000: 0.5}}; got {scales}"
            )
        self.updates, self.scales = zip(*sorted(scales.items()), strict=True)

    def __call__(self, updates: int) -> float:
        return float(np.interp(updates, self.updates, self.scales))

    @property
    def last(self) -> float:
        """Scale of the model at the end of training."""
        return float(self.scales[-1])
