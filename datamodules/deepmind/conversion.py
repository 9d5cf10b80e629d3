"""Converts DeepMind's TFRecord files to HDF5."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from iodine_pl.datamodules.deepmind.releases import Release
from iodine_pl.datamodules.deepmind.resizing import CROP, crop_and_resize
from iodine_pl.datamodules.hdf5.errors import open_hdf5
from iodine_pl.datamodules.hdf5.masks import label_map, lone_membership, membership_map
from iodine_pl.datamodules.hdf5.writer import BLOCK, MultiObjectWriter
from iodine_pl.files.tensorflow.tfrecord import (
    Source,
    TFRecordError,
    largest_record,
    parse_example,
    read_records,
)

__all__ = ["convert", "serves"]


def serves(target: Path, source: Path, needed: int) -> bool:
    """Tells whether a converted file is there and need not be converted again.

    It serves if it has ``needed`` records or all that the source has, and if the source has the size and the time of
    modification that it had when it was converted, or is gone.

    Raises:
        SceneFileError: if the target is damaged.
    """
    if not target.exists():
        return False
    with open_hdf5(target) as file:
        if source.exists() and any(file.attrs.get(name) != value for name, value in _state(source).items()):
            return False
        return len(file["image"]) >= needed or bool(file.attrs.get("complete", False))


def _state(source: Path) -> dict[str, int]:
    found = source.stat()
    return {"source_size": found.st_size, "source_modified": found.st_mtime_ns}


def convert(
    source: str | Path | Source,
    target: str | Path,
    release: Release,
    limit: int | None = None,
    size: int | None = None,
    least: int = 0,
) -> int:
    """Converts a TFRecord file, at most ``limit`` of its records, and returns how many there were.

    It streams: nothing is unpacked to disk, and what follows the limit is not read. The target appears when it is
    complete; an interrupted conversion leaves nothing and is begun anew. Every factor is kept. The masks of a record
    become a label map; if in some record a pixel belongs to several entities or to none, the file also gets
    ``membership``, a bit for each, so nothing is lost. Attributes record whether the file holds all records
    (``complete``) and, of a source that is a file, its size and time of modification.

    Args:
        source: a TFRecord file, gzip or not; or something to ``read`` it from.
        target: the HDF5 file to be written, in the layout of :class:`iodine_pl.datamodules.MultiObjectWriter`.
        release: what a record must hold.
        limit: number of records; None for all.
        size: crop to the square that CLEVR's experiments use, and resize it to so many pixels; None: as it is.
        least: number of records that there must be.

    Raises:
        FileNotFoundError: if there is no source.
        TFRecordError: if the source is damaged, cut off before the limit, of another dataset, or has fewer records
            than there must be; it names the record or their number.
        SceneFileError: if the target cannot be written.
    """
    name = Path(source).name if isinstance(source, str | Path) else source.name
    # Looked up before it is read: a source that changes meanwhile is then seen to have changed.
    state = _state(Path(source)) if isinstance(source, str | Path) else {}
    resized: dict[str, Any] = {} if size is None else {"crop": CROP, "size": size, "resize": "TF1 bilinear, nearest"}
    waiting: list[dict[str, NDArray[Any]]] = []
    count = 0
    with MultiObjectWriter(target, release.names, dataset=release.dataset, source=name, **state, **resized) as writer:

        def flush() -> None:
            columns = {key: np.stack([scene[key] for scene in waiting]) for key in waiting[0] if key != "membership"}
            membership = None
            if any("membership" in scene for scene in waiting):
                dtype = next(scene["membership"].dtype for scene in waiting if "membership" in scene)
                lone = lone_membership(columns["label"], dtype)
                membership = np.stack([scene.get("membership", lone[i]) for i, scene in enumerate(waiting)])
            writer.append(columns.pop("image"), columns.pop("label"), columns, membership)
            waiting.clear()

        records = islice(read_records(source, largest_record(release.features)), limit)
        for record in tqdm(records, desc=f"converting {name}", unit=" records", total=limit):
            try:
                waiting.append(_scene(parse_example(record, release.features), release, size))
            except ValueError as error:
                raise TFRecordError(
                    f"{name}: record {count}: {error}. Is this the {release.dataset} file, and complete? "
                    "If so, download it again"
                ) from error
            count += 1
            if len(waiting) == 4 * BLOCK:
                flush()
        if count < least:
            raise TFRecordError(f"{name} has {count} records, but {least} were asked for. Ask for {count} at most")
        if waiting:
            flush()
        writer.attributes["complete"] = limit is None or count < limit
    return count


def _scene(record: dict[str, NDArray[Any]], release: Release, size: int | None) -> dict[str, NDArray[Any]]:
    """Returns the fields of a record as they are stored."""
    mask = record.pop("mask")[..., 0]  # (L, H, W), or (H, W, L)
    mask = np.moveaxis(mask, 2, 0) if release.masks_last else mask
    if size is not None:
        record["image"], mask = crop_and_resize(record["image"], mask, size)
    try:
        record["label"] = label_map(mask)
    except ValueError:
        record["label"], record["membership"] = membership_map(mask)
    return record
