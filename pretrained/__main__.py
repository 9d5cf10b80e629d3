"""python -m iodine_pl.pretrained: the command ``iodine export``."""

import sys

from iodine_pl.cli import main

if __name__ == "__main__":
    sys.exit(main("export"))
