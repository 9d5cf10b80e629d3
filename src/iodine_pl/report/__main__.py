"""python -m iodine_pl.report: the command ``iodine report``."""

import sys

from iodine_pl.cli import main

if __name__ == "__main__":
    sys.exit(main("report"))
