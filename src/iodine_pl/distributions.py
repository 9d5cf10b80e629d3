"""The distribution of one color channel of one pixel, p(x | mu), and the schedule of its scale in training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "Bernoulli",
    "Bounded",
    "CorrelatedGaussian",
    "Gaussian",
    "LocationDistribution",
    "Logistic",
    "PixelDistribution",
    "ScaleSchedule",
    "make_distribution",
]


class PixelDistribution(Protocol):
    """Describes one color channel of one pixel by a parameter.

    All methods broadcast. They are elementwise, or combine the channels, which are the third axis from the end.
    """

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Returns each channel's term of the log density (or log probability) of ``x``, in nats; they are summed."""

    def score(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Returns the derivative of the summed ``log_prob`` with respect to the parameter."""

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
    """Implements what is the same for all distributions whose parameter is their mean."""

    @property
    def about(self) -> Any:
        return self

    def mean(self, parameter: Tensor) -> Tensor:
        return parameter

    def slope(self, mean: Tensor) -> float:
        return 1.0


@dataclass(frozen=True)
class Logistic(_AboutParameter):
    """Logistic distribution about the parameter. The released code uses it with scale 0.03 (std 0.054)."""

    scale: float = 0.03

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        u = (x - parameter) / self.scale
        # torch's softplus is linear above 20, which is less exact.
        return torch.add(-math.log(self.scale) - u, F.logsigmoid(u), alpha=2.0)

    def score(self, x: Tensor, parameter: Tensor) -> Tensor:
        return torch.tanh((x - parameter) / (2.0 * self.scale)) / self.scale


@dataclass(frozen=True)
class Gaussian(_AboutParameter):
    """Normal distribution about the parameter. The paper states a standard deviation of 0.1."""

    scale: float = 0.1

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        return -0.5 * ((x - parameter) / self.scale).square() - math.log(self.scale) - 0.5 * math.log(2.0 * math.pi)

    def score(self, x: Tensor, parameter: Tensor) -> Tensor:
        return (x - parameter) / self.scale**2


@dataclass(frozen=True)
class CorrelatedGaussian(_AboutParameter):
    r"""Normal distribution about the parameter, whose noise in any two channels has a correlation r,

    .. math:: \Sigma = \sigma^2 \left((1 - r) I + r\, 1 1^T\right).

    A brightness error, equal in all C channels, has variance :math:`(1 + (C - 1) r) \sigma^2`. A color error has
    variance :math:`(1 - r) \sigma^2`, so color counts for more. This is not in the paper. Where objects differ in color
    and the background does not, slots learn colors sooner (docs/learning.md).

    Args:
        scale: sigma of every channel.
        correlation: r, 0 <= r < 1.
    """

    scale: float = 0.1
    correlation: float = 0.5

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        error = x - parameter
        channels, r = error.shape[-3], self.correlation
        log_determinant = math.log1p((channels - 1) * r) + (channels - 1) * math.log1p(-r)
        constant = math.log(self.scale) + 0.5 * log_determinant / channels + 0.5 * math.log(2.0 * math.pi)
        return -0.5 * error * self._weighed(error) - constant

    def score(self, x: Tensor, parameter: Tensor) -> Tensor:
        return self._weighed(x - parameter)

    def _weighed(self, error: Tensor) -> Tensor:
        """Multiplies by the inverse of Sigma."""
        r = self.correlation
        common = error.sum(dim=-3, keepdim=True) * (r / (1.0 + (error.shape[-3] - 1) * r))
        return (error - common) / ((1.0 - r) * self.scale**2)


@dataclass(frozen=True)
class Bounded:
    """Puts a logistic or normal distribution about the sigmoid of its parameter, so that its mean is in (0, 1).

    Neither the paper nor the code bounds the means; EfficientMORL (Emami et al. 2021) and Slot Attention's successors
    do.

    Args:
        about: the distribution, whose own parameter is its mean.
    """

    about: LocationDistribution

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        return self.about.log_prob(x, torch.sigmoid(parameter))

    def score(self, x: Tensor, parameter: Tensor) -> Tensor:
        mean = torch.sigmoid(parameter)
        return self.about.score(x, mean) * self.slope(mean)

    def mean(self, parameter: Tensor) -> Tensor:
        return torch.sigmoid(parameter)

    def slope(self, mean: Tensor) -> Tensor:
        return mean * (1.0 - mean)


@dataclass(frozen=True)
class Bernoulli:
    """Bernoulli distribution whose parameter is its logit, for binary images (x in {0, 1})."""

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        return x * parameter + F.logsigmoid(-parameter)

    def score(self, x: Tensor, parameter: Tensor) -> Tensor:
        return x - torch.sigmoid(parameter)

    def mean(self, parameter: Tensor) -> Tensor:
        return torch.sigmoid(parameter)


def make_distribution(
    kind: Literal["logistic", "gaussian", "bernoulli"] | PixelDistribution,
    scale: float | None = None,
    bounded: bool = False,
    correlation: float = 0.0,
) -> PixelDistribution:
    """Returns the named distribution.

    Args:
        kind: name, or a distribution of your own.
        scale: of a named distribution; None: the published one.
        bounded: pass the mean through a sigmoid; ``bernoulli`` does so anyway.
        correlation: of the channels' noise, 0 <= r < 1; only ``gaussian`` takes r > 0.

    Raises:
        ValueError: for an unknown name, a number out of its range, a scale or correlation that the distribution does
            not take, or a distribution of your own that cannot be bounded.
    """
    if not 0.0 <= correlation < 1.0:
        raise ValueError(f"channel_correlation must be at least 0 and below 1, got {correlation}")
    if correlation > 0.0 and kind != "gaussian":
        raise ValueError(f"channel_correlation is for pixel_distribution='gaussian'; {kind!r} has none")
    if scale is not None and not scale > 0.0:
        raise ValueError(f"pixel_scale must be positive, got {scale}")
    if not isinstance(kind, str):
        if scale is not None:
            raise ValueError(f"{kind!r} has a scale of its own: leave pixel_scale at None")
        if bounded and not hasattr(kind, "about"):
            raise ValueError(f"bounded_means needs a distribution about its mean; {kind!r} has no .about")
        return Bounded(cast("LocationDistribution", kind)) if bounded else kind
    if kind == "bernoulli":
        if scale is not None:
            raise ValueError("pixel_distribution='bernoulli' has no scale: leave pixel_scale at None")
        return Bernoulli()  # already bounded: the mean is the sigmoid of the logit
    if kind not in ("logistic", "gaussian"):
        raise ValueError(f"pixel_distribution must be 'logistic', 'gaussian' or 'bernoulli', got {kind!r}")
    about: LocationDistribution
    if kind == "logistic":
        about = Logistic() if scale is None else Logistic(scale)
    else:
        about = Gaussian() if scale is None else Gaussian(scale)
        about = CorrelatedGaussian(about.scale, correlation) if correlation > 0.0 else about
    return Bounded(about) if bounded else about


class ScaleSchedule:
    """Interpolates the pixel scale linearly over the updates; it is constant before the first and after the last point.

    Args:
        scales: number of updates -> scale.

    Raises:
        ValueError: if it is empty, or has a negative number of updates or a scale that is not positive.
    """

    def __init__(self, scales: Mapping[int, float]) -> None:
        scales = {int(updates): scale for updates, scale in scales.items()}  # strings in the command line's checkpoints
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
