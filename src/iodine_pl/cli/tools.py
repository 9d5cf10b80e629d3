"""Commands that call a function, whose options jsonargparse makes from its signature and docstring."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from iodine_pl.checkpoints.classes import imported
from iodine_pl.cli.errors import CommandError, sentence_of
from iodine_pl.cli.parser import FunctionParser

__all__ = ["TOOLS", "program", "run_tool", "summary_of"]

TOOLS: Mapping[str, str] = {
    "prepare": "iodine_pl.cli.data.prepare",
    "generate": "iodine_pl.cli.data.generate",
    "convert": "iodine_pl.cli.weights.convert",
    "export": "iodine_pl.cli.weights.export",
    "decompose": "iodine_pl.cli.decompose.decompose",
    "report": "iodine_pl.cli.weights.report",
}
"""Command -> its function, imported when it is needed. ``generate`` parses its arguments itself, because they depend on
the dataset."""


def program() -> str:
    """Returns the command that started this program, for messages."""
    name = Path(sys.argv[0]).name
    return {"train.py": "python train.py", "__main__.py": "python -m iodine_pl"}.get(name, "iodine")


def _function(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = imported(TOOLS[name])
    return function


def summary_of(name: str) -> str:
    """Returns the first line of a command's description."""
    return (inspect.getdoc(_function(name)) or "").split("\n")[0]


def run_tool(name: str, arguments: Sequence[str]) -> None:
    """Parses the arguments of a command and runs it.

    Raises:
        CommandError: if the user can correct the error.
    """
    function = _function(name)
    command = f"{program()} {name}"
    try:
        if name == "generate":
            function(arguments, command)
        else:
            parser = FunctionParser(prog=command, description=summary_of(name))
            parser.add_function(function)
            function(**parser.parse_args(arguments).as_dict())
    except OSError as error:
        raise CommandError(sentence_of(error) or _of_system(error)) from error
    except (TypeError, ValueError) as error:
        sentence = sentence_of(error, about_values=True)
        if sentence is None:
            raise
        raise CommandError(sentence) from error


def _of_system(error: OSError) -> str:
    if not error.filename:
        return str(error)
    if isinstance(error, FileNotFoundError):
        return f"there is no file {error.filename}"
    return f"{error.filename}: {error.strerror}"
