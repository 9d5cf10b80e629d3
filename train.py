"""The command ``iodine`` in a clone. Without a command it trains."""

import sys

if __name__ == "__main__":
    from iodine_pl.cli import main  # here, since a data worker that is spawned runs this file too, and trains nothing

    sys.argv[1:] = sys.argv[1:] or ["fit"]
    sys.exit(main())
