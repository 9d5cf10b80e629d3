"""Downloads and converts DeepMind's datasets.

iodine prepare tetrominoes
"""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

from iodine_pl.datamodules.deepmind.conversion import convert
from iodine_pl.datamodules.deepmind.releases import Release
from iodine_pl.datamodules.hdf5.errors import SceneFileError
from iodine_pl.files.download import Download

__all__ = ["prepare"]

_COMPRESSED = 1 / 8  # at most, for flat sprites; CLEVR is not compressed
_ROOM = 2.0  # records need not be of one size all over the file


def prepare(
    release: Release,
    target: Path,
    source: str | Path | None = None,
    limit: int | None = None,
    size: int | None = None,
    keep: bool = False,
    least: int = 0,
) -> int:
    """Converts a release to an HDF5 file and returns the number of records.

    Only the part of the file that has these records is downloaded. If the download is interrupted, the received bytes
    stay beside the target, and the same call continues after them.

    Args:
        release: describes the content of the file.
        target: the HDF5 file.
        source: a file or an address; None: DeepMind's server.
        limit: number of records, from the first; None for all.
        size: for CLEVR, side in pixels to which the images are cropped and resized.
        keep: keep the downloaded file.
        least: minimum number of records.

    Raises:
        DownloadError: if the server does not send the file.
        TFRecordError: if the file is damaged or has other content.
        SceneFileError: if there is no space, or the target already exists or cannot be written.
        FileNotFoundError: if there is no such source.
    """
    if target.exists():
        raise SceneFileError(f"{target} is there already: delete it, or name another file by --out")
    address = release.url if source is None else str(source)
    records = release.examples if limit is None else limit
    if "://" not in address:
        _check_space(target, _converted_bytes(release, records, size))
        return convert(address, target, release, limit, size, least)
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = target.with_name(f"{Path(address).name}.part")
    with Download(address, kept) as download:
        part = min(1.0, _ROOM * records / release.examples)
        rest = max(0, math.ceil((download.total or 0) * part) - download.here)
        _check_space(target, rest + _converted_bytes(release, records, size))
        count = convert(download, target, release, limit, size, least)
    if not keep:
        kept.unlink()
    return count


def _converted_bytes(release: Release, records: int, size: int | None) -> int:
    rows, columns, channels = release.features["image"].shape
    if size is not None:
        return records * size * size * (channels + 1)
    return math.ceil(records * rows * columns * (channels + 1) * _COMPRESSED)


def _check_space(target: Path, needed: int) -> None:
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SceneFileError(
            f"{folder} has {free / 1e9:.1f} GB left, but some {needed / 1e9:.1f} GB are needed. Free some, name "
            "another folder by --out, or take fewer records by --limit"
        )


if __name__ == "__main__":
    from iodine_pl.cli import main

    sys.exit(main("prepare"))
