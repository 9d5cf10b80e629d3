"""Writes the HDF5 layout of the datasets, atomically. docs/data.md describes it field by field."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import google_crc32c
import h5py
import numpy as np
from numpy.typing import NDArray

from iodine_pl.datamodules.hdf5.errors import written_beside
from iodine_pl.datamodules.hdf5.masks import lone_membership
from iodine_pl.datamodules.hdf5.output import OutputFile
from iodine_pl.datamodules.hdf5.words import fixed

__all__ = ["BLOCK", "FORMAT", "MultiObjectWriter", "append_rows", "stored_size"]

FORMAT = "iodine-pl/1"

BLOCK = 64
"""Images per chunk if they compress well; with 64 they compress best (Tetrominoes 35x) and are read fastest."""

_WORTH_COMPRESSING = 4.0  # flat sprites: 10 and more; photographs and renderings: 1 to 2.4, and 8 times slower to read
_BLOCKS: dict[str, Any] = {
    "chunk": BLOCK,
    "compression": "gzip",
    "compression_opts": 1,
}  # level 4 would be a quarter smaller, but 1.6 times slower to read
_SINGLY: dict[str, Any] = {"chunk": 1}  # labels too: packed they would save a quarter and take half of the time


def append_rows(file: h5py.File, name: str, rows: NDArray[Any], chunk: int, **storage: Any) -> None:
    """Adds ``rows`` (n, ...) to a dataset, which the first call creates with these options."""
    if name not in file:
        row = rows.shape[1:]
        file.create_dataset(name, (0, *row), rows.dtype, maxshape=(None, *row), chunks=(chunk, *row), **storage)
    dataset = file[name]
    dataset.resize(len(dataset) + len(rows), axis=0)
    dataset[len(dataset) - len(rows) :] = rows


def stored_size(rows: NDArray[np.uint8]) -> int:
    """Estimates the bytes that images or labels take in a file."""
    return len(_packed(rows)) if _shrinks(rows) else rows.nbytes


def _shrinks(rows: NDArray[np.uint8]) -> bool:
    return rows.nbytes >= _WORTH_COMPRESSING * len(_packed(rows))


def _packed(rows: NDArray[np.uint8]) -> bytes:
    return zlib.compress(np.ascontiguousarray(rows).data, 4)


class MultiObjectWriter:
    """Writes scenes to a file that appears when it is complete; on an error nothing is left.

    Images that compress well are stored in compressed blocks of 64, others uncompressed one by one, which is fastest to
    read. Use it as a context manager::

        with MultiObjectWriter("mine.h5", dataset="mine") as writer:
            for image, label in scenes:
                writer.add(image, label, {"color": color})

    Args:
        path: of the file.
        names: factor -> names of its codes 0, 1, ...: ``{"shape": ("", "sphere", "cube")}``.
        attributes: root attributes that describe the content and its origin.
    """

    def __init__(
        self,
        path: str | Path,
        names: Mapping[str, tuple[str, ...]] | None = None,
        **attributes: str | int | float | tuple[int, ...],
    ) -> None:
        self.path = Path(path)
        self.names = dict(names or {})
        self.attributes = attributes
        self._waiting: list[dict[str, NDArray[Any]]] = []  # scenes given one by one
        self._small: dict[str, list[NDArray[Any]]] = {}  # written at the end, contiguous for memory-mapping
        self._count = 0

    def __enter__(self) -> MultiObjectWriter:
        with ExitStack() as stack:
            partial = stack.enter_context(written_beside(self.path))
            self._file = stack.enter_context(OutputFile(partial))
            self._stack = stack.pop_all()
        return self

    def add(
        self,
        image: NDArray[np.uint8],
        label: NDArray[np.uint8] | None = None,
        factors: Mapping[str, Any] | None = None,
    ) -> None:
        """Adds one scene: ``image`` (H, W, C), ``label`` (H, W), and factors (L, ...) each; see :meth:`append`."""
        scene = {"image": np.asarray(image)} | ({} if label is None else {"label": np.asarray(label)})
        scene |= {f"factors/{name}": np.asarray(value) for name, value in (factors or {}).items()}
        if self._waiting and scene.keys() != self._waiting[0].keys():
            raise ValueError(f"scene {self._count + len(self._waiting)} has {sorted(scene)}, unlike those before it")
        self._waiting.append(scene)
        if len(self._waiting) == BLOCK:
            self._flush()

    def append(
        self,
        image: NDArray[np.uint8],
        label: NDArray[np.uint8] | None = None,
        factors: Mapping[str, NDArray[Any]] | None = None,
        membership: NDArray[np.unsignedinteger[Any]] | None = None,
    ) -> None:
        """Adds n scenes; if n is a multiple of :data:`BLOCK`, each block is compressed only once.

        Args:
            image: (n, H, W, C) uint8.
            label: (n, H, W) uint8, the entity of every pixel; 0 is the background.
            factors: name -> (n, L, ...); entity 0 is the background. ``visibility`` (n, L) says which entities exist;
                without it, those with a pixel do.
            membership: (n, H, W) unsigned; bit l is set where the pixel belongs to entity l. Only for scenes with
                pixels that belong to several entities or to none.

        Raises:
            ValueError: if a shape or type is wrong, or a label is not below L.
            OSError: if the disk is full; the context manager turns it into a SceneFileError.
        """
        factors = dict(factors or {})
        _check(image, label, factors, self._count)
        if not self._count:
            self._storage: dict[str, Any] = _BLOCKS if _shrinks(image[:BLOCK]) else _SINGLY
        self._store("image", image)
        if label is not None:
            self._store("label", label)
            self._add_membership(label, membership)
            visible = factors.get("visibility")
            counted = _count_labels(label) if visible is None else np.rint(visible[:, 1:]).sum(axis=1)
            self._small.setdefault("num_objects", []).append(counted.astype(np.uint8))
        for name, values in factors.items():
            self._small.setdefault(f"factors/{name}", []).append(values)
        self._count += len(image)
        self._file.check()

    def _add_membership(self, label: NDArray[np.uint8], membership: NDArray[np.unsignedinteger[Any]] | None) -> None:
        if membership is None and "membership" not in self._file:
            return
        if "membership" not in self._file:  # earlier scenes had one entity at each pixel
            assert membership is not None
            for start in range(0, self._count, BLOCK):
                earlier = self._file["label"][start : min(start + BLOCK, self._count)]
                self._store("membership", lone_membership(earlier, membership.dtype))
        if membership is None:
            membership = lone_membership(label, self._file["membership"].dtype)
        self._store("membership", membership)

    def _store(self, name: str, rows: NDArray[Any]) -> None:
        """Adds rows to a dataset. Gzip adds a checksum to each block; uncompressed rows get one per scene."""
        append_rows(self._file, name, rows, **self._storage)
        if self._storage is _SINGLY:
            checksums = [google_crc32c.value(np.ascontiguousarray(row)) for row in rows]
            self._small.setdefault(f"crc32c/{name}", []).append(np.array(checksums, np.uint32))

    def _flush(self) -> None:
        columns = {name: np.stack([scene[name] for scene in self._waiting]) for name in self._waiting[0]}
        factors = {name[8:]: values for name, values in columns.items() if name.startswith("factors/")}
        self._waiting.clear()
        self.append(columns["image"], columns.get("label"), factors)

    def _finish(self) -> None:
        if self._waiting:
            self._flush()
        for name, parts in self._small.items():
            self._file[name] = np.concatenate(parts)
        for name, words in self.names.items():
            if f"factors/{name}" in self._file:
                self._file[f"factors/{name}"].attrs["names"] = fixed(words)
        for name, value in {"format": FORMAT, **self.attributes}.items():
            self._file.attrs[name] = fixed(value) if isinstance(value, str) else value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is not None:
                raise error  # through the stack, which deletes the file and explains the error
            self._finish()


def _check(image: NDArray[Any], label: NDArray[Any] | None, factors: Mapping[str, NDArray[Any]], already: int) -> None:
    where = f"scenes {already} to {already + len(image) - 1}"
    if image.ndim != 4 or image.dtype != np.uint8:
        raise ValueError(f"{where}: image must be (n, H, W, C) uint8, got {image.shape} {image.dtype}")
    if label is not None and (label.shape != image.shape[:3] or label.dtype != np.uint8):
        raise ValueError(
            f"{where}: label must be {image.shape[:3]} uint8 as the image is, got {label.shape} {label.dtype}"
        )
    if len({values.shape[1:2] for values in factors.values()}) > 1:
        shapes = {name: values.shape for name, values in factors.items()}
        raise ValueError(f"{where}: all factors must have the same number of entities, (n, L, ...), got {shapes}")
    for name, values in factors.items():
        if values.ndim < 2 or len(values) != len(image):
            raise ValueError(f"{where}: factor {name} must be ({len(image)}, L, ...), got {values.shape}")
        if label is not None and label.max() >= values.shape[1]:
            raise ValueError(
                f"{where}: label has entity {label.max()}, but factor {name} is of the L = {values.shape[1]} entities "
                f"0 to {values.shape[1] - 1}"
            )


def _count_labels(label: NDArray[np.uint8]) -> NDArray[np.int64]:
    present = np.zeros((len(label), 256), dtype=bool)
    present[np.arange(len(label))[:, None], label.reshape(len(label), -1)] = True
    counted: NDArray[np.int64] = present[:, 1:].sum(axis=1)
    return counted
