"""Trained weights: for each NAME a checkpoint ``NAME.ckpt`` without the optimiser's state, and its card ``NAME.yaml``.

The card says what the weights were trained on, by which command, for how long on what, and what they reach.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

__all__ = ["available", "find_weights", "read_card"]

_HERE = Path(__file__).parent


def available() -> tuple[str, ...]:
    """Returns the names of the weights that come with the package."""
    return tuple(sorted(path.stem for path in _HERE.glob("*.ckpt")))


def find_weights(name_or_path: str | Path) -> Path:
    """Returns the checkpoint that is meant: a name of :func:`available`, or a path.

    Raises:
        FileNotFoundError: if it is neither.
    """
    if str(name_or_path) in available():
        return _HERE / f"{name_or_path}.ckpt"
    path = Path(name_or_path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there are no weights {str(name_or_path)!r}: give a checkpoint's path, or one of {', '.join(available())}"
        )
    return path


def read_card(name: str) -> dict[str, Any]:
    """Returns the card of the weights called ``name``."""
    card: dict[str, Any] = yaml.safe_load(find_weights(name).with_suffix(".yaml").read_text())
    return card
