"""Recognizes the layout of an HDF5 file: that of this package, or one of those that docs/data.md lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from iodine_pl.datamodules.hdf5.chunks import CheckedRows, Rows, rows_of, table_of
from iodine_pl.datamodules.hdf5.columns import Column, ImageColumn, MapColumn, MaskColumn, PlainColumn
from iodine_pl.datamodules.hdf5.errors import SceneFileError
from iodine_pl.datamodules.hdf5.resizing import CropResize
from iodine_pl.datamodules.hdf5.words import words_of
from iodine_pl.datamodules.hdf5.writer import BLOCK, FORMAT

__all__ = ["IMAGES", "LABELS", "Fields", "hdf5_fields", "members", "pixel_columns", "runs"]

IMAGES = ("image", "images", "imgs")
LABELS = ("label", "labels", "mask", "masks")
_OTHERS = ("membership", "num_objects", "factors")
_MOST_NUMBERS = 1024  # per scene in a factor of another project's file
_RUN_BYTES = 4 << 20  # read at once if the file has no chunks
_BLOCK_BYTES = 256 << 20  # largest block

T = TypeVar("T")


class Fields(NamedTuple):
    """Describes the content of a file.

    Attributes:
        length: number of scenes.
        block: number of scenes that are best read together.
        columns: ``image`` and if known ``label``, ``membership``.
        small: factors, and ``num_objects`` if known.
        names: factor -> names of its codes.
        entities: L, if known.
    """

    length: int
    block: int
    columns: Mapping[str, Column]
    small: Mapping[str, NDArray[Any]] = {}
    names: Mapping[str, list[str]] = {}
    entities: int | None = None


def members(group: h5py.Group, where: str) -> dict[str, h5py.Dataset | h5py.Group]:
    """Returns the members of a group.

    Raises:
        SceneFileError: if a member is a link or is stored in another file, which is not followed.
    """
    found: dict[str, h5py.Dataset | h5py.Group] = {}
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise SceneFileError(
                f"{where}: {name} is a link, and links are not followed. Give the file that has the data"
            )
        item = group[name]
        if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            raise SceneFileError(
                f"{where}: the data of {name} are in other files, which are not opened. Give those files instead"
            )
        found[name] = item
    return found


def hdf5_fields(group: h5py.Group, where: str, path: Path, view: CropResize) -> Fields:
    """Opens the fields of a file, or of one of its groups.

    Args:
        group: the group with ``image`` or its equivalent.
        where: its name in errors.
        path: of the file.
        view: crop and resizing of images and maps.

    Raises:
        SceneFileError: if a dataset is missing, or has a wrong shape or type; it names file and dataset.
    """
    found = members(group, where)
    ours = words_of(group.file.attrs.get("format", "")) == [FORMAT]
    stored = {
        name: _opened(partial(rows_of, item, path), where, name)
        for name, item in found.items()
        if name in (*IMAGES, *LABELS, "membership") and _is_table(item, where, name)
    }
    for name, rows in stored.items() if ours else ():
        stored[name] = _checked(rows, found.get("crc32c"), where, path, name)
    columns, length = pixel_columns(stored, where, view, found)
    if ours and "label" in columns and found["label"].dtype != np.uint8:
        raise SceneFileError(f"{where}: label must be uint8, got {found['label'].dtype}")
    small, names = _small(found, where, path, length, ours)
    entities = next((small[name].shape[1] for name in small if name != "num_objects"), None) if ours else None
    return Fields(length, runs(stored.values(), length, ours), columns, small, names, entities)


def _checked(rows: Rows, checksums: Any, where: str, path: Path, name: str) -> Rows:
    """Returns rows that are compared with their checksums, if the file has these."""
    found = members(checksums, f"{where}, group crc32c") if isinstance(checksums, h5py.Group) else {}
    if name not in found:
        return rows
    table = found[name]
    if not isinstance(table, h5py.Dataset) or table.shape != rows.shape[:1] or table.dtype != np.uint32:
        raise SceneFileError(f"{where}: crc32c/{name} must be {rows.shape[:1]} uint32, one number for each scene")
    return CheckedRows(rows, _opened(lambda: table_of(table, path), where, f"crc32c/{name}"))


def pixel_columns(
    stored: Mapping[str, Rows], where: str, view: CropResize, found: Iterable[str] = ()
) -> tuple[dict[str, Column], int]:
    """Returns the columns ``image`` and, if known, ``label`` and ``membership``, and the number of scenes.

    Args:
        stored: name -> rows of pixels.
        where: name of the file in errors.
        view: crop and resizing of images and maps.
        found: names of all members of the file, for errors.

    Raises:
        SceneFileError: as :func:`hdf5_fields`.
    """
    name = next((name for name in IMAGES if name in stored), None)
    if name is None:
        raise SceneFileError(
            f"{where} has no dataset image (or images, imgs), only {', '.join(found or stored) or 'nothing'}. Convert "
            "it with MultiObjectWriter"
        )
    image = stored[name]
    first = len(image.shape) == 4 and image.shape[3] not in (1, 3)
    if (
        len(image.shape) != 4
        or image.shape[1 if first else 3] not in (1, 3)
        or (image.dtype != np.uint8 and image.dtype.kind != "f")
    ):
        raise SceneFileError(
            f"{where}: {name} must be (N, H, W, C) or (N, C, H, W) with C = 1 or 3, uint8 or float in [0, 1], got "
            f"{image.shape} {image.dtype}. Convert it with MultiObjectWriter"
        )
    if 0 in image.shape:
        raise SceneFileError(f"{where} holds no images. Give a file with scenes")
    length, pixels = image.shape[0], image.shape[2:] if first else image.shape[1:3]
    plain = not first and image.dtype == np.uint8 and not view
    columns: dict[str, Column] = {}
    columns["image"] = PlainColumn(image) if plain else ImageColumn(image, f"{where}: {name}", first, view)
    label = next((each for each in LABELS if each in stored), None)
    if label is not None:
        columns["label"] = _label_column(stored[label], f"{where}: {label}", (length, *pixels), view)
    if label is not None and "membership" in stored:
        bits = stored["membership"]
        if bits.dtype.kind != "u" or bits.shape != (length, *pixels):
            raise SceneFileError(
                f"{where}: membership must be {(length, *pixels)} of unsigned integers, a bit for each entity, got "
                f"{bits.shape} {bits.dtype}. Write the file anew with MultiObjectWriter"
            )
        columns["membership"] = MapColumn(bits, f"{where}: membership", pixels, view, bits.dtype)
    return columns, length


def _label_column(rows: Rows, name: str, expected: tuple[int, ...], view: CropResize) -> Column:
    """Returns the column of a label map, or of masks that are joined to one."""
    length, *pixels = expected
    shape, size = rows.shape, (pixels[0], pixels[1])
    if shape in ((length, *pixels), (length, *pixels, 1), (length, 1, *pixels)):
        if rows.dtype.kind not in "biu":
            raise SceneFileError(f"{name} must be whole numbers, the entity of each pixel, got {rows.dtype}")
        if rows.dtype == np.uint8 and len(shape) == 3 and not view:
            return PlainColumn(rows)
        return MapColumn(rows, name, size, view)
    masks = len(shape) in (4, 5) and shape in {
        (length, *shape[1:2], *each) for each in ((*pixels,), (*pixels, 1), (1, *pixels))
    }
    if not masks or rows.dtype.kind not in "biuf" or not 1 <= shape[1] <= 255:
        raise SceneFileError(
            f"{name} must be a map (N, H, W) or (N, H, W, 1), or at most 255 masks (N, L, H, W) or (N, L, H, W, 1), of "
            f"images {expected} (N, H, W), got {shape} {rows.dtype}"
        )
    return MaskColumn(rows, name, size, view)


def runs(stored: Iterable[Rows], length: int, ours: bool) -> int:
    """Returns the number of scenes that are best read together.

    It is the number of scenes in a chunk. In other projects' files small scenes are always read together, because they
    are then processed together.
    """
    stored = list(stored)
    chunk = max(rows.chunk for rows in stored)
    row = max(1, sum(int(np.prod(rows.shape[1:])) * rows.dtype.itemsize for rows in stored))
    if chunk == 1 and not ours:
        return max(1, min(BLOCK, length, _RUN_BYTES // row // 16 * 16))
    return max(1, min(chunk, length, _BLOCK_BYTES // row))


def _small(
    found: Mapping[str, Any], where: str, path: Path, length: int, ours: bool
) -> tuple[dict[str, NDArray[Any]], dict[str, list[str]]]:
    """Returns the factors with the number of objects, and the names of codes."""
    grouped = found.get("factors")
    if isinstance(grouped, h5py.Dataset) and ours:
        raise SceneFileError(f"{where}: factors must be a group of datasets. Write the file anew")
    tables = members(grouped, f"{where}, group factors") if isinstance(grouped, h5py.Group) else {}
    if not ours:
        tables |= {name: item for name, item in found.items() if name not in (*IMAGES, *LABELS, *_OTHERS)}
        tables |= {"factors": grouped} if isinstance(grouped, h5py.Dataset) else {}
        tables = {name: item for name, item in tables.items() if _may_be_factor(item, length)}
    small: dict[str, NDArray[Any]] = {}
    names: dict[str, list[str]] = {}
    for name, item in tables.items():
        _is_table(item, where, f"factor {name}")
        if len(item.shape) < 1 + ours or len(item) != length or item.dtype.kind not in "biuf":
            raise SceneFileError(
                f"{where}: factor {name} must be numbers ({length}, L, ...), as there are {length} images, got "
                f"{item.shape} {item.dtype}. Write the file anew"
            )
        small[name] = _opened(partial(table_of, item, path), where, name)
        if "names" in item.attrs:
            names[name] = words_of(item.attrs["names"])
    sizes = {values.shape[1] for values in small.values()} if ours else set()
    if len(sizes) > 1:
        raise SceneFileError(
            f"{where}: factors have {sorted(sizes)} entities, but must all have the same number. Write the file again"
        )
    counts = found.get("num_objects")
    if counts is not None:
        _is_table(counts, where, "num_objects")
        if counts.dtype.kind not in "biuf" or counts.shape not in ((length,), (length, 1)):
            raise SceneFileError(
                f"{where}: num_objects must be ({length},) whole numbers, as there are {length} images, got "
                f"{counts.shape} {counts.dtype}"
            )
        small["num_objects"] = _opened(lambda: table_of(counts, path), where, "num_objects").reshape(length)
    elif "visibility" in small and small["visibility"].ndim >= 2:
        small["num_objects"] = np.rint(small["visibility"].reshape(length, -1)[:, 1:]).sum(axis=1)
    if "num_objects" in small:
        small["num_objects"] = _whole(small["num_objects"], where)
    return small, names


def _whole(counts: NDArray[Any], where: str) -> NDArray[Any]:
    """Returns numbers of objects as integers from 0 to 255."""
    rounded = np.rint(counts) if counts.dtype.kind == "f" else counts
    wrong = np.flatnonzero(~((rounded >= 0) & (rounded <= 255)))  # also true for NaN
    if len(wrong):
        raise SceneFileError(
            f"{where}: scene {wrong[0]} has {counts[wrong[0]]} objects by num_objects or visibility, expected are 0 to "
            "255. Write the file anew"
        )
    return rounded if rounded.dtype == np.uint8 else rounded.astype(np.uint8)


def _may_be_factor(item: h5py.Dataset | h5py.Group, length: int) -> bool:
    """Tells whether a field of another project's file has a few numbers per scene."""
    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "biuf" or not item.shape or len(item) != length:
        return False
    return bool(item.size // max(1, length) <= _MOST_NUMBERS)


def _is_table(item: Any, where: str, name: str) -> bool:
    if not isinstance(item, h5py.Dataset) or item.shape is None or item.dtype.hasobject:
        raise SceneFileError(f"{where}: {name} must be a dataset of numbers, and is not. Write the file anew")
    return True


def _opened(open_it: Callable[[], T], where: str, name: str) -> T:
    """Opens a dataset, and names it in errors."""
    try:
        return open_it()
    except (OSError, RuntimeError, ValueError, OverflowError, MemoryError) as error:
        raise SceneFileError(f"{where}: {name} cannot be read: {error}") from error
