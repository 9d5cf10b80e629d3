"""Says why weights or images do not fit a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ImageError", "MisfitError"]


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
