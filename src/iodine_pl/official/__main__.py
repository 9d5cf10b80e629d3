"""python -m iodine_pl.official: the command ``iodine convert``."""

import sys

from iodine_pl.cli import main

if __name__ == "__main__":
    sys.exit(main("convert"))
