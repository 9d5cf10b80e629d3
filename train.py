"""Trains, tests and runs IODINE: ``python train.py --help``."""

from iodine_pl.cli import main

if __name__ == "__main__":
    main()
