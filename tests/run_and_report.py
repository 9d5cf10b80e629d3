"""The command line, with its metrics written to the file that METRICS names."""

import json
import os

from iodine_pl.cli import main

if __name__ == "__main__":
    cli = main()
    if cli.trainer.is_global_zero:
        with open(os.environ["METRICS"], "w") as file:
            json.dump({name: float(value) for name, value in cli.trainer.callback_metrics.items()}, file)
