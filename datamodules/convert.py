"""Converts DeepMind's TFRecord files to HDF5."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from iodine_pl.datamodules.hdf5 import BLOCK, SceneWriter
from iodine_pl.datamodules.tfrecord import Feature, TFRecordError, parse_example, read_records

__all__ = ["convert", "label_map"]


def label_map(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Joins masks (L, H, W, 1), 0 or 255, to one map (H, W) of entity numbers, 0 being the first mask, the background.

    Raises:
        ValueError: if some pixel belongs to no entity or to several, as one map would then lose something.
    """
    inside = mask[..., 0] > 0
    owners = inside.sum(axis=0)
    if not (owners == 1).all():
        raise ValueError(f"{int((owners != 1).sum())} pixels do not belong to exactly one mask")
    label: NDArray[np.uint8] = inside.argmax(axis=0).astype(np.uint8)
    return label


def convert(
    source: str | Path, target: str | Path, features: Mapping[str, Feature], dataset: str, limit: int | None = None
) -> int:
    """Converts a TFRecord file, at most ``limit`` of its records, and returns how many there were.

    It streams: nothing is unpacked to disk, and what follows the limit is not read. The target appears when it is
    complete; an interrupted conversion leaves nothing and is begun anew.

    Args:
        source: a TFRecord file, gzip or not.
        target: the HDF5 file to be written, in the layout of :class:`iodine_pl.datamodules.hdf5.SceneWriter`.
        features: what a record must hold; ``image`` (H, W, C), ``mask`` (L, H, W, 1) and ``visibility`` among it. All
            but the first two become factors.
        dataset: name to be noted in the file.
        limit: number of records; None for all.

    Raises:
        FileNotFoundError: if there is no source.
        TFRecordError: if the source is damaged, cut off before the limit, or of another dataset; it names the record.
    """
    waiting: list[dict[str, NDArray[Any]]] = []
    count = 0
    with SceneWriter(target, dataset=dataset, source=Path(source).name) as writer:

        def flush() -> None:
            columns = {name: np.stack([scene[name] for scene in waiting]) for name in waiting[0]}
            image, label = columns.pop("image"), columns.pop("label")
            writer.append(image, label, columns["visibility"][:, 1:].sum(axis=1), columns)
            waiting.clear()

        records = islice(read_records(source), limit)
        for record in tqdm(records, desc=f"converting {Path(source).name}", unit=" records", total=limit):
            try:
                scene = parse_example(record, features)
                scene["label"] = label_map(scene.pop("mask"))
            except ValueError as error:
                raise TFRecordError(
                    f"{source}: record {count}: {error}. Is this the {dataset} file, and complete? "
                    "If so, download it again"
                ) from error
            waiting.append(scene)
            count += 1
            if len(waiting) == 4 * BLOCK:
                flush()
        if waiting:
            flush()
    return count
