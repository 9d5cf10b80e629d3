"""python -m iodine_pl: the command ``iodine``."""

import sys

from iodine_pl.cli import main

if __name__ == "__main__":
    sys.exit(main())
