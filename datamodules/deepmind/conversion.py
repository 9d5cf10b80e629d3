"""Converts DeepMind's TFRecord files to HDF5."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iodine_pl.datamodules.deepmind.releases import Release
from iodine_pl.datamodules.deepmind.resizing import CROP, crop_and_resize
from iodine_pl.datamodules.hdf5.errors import open_hdf5
from iodine_pl.datamodules.hdf5.masks import label_map, lone_membership, membership_map
from iodine_pl.datamodules.hdf5.writer import BLOCK, MultiObjectWriter
from iodine_pl.files.progress import progress_bar
from iodine_pl.files.tensorflow.tfrecord import (
    Source,
    TFRecordError,
    largest_record,
    parse_example,
    read_records,
)

__all__ = ["convert", "serves"]


def serves(target: Path, source: Path, needed: int) -> bool:
    """Tells whether a converted file exists and can be reused.

    It must have ``needed`` records or all records of the source. The source must have the same size and modification
    time as when it was converted, or be gone.

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
    """Converts a TFRecord file, at most ``limit`` of its records, and returns their number.

    The file is streamed: nothing is unpacked to disk, and nothing after the limit is read. The target appears when it
    is complete; an interrupted conversion leaves nothing and starts again. Every factor is kept. The masks of a record
    become a label map. If in some record a pixel belongs to several entities or to none, the file also gets
    ``membership``, a bit for each entity, so that nothing is lost. Attributes record whether the file has all records
    (``complete``) and, if the source is a file, its size and modification time.

    Args:
        source: a TFRecord file, gzip or not; or an object with ``read``.
        target: the HDF5 file to write, in the layout of :class:`iodine_pl.datamodules.MultiObjectWriter`.
        release: describes the records.
        limit: number of records; None for all.
        size: side in pixels to which the square of CLEVR's experiments is resized; None: no crop, no resizing.
        least: minimum number of records.

    Raises:
        FileNotFoundError: if there is no source.
        TFRecordError: if the source is damaged, cut off before the limit, of another dataset, or has fewer than
            ``least`` records; it names the record or their number.
        SceneFileError: if the target cannot be written.
    """
    name = Path(source).name if isinstance(source, str | Path) else source.name
    # Read before the conversion, so that a change of the source meanwhile is noticed.
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
        for record in progress_bar(records, desc=f"converting {name}", unit=" records", total=limit):
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
    """Returns the fields of a record in the form in which they are stored."""
    mask = record.pop("mask")[..., 0]  # (L, H, W), or (H, W, L)
    mask = np.moveaxis(mask, 2, 0) if release.masks_last else mask
    if size is not None:
        record["image"], mask = crop_and_resize(record["image"], mask, size)
    try:
        record["label"] = label_map(mask)
    except ValueError:
        record["label"], record["membership"] = membership_map(mask)
    return record
