"""Converts DeepMind's released weights to a checkpoint of Lightning.

python -m iodine_pl.official PATH_OR_ZIP_OR_URL --out clevr6.ckpt
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from iodine_pl import IODINE
from iodine_pl.checkpoints.writing import write_checkpoint
from iodine_pl.files.atomic import move_into_place
from iodine_pl.files.download import DownloadError, download_zip
from iodine_pl.official.reading import read_official

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> None:
    """Converts a checkpoint of the reference code to one of Lightning, and says what was in it."""
    parser = argparse.ArgumentParser(
        prog="python -m iodine_pl.official",
        description="Converts a checkpoint of DeepMind's released IODINE to one that train.py takes.",
    )
    parser.add_argument("source", help="checkpoint (what stands before .index), folder, zip file, or address of one")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write, such as clevr6.ckpt")
    parser.add_argument("--folder", help="of several in the source, such as clevr6")
    parser.add_argument("--num_slots", type=int, help="K; default: that of the released network")
    given = parser.parse_args(args)
    arguments = {} if given.num_slots is None else {"num_slots": given.num_slots}
    try:
        if given.out.exists():
            raise FileExistsError(f"{given.out} is there already: delete it, or name another file by --out")
        source = _fetch(given.source, given.out.parent) if "://" in given.source else given.source
        official = read_official(source, given.folder, **arguments)
        model = IODINE(**official.arguments)
        model.load_state_dict(official.parameters)
        write_checkpoint(model, given.out, official.step, official.moments)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(official.describe())
    print(f"Wrote {given.out}")


def _fetch(url: str, folder: Path) -> Path:
    """Downloads a zip file, once: it stays for the other checkpoints in it."""
    name = PurePosixPath(urlsplit(url).path).name
    if name in ("", ".."):
        raise DownloadError(f"{url} names no file: give the address of the zip file itself")
    target = folder / name
    if target.exists():
        print(f"{target} is there already")
        return target
    kept = target.with_name(f"{target.name}.part")
    download_zip(url, kept)
    move_into_place(kept, target)
    return target


if __name__ == "__main__":
    main()
