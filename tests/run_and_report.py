"""The command line, with its metrics written to the file that METRICS names."""

import json
import os
import sys

from iodine_pl.cli import run_command

if __name__ == "__main__":
    cli = run_command(sys.argv[1:])
    if cli.trainer.is_global_zero:
        with open(os.environ["METRICS"], "w") as file:
            json.dump({name: float(value) for name, value in cli.trainer.callback_metrics.items()}, file)
