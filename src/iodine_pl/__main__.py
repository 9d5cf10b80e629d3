"""The command ``iodine``, also as python -m iodine_pl."""

import signal
import sys


def main() -> int:
    """Runs the command line of this process, and returns its exit status."""
    from iodine_pl.cli.commands import answer  # here, since spawned data workers import this too, and run nothing

    said = answer(sys.argv[1:])
    if said is not None:
        print(said)
        return 0
    try:
        from iodine_pl.cli import main as run
    except KeyboardInterrupt:  # importing takes seconds
        print("stopped by SIGINT", flush=True)
        return 128 + signal.SIGINT
    return run()


if __name__ == "__main__":
    sys.exit(main())
