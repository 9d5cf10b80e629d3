"""python -m iodine_pl.report runs/quickstart/version_0"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from iodine_pl.report.page import write_report

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> None:
    """Writes a report, and says where it is."""
    parser = argparse.ArgumentParser(
        prog="python -m iodine_pl.report",
        description="Writes one HTML page of a run or a checkpoint; it needs no server and no other file.",
    )
    parser.add_argument("source", help="folder of a run, such as runs/quickstart/version_0, or a checkpoint")
    parser.add_argument("--out", type=Path, help="the file; report.html in the run's folder")
    parser.add_argument("--config", type=Path, help="configuration that names the data, if not that of the run")
    parser.add_argument("--images", type=int, default=6, help="test images shown (6)")
    given = parser.parse_args(args)
    try:
        print(f"Wrote {write_report(given.source, given.out, given.config, given.images)}")
    except (ImportError, OSError, ValueError, TypeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
