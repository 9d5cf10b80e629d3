"""Errors and warnings of one line: arguments out of their range, images and weights that do not fit a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

__all__ = ["ImageError", "MisfitError", "UnfitTypeError", "require", "warn_of_values"]

_RULES: dict[str, Callable[[float], bool]] = {
    "at least 1": lambda value: value >= 1,
    "positive": lambda value: value > 0,
    "not negative": lambda value: value >= 0,
    "at least 0 and below 1": lambda value: 0 <= value < 1,
}


def require(rule: str, **arguments: Any) -> None:
    """Checks numbers, or each number of a list or tuple, which must not be empty; None is skipped.

    Args:
        rule: ``at least 1``, ``positive``, ``not negative`` or ``at least 0 and below 1``. No rule takes NaN.
        arguments: name -> value.

    Raises:
        ValueError: if one breaks the rule.
    """
    for name, value in arguments.items():
        several = isinstance(value, list | tuple)
        if several and not value:
            raise ValueError(f"{name} must not be empty")
        if not all(each is None or _RULES[rule](each) for each in (value if several else (value,))):
            words = f"must not be {rule[4:]}" if rule.startswith("not ") else f"must be {rule}"
            raise ValueError(f"{name} {words}, got {value}")


def warn_of_values(images: Tensor, model: str, binary: bool) -> None:
    """Warns of float images out of [0, 1], and of gray pixels where all should be 0 or 1.

    Args:
        images: of any shape.
        model: its name, for the message.
        binary: whether the model needs pixels of 0 or 1.
    """
    low, high = images.aminmax()
    if low < 0 or high > 1:
        rank_zero_warn(
            f"{model} takes float images in [0, 1], but the first are in [{low:g}, {high:g}]: divide those of 0 to 255 "
            "by 255, or give them as uint8"
        )
    elif binary and ((images > 0) & (images < 1)).any():
        rank_zero_warn(
            f"{model} with pixel_distribution='bernoulli' takes pixels of 0 or 1, but the first images have values "
            "between: round them, or train with another pixel_distribution"
        )


class ImageError(ValueError):
    """Says in one line why images do not fit a model."""


class UnfitTypeError(TypeError):
    """Says in one line why the type of a batch, of its images or of the parameters does not fit a model."""


class MisfitError(RuntimeError):
    """Says in one line why weights do not fit a model."""

    @classmethod
    def between(cls, own: Mapping[str, Any], given: Mapping[str, Any], error: Exception) -> MisfitError:
        """Names the first parameter that differs, and the number of the others.

        Args:
            own: the model's weights.
            given: the weights to load.
            error: PyTorch's message, which is repeated where no shape differs.
        """
        here, there = ({name: tuple(getattr(x, "shape", ())) for name, x in each.items()} for each in (own, given))
        names = [name for name in here | there if here.get(name) != there.get(name)]
        if not names:
            return cls(" ".join(str(error).split()))
        return cls(
            f"the weights do not fit the model: {names[0]} is {there.get(names[0], 'missing')} in the checkpoint and "
            f"{here.get(names[0], 'missing')} in the model, and {len(names) - 1} more parameter(s) differ. Give the "
            "model the arguments that it was trained with, or leave them out where the checkpoint names them"
        )
