"""The command ``iodine`` in a clone. Without a command it trains."""

import sys

from iodine_pl.__main__ import main

if __name__ == "__main__":
    sys.argv[1:] = sys.argv[1:] or ["fit"]
    sys.exit(main())
