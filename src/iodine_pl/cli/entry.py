"""Starts the command that a command line names."""

from __future__ import annotations

import atexit
import gc
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning_utilities.core.rank_zero import rank_prefixed_message, rank_zero_only

from iodine_pl.callbacks import AdjustedRandIndex, ImagesPerSecond, SegmentationScores, SlotUse
from iodine_pl.cli.arguments import checkpoint_of
from iodine_pl.cli.command import IodineCLI
from iodine_pl.cli.commands import OF_LIGHTNING, TOOLS, answer, program
from iodine_pl.cli.configurations import with_files
from iodine_pl.cli.errors import CommandError, did_you_mean, sentence_of
from iodine_pl.cli.memory import keep_freed_memory
from iodine_pl.cli.messages import show_warnings_in_one_line, silence_advertising
from iodine_pl.cli.parser import CommandParser
from iodine_pl.cli.saving import SaveConfigOfRun
from iodine_pl.cli.stopping import Stopped, stopped_by
from iodine_pl.cli.tools import run_tool
from iodine_pl.files.atomic import remedy_of

__all__ = ["main", "prepare_process", "run_command"]


def prepare_process() -> None:
    """Sets the options that affect the whole process, which a command may set and the library may not."""
    keep_freed_memory()
    gc.freeze()  # what is imported stays in memory; to search it for garbage at the end would take seconds
    # Densities far from a mean are denormal numbers, which slow a CPU down many times. They are set to zero.
    torch.set_flush_denormal(True)
    threading.excepthook = _tell_of_thread
    show_warnings_in_one_line()


def _tell_of_thread(error: threading.ExceptHookArgs) -> None:
    """Prints the traceback of a thread, except for a full disk, which the waiting thread reports."""
    if not (isinstance(error.exc_value, OSError) and remedy_of(error.exc_value, Path())):
        threading.__excepthook__(error)


def main(command: str | None = None) -> int:
    """Runs the command line of this process, and returns its exit status.

    Args:
        command: put before the arguments of the process, if given.
    """
    prepare_process()
    try:
        arguments = complete_arguments(sys.argv[1:] if command is None else [command, *sys.argv[1:]])
        if command is None:
            sys.argv[1:] = arguments  # Lightning starts the other processes of a multi-device run with these
        _run(arguments)
    except CommandError as error:
        rank = getattr(rank_zero_only, "rank", None) or None  # the first process has no prefix
        print(rank_prefixed_message(str(error.code), rank), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        raise Stopped(signal.SIGINT) from None
    finally:
        atexit.register(_ignore_signals)  # registered last, so it runs first
    return 0


def _ignore_signals() -> None:
    """Ignores signals while Python exits, which takes a while."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)


def run_command(arguments: Sequence[str]) -> IodineCLI | None:
    """Runs a command line from Python, and returns what was built: model, data and Trainer, or None if nothing was.

    Raises:
        CommandError: if the user can correct the error.
    """
    return _run(complete_arguments(arguments))


def complete_arguments(arguments: Sequence[str]) -> list[str]:
    """Puts ``fit`` before options without a command, and appends the path of the checkpoint that is meant.

    Without this path, another process of the same command might find a newer run.

    Raises:
        CommandError: if there is no such checkpoint or configuration.
    """
    given = list(arguments)
    if given and given[0].startswith("-") and given[0] not in ("-h", "--help", "--version"):
        given.insert(0, "fit")
    if not given or given[0] not in OF_LIGHTNING:
        return given
    try:
        given = with_files(given)
        checkpoint = checkpoint_of(given[1:])
    except (ImportError, OSError, ValueError) as error:
        raise CommandError(str(error)) from error
    return given if checkpoint is None else [*given, "--ckpt_path", str(checkpoint)]


def _run(arguments: Sequence[str]) -> IodineCLI | None:
    said = answer(arguments)
    if said is not None:
        print(said)
        return None
    command = arguments[0]
    try:
        if command in OF_LIGHTNING:
            return _run_lightning(arguments)
        if command not in TOOLS:
            near = " Did you mean fit?" if command == "train" else did_you_mean(command, [*OF_LIGHTNING, *TOOLS])
            raise CommandError(f"there is no command {command}.{near} {program()} --help lists the commands")
        run_tool(command, arguments[1:])
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        raise CommandError(sentence) from error
    return None


def _run_lightning(arguments: Sequence[str]) -> IodineCLI:
    silence_advertising()
    try:
        return IodineCLI(
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_callback=SaveConfigOfRun,
            trainer_defaults={"callbacks": [AdjustedRandIndex(), SegmentationScores(), ImagesPerSecond(), SlotUse()]},
            parser_class=CommandParser,
            parser_kwargs={"prog": program(), "allow_abbrev": True},
            args=list(arguments),
        )
    except SystemExit as error:
        signum = stopped_by(error)
        if signum is None:
            raise
        raise Stopped(signum) from error
