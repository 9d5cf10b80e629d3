"""The commands, and what ``iodine`` answers without running one: it imports nothing that takes long."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from iodine_pl import __version__

__all__ = ["OF_LIGHTNING", "TOOLS", "Tool", "answer", "program"]

OF_LIGHTNING: Mapping[str, str] = {
    "fit": "Trains a model, or continues with --ckpt_path last.",
    "validate": "Scores a trained model on the validation images.",
    "test": "Scores a trained model on the test images.",
    "predict": "Writes the slots of the test images to an HDF5 file.",
}
"""Lightning's commands -> what they do."""


class Tool(NamedTuple):
    """A command that calls a function."""

    function: str
    """The function's path; it is imported when it is needed."""
    summary: str
    """What it does."""


TOOLS: Mapping[str, Tool] = {
    "prepare": Tool(
        "iodine_pl.cli.data.prepare",
        "Downloads the required part of one of DeepMind's datasets and converts it to HDF5.",
    ),
    "generate": Tool(
        "iodine_pl.cli.data.generate",
        "Generates a dataset in files of some thousand scenes each; an interrupted command continues when run again.",
    ),
    "convert": Tool(
        "iodine_pl.cli.weights.convert",
        "Converts a checkpoint of DeepMind's released IODINE to one of Lightning.",
    ),
    "export": Tool(
        "iodine_pl.cli.weights.export",
        "Exports the weights of a checkpoint, to share them.",
    ),
    "decompose": Tool(
        "iodine_pl.cli.decompose.decompose",
        "Draws the slots of your own pictures; labels are not needed.",
    ),
    "report": Tool(
        "iodine_pl.cli.weights.report",
        "Writes one self-contained HTML page about a run or a checkpoint, or about two.",
    ),
}
"""The other commands. ``generate`` parses its arguments itself, because they depend on the dataset."""


def program() -> str:
    """Returns the command that started this program, for messages."""
    name = Path(sys.argv[0]).name
    return {"train.py": "python train.py", "__main__.py": "python -m iodine_pl"}.get(name, "iodine")


def answer(arguments: Sequence[str]) -> str | None:
    """Returns the answer to a command line that only asks for the commands or the version; None for any other."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return _overview()
    return f"iodine-pl {__version__}" if arguments[0] == "--version" else None


def _overview() -> str:
    summaries = {**OF_LIGHTNING, **{name: tool.summary for name, tool in TOOLS.items()}}
    return "\n".join(
        [
            f"usage: {program()} COMMAND [OPTION ...]",
            "",
            "IODINE for PyTorch Lightning: trains, scores and applies models that split images into objects.",
            "",
            "commands:",
            *(f"  {name:<10} {summary}" for name, summary in summaries.items()),
            "",
            f"{program()} COMMAND --help shows the options of a command; --version shows the version.",
        ]
    )
