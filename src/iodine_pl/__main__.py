"""The command ``iodine``, also as python -m iodine_pl."""

import sys


def main() -> int:
    """Runs the command line of this process, and returns its exit status."""
    from iodine_pl.cli import main as run  # here, since spawned data workers import this too, and run nothing

    return run()


if __name__ == "__main__":
    sys.exit(main())
