"""Reads the rows of learning curves, and gives their pictures one look."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from iodine_pl.files.atomic import written_beside


def read(file: Path) -> list[dict]:
    """Returns the rows of a CSV file; none if there is no file."""
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def subplots(*shape: int, **arguments: Any) -> tuple[Any, Any]:
    """Returns a figure and its axes, as matplotlib's ``subplots``, without a window."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt.subplots(*shape, layout="constrained", **arguments)


def line_style(number: int) -> dict[str, Any]:
    """Returns color and marker of the line with this number, those of the experiments' curves."""
    from iodine_pl.callbacks.experiments.common import figures  # needs matplotlib

    return figures.line_style(number)


def save(figure: Any, axes: Any, file: Path, **legend: Any) -> None:
    """Writes a figure with grids, and with the legend of its first axes outside of them."""
    from matplotlib import pyplot as plt

    for axis in axes.flat:
        axis.grid(alpha=0.3)
    figure.legend(*axes.flat[0].get_legend_handles_labels(), frameon=False, **legend)
    with written_beside(file) as partial:
        figure.savefig(partial, dpi=90, format="png")
    plt.close(figure)
