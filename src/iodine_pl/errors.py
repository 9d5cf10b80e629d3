"""Errors of one line: arguments out of their range, images and weights that do not fit a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["ImageError", "MisfitError", "require"]

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


class ImageError(ValueError):
    """Says in one line why images do not fit a model."""


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
