"""Imports what a package offers when it is first used, so that a process which needs little of it starts fast.

A process that generates sprites needs neither torch nor Lightning, and one that reads scenes no Lightning: importing
these takes seconds and hundreds of MB in each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["when_used"]


def when_used(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Args:
        package: its name.
        modules: for each name that it offers, the module that defines it.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names
