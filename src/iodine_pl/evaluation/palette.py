"""The colors of slots, which can be told apart by color-blind readers and in gray print."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["BACKGROUND", "as_rgb", "hexadecimal", "ink_on", "mask_image", "slot_palette"]

BACKGROUND = "c4c4c4"
"""The color of the background and its slot."""

# The hues of Okabe & Ito without black. Neighbors also differ in lightness. Pure colors are left to generated objects.
_HUES = ("0072b2", "e69f00", "009e73", "f0e442", "cc79a7", "d55e00", "56b4e9")
_DARKER = 0.55  # from one round of hues to the next


def slot_palette(count: int) -> Tensor:
    """Returns colors ``(count, 3)`` in [0, 1]: number 0 is the background's gray, the others are for objects.

    References:
        | Color Universal Design (Okabe & Ito, 2008)
        | https://jfly.uni-koeln.de/color/
    """
    hues = [
        [part * _DARKER ** (k // len(_HUES)) for part in as_rgb(_HUES[k % len(_HUES)])]
        for k in range(max(count - 1, 0))
    ]
    return torch.tensor([as_rgb(BACKGROUND), *hues][:count])


def mask_image(masks: Tensor, colors: Tensor) -> Tensor:
    """Mixes ``colors`` (K, 3) by ``masks`` (..., K, H, W); returns ``(..., 3, H, W)`` in [0, 1]."""
    return torch.einsum("...khw,kc->...chw", masks, colors.to(masks))


def as_rgb(color: str) -> list[float]:
    """Returns a hexadecimal color as three numbers in [0, 1].

    Example:
        >>> as_rgb("ff0033")
        [1.0, 0.0, 0.2]
    """
    return [int(color[i : i + 2], 16) / 255 for i in (0, 2, 4)]


def hexadecimal(color: Tensor) -> str:
    """Returns a color (3,) in [0, 1] as ``#rrggbb``."""
    return "#" + "".join(f"{round(part * 255):02x}" for part in color.tolist())


def ink_on(color: Tensor) -> str:
    """Returns the color of legible text on a color (3,) in [0, 1]: ``#000000`` or ``#ffffff``."""
    red, green, blue = color.pow(2.2).tolist()
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.25 else "#ffffff"
