"""Checks the range of arguments where they are given, so that an error names the argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["require"]

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
