"""Checks for the packages of the extra ``experiments``, which only some scores and pictures need."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["require_experiments"]


def require_experiments(what: str, *packages: str) -> None:
    """Checks that packages of the extra ``experiments`` are installed.

    Args:
        what: needs them; the message begins with it.
        packages: their import names, such as ``sklearn``.

    Raises:
        ImportError: if one is missing. The message is one line that names the missing packages and the extra.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ImportError(f"{what} needs {', '.join(missing)}: pip install iodine-pl[experiments]")
