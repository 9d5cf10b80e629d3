"""The command ``iodine``: Lightning's commands with one folder per run, and commands that call a function."""

from iodine_pl.cli.command import IodineCLI
from iodine_pl.cli.entry import main, prepare_process, run_command
from iodine_pl.cli.errors import CommandError

__all__ = ["CommandError", "IodineCLI", "main", "prepare_process", "run_command"]
