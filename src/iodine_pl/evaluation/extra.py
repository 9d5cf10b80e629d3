"""The packages that only scores and pictures need: they come with the extra ``experiments``."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["require_experiments"]


def require_experiments(what: str, *packages: str) -> None:
    """Checks that packages of the extra ``experiments`` are installed.

    Args:
        what: needs them; stands first in the message.
        packages: the names that are imported, such as ``sklearn``.

    Raises:
        ImportError: if one is missing. The message is one line that names the missing packages and the extra.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ImportError(f"{what} needs {', '.join(missing)}: pip install iodine-pl[experiments]")
