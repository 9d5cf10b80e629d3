"""The command ``iodine``: Lightning's commands with one folder per run, and commands that call a function."""

from typing import TYPE_CHECKING

from iodine_pl.importing import when_used

if TYPE_CHECKING:
    from iodine_pl.cli.command import IodineCLI
    from iodine_pl.cli.entry import main, prepare_process, run_command
    from iodine_pl.cli.errors import CommandError

__all__ = ["CommandError", "IodineCLI", "main", "prepare_process", "run_command"]

__getattr__, __dir__ = when_used(
    __name__,
    {
        "CommandError": "iodine_pl.cli.errors",
        "IodineCLI": "iodine_pl.cli.command",
        "main": "iodine_pl.cli.entry",
        "prepare_process": "iodine_pl.cli.entry",
        "run_command": "iodine_pl.cli.entry",
    },
)
