"""Shows what other code says in the form that suits a user of the command."""

from __future__ import annotations

import logging
import warnings

__all__ = ["show_warnings_in_one_line", "silence_advertising"]


def show_warnings_in_one_line() -> None:
    """Shows every warning of this process as ``warning: ...``.

    Only a warning about code, such as a FutureWarning, names its file and line.
    """

    def in_one_line(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        place = "" if issubclass(category, UserWarning) else f" ({filename}:{lineno})"
        return f"warning: {' '.join(str(message).split())}{place}\n"

    warnings.formatwarning = in_one_line


def silence_advertising() -> None:
    """Hides messages that the user can do nothing about, and advertising."""
    # Continuing in a run's folder is intended, so its checkpoints are expected.
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)  # Lightning 2.6 with torch 2.13
    # No worker is the default here, and the fastest for HDF5 files.
    warnings.filterwarnings("ignore", "The '.*_dataloader' does not have many workers")
    # The weights of a checkpoint are the averaged ones already; only a training needs the rest of their state.
    warnings.filterwarnings("ignore", "You're using the WeightAveraging callback, but loading a checkpoint outside")
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    if _no_tip not in logger.filters:
        logger.addFilter(_no_tip)


def _no_tip(record: logging.LogRecord) -> bool:
    return "litlogger" not in record.getMessage() and "litmodels" not in record.getMessage()
