"""Commands that call a function, whose options jsonargparse makes from its signature and docstring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from iodine_pl.checkpoints.classes import imported
from iodine_pl.cli.commands import TOOLS, program
from iodine_pl.cli.errors import CommandError, sentence_of
from iodine_pl.cli.parser import FunctionParser

__all__ = ["run_tool"]


def run_tool(name: str, arguments: Sequence[str]) -> None:
    """Parses the arguments of a command and runs it.

    Raises:
        CommandError: if the user can correct the error.
    """
    tool = TOOLS[name]
    function: Callable[..., Any] = imported(tool.function)
    command = f"{program()} {name}"
    try:
        if name == "generate":
            function(arguments, command)
        else:
            parser = FunctionParser(prog=command, description=tool.summary)
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
