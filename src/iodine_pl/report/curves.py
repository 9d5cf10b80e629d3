"""The scalars of a run's event files, and charts of them that take their colors from the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iodine_pl.evaluation.scores import SCORES

__all__ = ["Events", "charts_of", "read_events"]

_SHOWN = {
    "val/ari_fg": SCORES["ari_fg"],
    "val/ari_fg_responsibilities": "foreground ARI of responsibilities",
    **{f"val/{score}": SCORES[score] for score in ("miou", "mbo", "elbo", "mse", "kl")},
    "train/loss": "training loss (nats)",
    "val/mask_entropy": "entropy of the masks (nats)",
    "val/slots_used": "slots used",
}
_WIDTH, _HEIGHT = 270.0, 120.0  # of a chart inside its axes, in SVG units
_MOST = 200  # points of a curve; longer curves are averaged


class Events(NamedTuple):
    """Holds the content of a run's event files."""

    points: Mapping[str, Mapping[int, float]]
    """Scalar -> update -> value."""
    seconds: float
    """Seconds of training and validation, over all commands that continued the run; 0 if unknown."""
    speed: float | None
    """Median of the images per second."""


def read_events(run: Path) -> Events:
    """Reads the event files in the folder of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    points: dict[str, dict[int, float]] = {}
    seconds = 0.0
    wanted = {*_SHOWN, "train/images_per_second"}
    for file in sorted(run.glob("events.out.tfevents.*")):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0, "images": 1, "tensors": 1})
        events.Reload()
        for name in wanted & set(events.Tags()["scalars"]):
            scalars = events.Scalars(name)
            points.setdefault(name, {}).update({event.step: event.value for event in scalars})
            if name == "train/loss":
                seconds += scalars[-1].wall_time - scalars[0].wall_time
    speeds = list(points.pop("train/images_per_second", {}).values())
    return Events(points, seconds, float(np.median(speeds)) if speeds else None)


def charts_of(runs: Sequence[Events]) -> list[dict[str, Any]]:
    """Returns a chart for each scalar: ``title``, ``curves``, and the ticks ``x`` and ``y`` with position and text.

    There is a curve for each run that has the scalar: the run's number, the points of a line, dots if these are few.
    """
    return [
        _chart(title, [run.points.get(name, {}) for run in runs])
        for name, title in _SHOWN.items()
        if any(any(math.isfinite(value) for value in run.points.get(name, {}).values()) for run in runs)
    ]


def _chart(title: str, curves: Sequence[Mapping[int, float]]) -> dict[str, Any]:
    finite = [{step: value for step, value in sorted(points.items()) if math.isfinite(value)} for points in curves]
    values = np.concatenate([list(points.values()) for points in finite if points])
    low, high = _limits(values)
    most = max(max(points, default=0) for points in finite) or 1
    drawn = []
    for number, points in enumerate(finite):
        steps, heights = _thinned(list(points), list(points.values()))
        at = [
            (round(_WIDTH * step / most, 1), round(_HEIGHT * (high - min(max(value, low), high)) / (high - low), 1))
            for step, value in zip(steps, heights, strict=True)
        ]
        if at:
            line = " ".join(f"{x:g},{y:g}" for x, y in at)
            drawn.append({"run": number, "line": line, "dots": at if len(at) < 40 else []})
    return {
        "title": title,
        "curves": drawn,
        "x": [(round(_WIDTH * tick / most, 1), _text(tick)) for tick in _ticks(0.0, most, 4)],
        "y": [(round(_HEIGHT * (high - tick) / (high - low), 1), _text(tick)) for tick in _ticks(low, high, 4)],
    }


def _limits(values: Any) -> tuple[float, float]:
    """Returns the range to show, which leaves out the first losses, since they are far from all others."""
    low, high = (float(edge) for edge in (values.min(), values.max()))
    if len(values) > 10:
        inner = [float(edge) for edge in np.quantile(values, [0.03, 0.97])]
        margin = 2.0 * (inner[1] - inner[0])
        low, high = max(low, inner[0] - margin), min(high, inner[1] + margin)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    return low, high


def _thinned(steps: list[int], values: list[float]) -> tuple[list[float], list[float]]:
    if len(steps) <= _MOST:
        return list(map(float, steps)), values
    parts = np.array_split(np.arange(len(steps)), _MOST)
    return tuple([float(np.mean([of[i] for i in part])) for part in parts] for of in (steps, values))  # type: ignore[return-value]


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Returns at most ``most`` + 1 round numbers from low to high."""
    size = 10.0 ** math.floor(math.log10((high - low) / most))
    size *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (size * factor) <= most)
    first = math.ceil(low / size - 1e-9)
    return [round(tick * size, 10) for tick in range(first, math.floor(high / size + 1e-9) + 1)]


def _text(number: float) -> str:
    return f"{number / 1000:g}k" if abs(number) >= 10_000 else f"{number:g}"
