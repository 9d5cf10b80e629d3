"""Replaces the name of a shipped configuration by its path."""

from __future__ import annotations

import re
from collections.abc import Sequence

from iodine_pl.configs import find_configuration

__all__ = ["with_files"]


def with_files(arguments: Sequence[str]) -> list[str]:
    """Replaces each name of a configuration that comes with the package by its path.

    Raises:
        FileNotFoundError: if there is neither a file nor a configuration of that name.
    """
    spelled = list(arguments)
    for i, word in enumerate(arguments):
        option, equals, value = word.partition("=")
        if option == "--config" and equals:
            spelled[i] = f"{option}={_file(value)}"
        elif i and arguments[i - 1] in ("--config", "-c"):
            spelled[i] = _file(word)
    return spelled


def _file(value: str) -> str:
    """Finds the file, unless the value is a configuration written out on the command line."""
    return value if re.search(r"[{:\n]", value) else str(find_configuration(value))
