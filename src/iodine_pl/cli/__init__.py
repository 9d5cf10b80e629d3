"""The command line: Lightning's, with ``fit`` by default and one folder per run."""

from iodine_pl.cli.arguments import complete_arguments
from iodine_pl.cli.command import IodineCLI, main, prepare_process

__all__ = ["IodineCLI", "complete_arguments", "main", "prepare_process"]
