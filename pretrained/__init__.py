"""Trained weights: for each NAME a checkpoint ``NAME.ckpt`` without the optimizer's state, and its card ``NAME.yaml``.

The card records data, command, duration and hardware of the training, and the scores of the weights.
``IODINE.from_pretrained(NAME)`` loads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

__all__ = ["FOLDER", "available", "read_card"]

FOLDER = Path(__file__).parent


def available() -> tuple[str, ...]:
    """Returns the names of the weights that come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.ckpt")))


def read_card(name: str) -> dict[str, Any]:
    """Returns the card of the weights called ``name``.

    Raises:
        FileNotFoundError: if there are no such weights.
    """
    if name not in available():
        raise FileNotFoundError(f"there are no weights {name!r}: give one of {', '.join(available())}")
    card: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return card
