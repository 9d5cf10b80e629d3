"""The scenes of a data file or folder, which is opened when it is needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from iodine_pl.datamodules.hdf5.archives import npz_fields
from iodine_pl.datamodules.hdf5.errors import SceneFileError, damage_told, made_here, open_hdf5
from iodine_pl.datamodules.hdf5.folders import folder_fields
from iodine_pl.datamodules.hdf5.layouts import IMAGES, Fields, hdf5_fields, members
from iodine_pl.datamodules.hdf5.resizing import CropResize

__all__ = ["Part", "parts_of"]


class Part:
    """The scenes of one file or group, or a folder of images. It is opened at the first use in each process, never
    before a fork, and pickled without its handle.

    Args:
        path: an HDF5 file, an ``.npz`` file or a folder.
        view: crop and resizing of images and labels.
        frames: length of the sequences that clips in a folder are cut into.
        group: of the HDF5 file.
        split: train, val or test, if the file has splits.

    Attributes:
        length: number of scenes.
        block: number of images that are best read together.
        shapes: field -> (row shape, type), ``image`` and if known ``label``, ``membership``.
        num_entities: L, if known.
        small_names: factors, and ``num_objects`` if known.
        names: factor -> names of its codes.
    """

    def __init__(
        self, path: Path, view: CropResize, frames: int | None = None, group: str = "/", split: str | None = None
    ) -> None:
        self.path, self.view, self.frames, self.group, self.split = path, view, frames, group, split
        self._opened: tuple[int, Fields] | None = None
        self._file: h5py.File | None = None
        fields = self._fields
        self.length, self.block = fields.length, fields.block
        self.shapes = {name: (column.row_shape, column.dtype) for name, column in fields.columns.items()}
        self.small_names = list(fields.small)
        self.names, self.num_entities = fields.names, fields.entities
        self.close()

    def open(self) -> None:
        """Opens the file if it is not open in this process."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), self._open()

    def read(self, start: int, stop: int, name: str, out: NDArray[Any]) -> None:
        """Copies a field's rows of one block into ``out``."""
        try:
            self._fields.columns[name].read(start, stop, out)
        except (OSError, RuntimeError) as error:
            raise self._damaged(name, f"scenes {start} to {stop - 1}", error) from error

    def read_singly(self, rows: Sequence[int], name: str, out: NDArray[Any], places: Sequence[int]) -> None:
        """Copies single rows of a field to the given places of ``out``."""
        column = self._fields.columns[name]
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
        return self._fields.small[name]

    def close(self) -> None:
        """Closes the file; the next use opens it again."""
        if self._opened is not None and self._opened[0] == os.getpid() and self._file is not None:
            self._file.close()
        self._opened = None

    @property
    def _fields(self) -> Fields:
        self.open()
        assert self._opened is not None
        return self._opened[1]

    def _open(self) -> Fields:
        self._file = None
        if self.path.is_dir():
            return folder_fields(self.path, self.view, self.frames)
        if self.path.suffix == ".npz":
            return npz_fields(self.path, self.view)
        self._file = open_hdf5(self.path)
        where = f"{self.path}" if self.group == "/" else f"{self.path}, group {self.group[1:]}"
        try:
            with damage_told(where):
                return hdf5_fields(self._file[self.group], where, self.path, self.view)
        except Exception:
            self._file.close()
            raise

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None, "_file": None}


def parts_of(path: Path, view: CropResize, frames: int | None = None) -> list[Part]:
    """Returns the part of a file or folder, or one part for each of its groups train, val, test.

    Raises:
        SceneFileError: if there is nothing to read; it names what was found.
    """
    if frames is not None and not path.is_dir():
        raise SceneFileError(f"{path} is a file, but frames={frames} needs a folder that has one for each clip")
    if path.is_dir() or path.suffix == ".npz":
        if path.suffix == ".npz" and not path.is_file():
            raise SceneFileError(f"there is no data file {path}")
        return [Part(path, view, frames)]
    with damage_told(f"{path}"), open_hdf5(path) as file:
        found = members(file, f"{path}")
        splits = [name for name in ("train", "val", "test") if isinstance(found.get(name), h5py.Group)]
        if splits and not any(name in found for name in IMAGES):
            return [Part(path, view, frames, f"/{name}", name) for name in splits]
    return [Part(path, view, frames)]
