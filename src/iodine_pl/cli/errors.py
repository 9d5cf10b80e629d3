"""Separates errors of the user, which get one line, from mistakes in the code, which keep their traceback."""

from __future__ import annotations

import difflib
import inspect
import traceback
from collections.abc import Iterable
from pathlib import Path

import lightning_fabric
import pytorch_lightning
from lightning_fabric.utilities.exceptions import MisconfigurationException

from iodine_pl.checkpoints.reading import CheckpointError
from iodine_pl.cli.processes import one_is_gone
from iodine_pl.datamodules import SceneFileError, TFRecordError
from iodine_pl.errors import ImageError, MisfitError, UnfitTypeError
from iodine_pl.files.atomic import WriteError, remedy_of
from iodine_pl.files.download import DownloadError

__all__ = ["CommandError", "did_you_mean", "sentence_of"]

_SAID = (
    SceneFileError,
    TFRecordError,
    CheckpointError,
    ImageError,
    MisfitError,
    UnfitTypeError,
    DownloadError,
    WriteError,
    MisconfigurationException,
)


_LIGHTNING = [Path(inspect.getfile(package)).parent for package in (lightning_fabric, pytorch_lightning)]


class CommandError(SystemExit):
    """Ends a command with one sentence for its user.

    It is a SystemExit, so a script that calls :func:`iodine_pl.cli.run_command` also ends with this sentence.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(f"error: {' '.join(sentence.split())}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns a question that names the words most similar to a word; empty if there are none."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(by_lower[name] for name in near)}?" if near else ""


def sentence_of(error: BaseException, about_values: bool = False) -> str | None:
    """Returns the sentence about an error for the user; None if it is a mistake in the code.

    Args:
        error: the exception.
        about_values: it came from code that checks the user's values. A ValueError or TypeError from a ``raise``
            statement is then about a value, and any other is a mistake in the code.
    """
    missing_extra = isinstance(error, ImportError) and "iodine-pl[" in str(error)
    if missing_extra or isinstance(error, _SAID) or _is_raised_by_lightning(error):
        return _with_remedy(str(error))
    if one_is_gone(error):
        return (
            f"another process of this run has ended, or did not answer for --process_timeout seconds ({error}). Its "
            "last output says why; --ckpt_path last continues from the last save"
        )
    if isinstance(error, OSError) and error.filename:
        remedy = remedy_of(error, Path(error.filename).parent)
        return None if remedy is None else f"{error.filename}: {remedy}"
    if about_values and isinstance(error, TypeError | ValueError):
        while isinstance(error.__cause__, ImportError | TypeError | ValueError) and _is_of_parser(error):
            error = error.__cause__  # raised by a constructor
        if isinstance(error, ImportError):
            return sentence_of(error)
        if _where_raised(error) is not None:
            return str(error)
    return None


def _where_raised(error: BaseException) -> traceback.FrameSummary | None:
    """Returns the place of the ``raise`` statement that an error comes from; None if it comes from an operation."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    return last[0] if last and (last[0].line or "").startswith("raise ") else None


def _is_raised_by_lightning(error: BaseException) -> bool:
    """Tells whether Lightning refuses a value or a setting, by a ``raise`` statement with a message for the user."""
    if not isinstance(error, ImportError | RuntimeError | TypeError | ValueError):
        return False
    place = _where_raised(error)
    return place is not None and any(Path(place.filename).is_relative_to(folder) for folder in _LIGHTNING)


def _is_of_parser(error: BaseException) -> bool:
    """Tells whether an error is jsonargparse's wrapper of another."""
    return any("jsonargparse" in frame.filename for frame in traceback.extract_tb(error.__traceback__)[-1:])


def _with_remedy(sentence: str) -> str:
    if sentence.startswith("No supported gpu backend found"):
        return "no GPU was found: leave --trainer.accelerator out, and the fastest device that there is will be taken"
    return sentence
