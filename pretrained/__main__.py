"""Makes weights to pass on from a checkpoint of a run.

python -m iodine_pl.pretrained runs/quickstart/version_0/checkpoints/best.ckpt --out mine.ckpt
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from iodine_pl.checkpoints.exporting import export_weights

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> None:
    """Writes the weights, and says how large they are."""
    parser = argparse.ArgumentParser(
        prog="python -m iodine_pl.pretrained",
        description="Keeps of a checkpoint what a trained model needs: IODINE.from_pretrained and train.py take it.",
    )
    parser.add_argument("checkpoint", help="path, last or best of the newest run, or an address with #sha256=HEX")
    parser.add_argument("--out", type=Path, required=True, help="the file to write, such as mine.ckpt")
    given = parser.parse_args(args)
    try:
        updates = export_weights(given.checkpoint, given.out)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"Wrote {given.out}: {given.out.stat().st_size / 1e6:.1f} MB, after {updates:,} updates")


if __name__ == "__main__":
    main()
