"""The HDF5 layout of the datasets: an atomic writer, and a reader that travels to worker processes."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

__all__ = ["BLOCK", "FORMAT", "WINDOW", "SceneDataset", "SceneFileError", "SceneWriter", "append_rows"]

FORMAT = "iodine-pl/1"
BLOCK = 64
"""Images per chunk of a file, and per unit of reading. Small images compress and read best so (35x there)."""

WINDOW = 16
"""Blocks that training mixes with one another: a batch comes from so many at most (two windows at a border)."""

_CACHED_BLOCKS = 2 * WINDOW


class SceneFileError(ValueError):
    """Says what is wrong with a data file and what to do."""


def append_rows(file: h5py.File, name: str, rows: NDArray[Any], chunk: int, **storage: Any) -> None:
    """Adds ``rows`` (n, ...) to a dataset, made at the first call with ``chunk`` rows in a chunk and so stored."""
    if name not in file:
        row = rows.shape[1:]
        file.create_dataset(name, (0, *row), rows.dtype, maxshape=(None, *row), chunks=(chunk, *row), **storage)
    dataset = file[name]
    dataset.resize(len(dataset) + len(rows), axis=0)
    dataset[len(dataset) - len(rows) :] = rows


class SceneWriter:
    """Writes a file beside its target and puts it in place when all of it is there; on an error nothing is left.

    ``image`` (N, H, W, C) uint8, ``label`` (N, H, W) uint8 with 0 for the background, ``num_objects`` (N,) uint8 and
    ``factors/NAME`` (N, L, ...), entity 0 being the background. Use it as a context manager.

    Args:
        path: where the file will be.
        attributes: root attributes that say what it holds and where it is from.
    """

    def __init__(self, path: str | Path, **attributes: str | int) -> None:
        self.path = Path(path)
        self.attributes = attributes
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")

    def __enter__(self) -> SceneWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = h5py.File(self._partial, "w")
        return self

    def append(
        self,
        image: NDArray[np.uint8],
        label: NDArray[np.uint8],
        num_objects: NDArray[Any],
        factors: Mapping[str, NDArray[Any]],
    ) -> None:
        """Adds some images; blocks of a multiple of :data:`BLOCK` are compressed once only."""
        arrays = {"image": image, "label": label, "num_objects": num_objects.astype(np.uint8)}
        arrays |= {f"factors/{name}": value for name, value in factors.items()}
        for name, array in arrays.items():
            append_rows(self._file, name, array, BLOCK, compression="gzip", compression_opts=4)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._file.attrs.update({"format": FORMAT, **self.attributes})
            self._file.close()
            if kind is None:
                with self._partial.open("rb+") as file:
                    os.fsync(file.fileno())
                os.replace(self._partial, self.path)
        finally:
            self._partial.unlink(missing_ok=True)


class SceneDataset(Dataset[dict[str, Any]]):
    """Reads batches of one file: ``dataset[[3, 1, 2]]`` is a dict with those images in that order.

    It reads and unpacks whole blocks and keeps the last few, so a batch whose indices lie in few blocks is cheap. The
    file is opened at the first read in each process, never before a fork, and not carried into a pickle.

    Args:
        path: a file in the layout of :class:`SceneWriter`.

    Raises:
        SceneFileError: if it is missing, cut off, empty, not HDF5 or of another layout.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._handle: tuple[int, h5py.File] | None = None
        self._blocks: OrderedDict[int, dict[str, NDArray[Any]]] = OrderedDict()
        file = self._file
        missing = [name for name in ("image", "label", "num_objects") if name not in file]
        if missing or file.attrs.get("format") != FORMAT:
            raise SceneFileError(
                f"{self.path} is not a file of this format ({FORMAT}): "
                + (f"it has no dataset {', '.join(missing)}" if missing else f"its attribute format is not {FORMAT}")
                + ". Convert it first, or delete it so that it is made again."
            )
        image, label = file["image"], file["label"]
        if image.dtype != np.uint8 or image.ndim != 4 or label.dtype != np.uint8 or label.shape != image.shape[:3]:
            raise SceneFileError(
                f"{self.path}: image must be (N, H, W, C) uint8 and label (N, H, W) uint8, "
                f"got {image.shape} {image.dtype} and {label.shape} {label.dtype}"
            )
        if len(image) == 0:
            raise SceneFileError(f"{self.path} holds no images. Delete it so that it is made again.")
        self.image_shape: tuple[int, int, int] = image.shape[1:]
        self._length = len(image)
        self._names = ["image", "label", "num_objects", *(f"factors/{name}" for name in file.get("factors", {}))]
        self.close()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, indices: Sequence[int]) -> dict[str, Any]:
        """Returns ``image`` (B, C, H, W) uint8, ``label`` (B, H, W) uint8, ``num_objects`` (B,), ``index`` (B,) and
        ``factors``, a dict of (B, L, ...)."""
        where = np.asarray(indices, dtype=np.int64)
        block_of = where // BLOCK
        columns: dict[str, NDArray[Any]] = {}
        for block in np.unique(block_of):
            here = np.flatnonzero(block_of == block)
            rows = where[here] - block * BLOCK
            for name, values in self._block(int(block)).items():
                if name not in columns:
                    columns[name] = np.empty((len(where), *values.shape[1:]), values.dtype)
                columns[name][here] = values[rows]
        tensors = {name: torch.from_numpy(column) for name, column in columns.items()}
        batch: dict[str, Any] = {"image": tensors["image"].permute(0, 3, 1, 2), "label": tensors["label"]}
        batch["num_objects"] = tensors["num_objects"].long()
        batch["index"] = torch.from_numpy(where)
        batch["factors"] = {name[8:]: value for name, value in tensors.items() if name.startswith("factors/")}
        return batch

    def _block(self, block: int) -> dict[str, NDArray[Any]]:
        if block in self._blocks:
            self._blocks.move_to_end(block)
            return self._blocks[block]
        file, span = self._file, slice(block * BLOCK, min((block + 1) * BLOCK, self._length))
        try:
            values = {name: file[name][span] for name in self._names}
        except OSError as error:
            raise SceneFileError(
                f"{self.path}: images {span.start} to {span.stop - 1} cannot be read ({error}). The file is damaged: "
                "delete it so that it is made again."
            ) from error
        self._blocks[block] = values
        while len(self._blocks) > _CACHED_BLOCKS:
            self._blocks.popitem(last=False)
        return values

    @property
    def _file(self) -> h5py.File:
        if self._handle is None or self._handle[0] != os.getpid():
            if not self.path.is_file():
                raise SceneFileError(f"there is no data file {self.path}")
            try:
                self._handle = (os.getpid(), h5py.File(self.path, "r"))
            except OSError as error:
                raise SceneFileError(
                    f"{self.path} cannot be opened as HDF5 ({error}). It is cut off, still being written or another "
                    "kind of file: delete it so that it is made again."
                ) from error
        return self._handle[1]

    def close(self) -> None:
        """Closes the file; the next read opens it again."""
        if self._handle is not None and self._handle[0] == os.getpid():
            self._handle[1].close()
        self._handle = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handle": None, "_blocks": OrderedDict()}
