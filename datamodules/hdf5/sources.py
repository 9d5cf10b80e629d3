"""What is in a data file: recognises our layout and those of other projects, and opens their fields."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from iodine_pl.datamodules.hdf5.columns import Column, DatasetColumn, FolderColumn, MaskColumn, memory_mapped
from iodine_pl.datamodules.hdf5.errors import SceneFileError, made_here, open_hdf5
from iodine_pl.datamodules.hdf5.writer import FORMAT

__all__ = ["IMAGE_ENDINGS", "Part", "parts_of"]

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_IMAGES = ("image", "images", "imgs")
_MASKS = ("mask", "masks")
_MOST_NUMBERS = 1024  # of a scene in a factor of somebody else's file
_NO_FACTORS = (*_IMAGES, *_MASKS, "label", "membership", "num_objects")


class Part:
    """A run of scenes in one file, or a folder of images. It opens at the first use in each process, never before a
    fork, and travels without its handle.

    Args:
        path: an HDF5 file or a folder.
        group: of the HDF5 file.
        split: train, val or test if the file says so.

    Attributes:
        length: number of scenes.
        block: images that are best read together.
        shapes: field -> (row shape, type), ``image`` and if known ``label``, ``membership``.
        num_entities: L, if known.
        small_names: factors, and ``num_objects`` if known.
        names: factor -> names of its codes.
    """

    def __init__(self, path: Path, group: str = "/", split: str | None = None) -> None:
        self.path, self.group, self.split = path, group, split
        self._opened: tuple[int, dict[str, Column], dict[str, NDArray[Any]]] | None = None
        columns, small = self._fields
        self.shapes = {name: (column.row_shape, column.dtype) for name, column in columns.items()}
        self.small_names = list(small)
        self.close()

    def open(self) -> None:
        """Opens the file if it is not open in this process."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), *self._open())

    def read(self, start: int, stop: int, name: str, out: NDArray[Any]) -> None:
        """Copies the rows of a block of a field into ``out``."""
        try:
            self._fields[0][name].read(start, stop, out)
        except (OSError, RuntimeError) as error:
            raise self._damaged(name, f"scenes {start} to {stop - 1}", error) from error

    def read_singly(self, rows: Sequence[int], name: str, out: NDArray[Any], places: Sequence[int]) -> None:
        """Copies single rows of a field to the given places of ``out``."""
        column = self._fields[0][name]
        for row, place in zip(rows, places, strict=True):
            try:
                column.read(row, row + 1, out[place : place + 1])
            except (OSError, RuntimeError) as error:
                raise self._damaged(name, f"scene {row}", error) from error

    def _damaged(self, name: str, where: str, error: Exception) -> SceneFileError:
        ours = self._file is not None and made_here(self._file)
        remedy = "delete it so that it is made again" if ours else "give a whole copy"
        return SceneFileError(f"{self.path}: {name} of {where} cannot be read ({error}). The file is damaged: {remedy}")

    def small(self, name: str) -> NDArray[Any]:
        """Returns ``num_objects`` (length,) or a factor (length, L, ...)."""
        return self._fields[1][name]

    def close(self) -> None:
        """Lets the file go; the next use opens it again."""
        if self._opened is not None and self._opened[0] == os.getpid() and self._file is not None:
            self._file.close()
        self._opened = None

    @property
    def _fields(self) -> tuple[dict[str, Column], dict[str, NDArray[Any]]]:
        self.open()
        assert self._opened is not None
        return self._opened[1:]

    def _open(self) -> tuple[dict[str, Column], dict[str, NDArray[Any]]]:
        self._file: h5py.File | None = None
        self.num_entities: int | None = None
        self.names: dict[str, list[str]] = {}
        if self.path.is_dir():
            return self._open_folder()
        self._file = open_hdf5(self.path)
        try:
            return self._open_hdf5(self._file[self.group])
        except Exception:
            self._file.close()
            raise

    def _open_folder(self) -> tuple[dict[str, Column], dict[str, NDArray[Any]]]:
        paths = sorted(path for path in self.path.iterdir() if path.suffix.lower() in IMAGE_ENDINGS)
        if not paths:
            raise SceneFileError(f"the folder {self.path} has no images ({', '.join(IMAGE_ENDINGS)})")
        self.length, self.block = len(paths), 1
        return {"image": FolderColumn(paths)}, {}

    def _open_hdf5(self, group: h5py.Group) -> tuple[dict[str, Column], dict[str, NDArray[Any]]]:
        where = f"{self.path}" if self.group == "/" else f"{self.path}, group {self.group}"
        image = next((group[name] for name in _IMAGES if name in group), None)
        if image is None:
            raise SceneFileError(
                f"{where} has no dataset image (or images, imgs), only {', '.join(group) or 'nothing'}. Convert it "
                "with MultiObjectWriter"
            )
        if image.dtype != np.uint8 or image.ndim != 4 or image.shape[3] not in (1, 3):
            raise SceneFileError(
                f"{where}: {image.name} must be (N, H, W, C) uint8 with C = 1 or 3, got {image.shape} {image.dtype}. "
                "Convert it with MultiObjectWriter"
            )
        if not len(image):
            raise SceneFileError(f"{where} holds no images. Give a file with scenes")
        self.length = len(image)
        self.block = image.chunks[0] if image.chunks else 1
        columns: dict[str, Column] = {"image": DatasetColumn(image)}
        mask = next((group[name] for name in _MASKS if name in group), None)
        if "label" in group:
            label = group["label"]
            if label.dtype != np.uint8 or label.shape != image.shape[:3]:
                raise SceneFileError(
                    f"{where}: label must be {image.shape[:3]} uint8 as the image is, got {label.shape} {label.dtype}"
                )
            columns["label"] = DatasetColumn(label)
            if "membership" in group:
                columns["membership"] = DatasetColumn(group["membership"])
        elif mask is not None:
            if mask.ndim not in (4, 5) or (mask.shape[0], *mask.shape[2:4]) != image.shape[:3]:
                raise SceneFileError(
                    f"{where}: {mask.name} must be (N, L, H, W) or (N, L, H, W, 1) as the image {image.shape} is, got "
                    f"{mask.shape}"
                )
            columns["label"] = MaskColumn(mask)
            self.num_entities = mask.shape[1]
        small = self._open_small(group, where)
        return columns, small

    def _open_small(self, group: h5py.Group, where: str) -> dict[str, NDArray[Any]]:
        ours = self._file is not None and self._file.attrs.get("format") == FORMAT
        factors = group.get("factors", {}) if ours else {k: v for k, v in group.items() if k not in _NO_FACTORS}
        small: dict[str, NDArray[Any]] = {}
        for name, dataset in factors.items():
            if not isinstance(dataset, h5py.Dataset) or not (ours or _may_be_factor(dataset, self.length)):
                continue
            if len(dataset) != self.length:
                raise SceneFileError(
                    f"{where}: {dataset.name} has {len(dataset)} rows, but there are {self.length} images"
                )
            small[name] = memory_mapped(dataset, self.path)
            if "names" in dataset.attrs:
                self.names[name] = [str(word) for word in dataset.attrs["names"]]
            if ours:
                self.num_entities = dataset.shape[1]
        if "num_objects" in group:
            small["num_objects"] = memory_mapped(group["num_objects"], self.path)
        elif "visibility" in small and small["visibility"].ndim >= 2:
            visible = small["visibility"].reshape(self.length, -1)
            small["num_objects"] = np.rint(visible[:, 1:]).sum(axis=1).astype(np.uint8)
        return small

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None, "_file": None}


def _may_be_factor(dataset: h5py.Dataset, length: int) -> bool:
    """Tells whether a field of somebody else's file says a few numbers about each scene."""
    numbers = dataset.dtype.kind in "biuf" and dataset.ndim > 0 and len(dataset) == length
    return numbers and dataset.size // max(1, length) <= _MOST_NUMBERS


def parts_of(path: Path) -> list[Part]:
    """Returns the runs of scenes in a file or folder: one, or one for each split where it has groups train, val, test.

    Raises:
        SceneFileError: if there is nothing that can be read; it names what was found.
    """
    if path.is_dir():
        return [Part(path)]
    with open_hdf5(path) as file:
        splits = [name for name in ("train", "val", "test") if isinstance(file.get(name), Mapping | h5py.Group)]
        if splits and not any(name in file for name in _IMAGES):
            return [Part(path, f"/{name}", name) for name in splits]
    return [Part(path)]
