"""The style of the experiments' curves: colors and markers that can also be told apart in gray print."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from iodine_pl.evaluation.palette import hexadecimal, slot_palette

__all__ = ["color_of", "line_style", "tidy"]

_MARKERS = "os^DvPX"
_YELLOW = 4  # its number in the palette; it is too light for a line on white


def color_of(number: int) -> str:
    """Returns the color of the curve or group with this number, 0 for the first."""
    return hexadecimal(slot_palette(number + 3)[number + 1 + (number >= _YELLOW - 1)])


def line_style(number: int) -> dict[str, Any]:
    """Returns color and marker of the curve with this number, 0 for the first."""
    return {"color": color_of(number), "marker": _MARKERS[number % len(_MARKERS)], "markersize": 4, "linewidth": 1.4}


def tidy(axes: Axes) -> None:
    """Removes the frame except the axes, and draws a light grid behind the curves."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(alpha=0.25)
