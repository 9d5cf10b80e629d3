"""Reads batches of scenes as arrays from one or several files."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from glob import has_magic
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from iodine_pl.datamodules.hdf5.errors import SceneFileError
from iodine_pl.datamodules.hdf5.folders import IMAGE_ENDINGS, pictures_in
from iodine_pl.datamodules.hdf5.resizing import CropResize
from iodine_pl.datamodules.hdf5.sources import Part, parts_of

__all__ = ["SceneDataset", "find_files"]

WINDOW = 16
"""Number of blocks that training mixes; a batch is from at most this many (from two windows at a border)."""

_CACHE_BYTES = 256 << 20
_JOINED_BYTES = 16 << 20
_GENERATED = re.compile(r"^(\d{7})-\d{7}\.h5$")
_OPEN_FILES = 400  # systems allow 1,024 by default


def find_files(path: str | Path) -> list[Path]:
    """Returns the files of a path: the file itself, those that match a pattern such as ``clevr-*.h5``, or the HDF5
    files in a folder. A folder of images, which may be in sub-folders, is returned itself.

    Raises:
        SceneFileError: if there are none.
    """
    path = Path(path)
    if has_magic(str(path)) and not path.exists():
        found = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
        if not found:
            raise SceneFileError(f"no file matches {path}")
        return _without_beginnings(found)
    if path.is_dir():
        found = _without_beginnings(sorted(file for file in path.iterdir() if file.suffix in (".h5", ".hdf5")))
        if found or pictures_in(path):
            return found or [path]
        raise SceneFileError(f"the folder {path} has neither HDF5 files nor images ({', '.join(IMAGE_ENDINGS)})")
    return [path]


def _without_beginnings(files: list[Path]) -> list[Path]:
    """Leaves out generated files, FIRST-LAST.h5, whose scenes another file begins with; ``files`` are sorted."""
    return list({file.with_name(_GENERATED.sub(r"\1", file.name)): file for file in files}.values())


class SceneDataset(Dataset[dict[str, Any]]):
    """Reads batches: ``dataset[[3, 1, 2]]`` is a dict of NumPy arrays with those scenes in that order.

    Images that are stored in blocks are read and unpacked by the block, and the last few blocks are cached. A batch
    whose indices are in few blocks is therefore cheap. Files are opened at the first read in each process, never before
    a fork, and are not pickled.

    Args:
        paths: a file, a pattern, a folder (see :func:`find_files`), or several of them in order. A file is in the
            layout of :class:`iodine_pl.datamodules.MultiObjectWriter` or in one of those of other projects, which
            docs/data.md lists.
        first: position of the first scene, if these are the last files of a larger set.
        view: crop and resizing of images and labels; by default none.
        frames: S: the folders in a folder are clips, which are cut into sequences of S frames.

    Attributes:
        first: as given.
        image_shape: (H, W, C), or (S, H, W, C) for sequences.
        splits: train, val, test -> positions, if the file has such groups; else empty.
        window: number of blocks that an order of reading may mix without reading any twice.

    Raises:
        SceneFileError: if a file is missing, damaged, empty or of another layout, or the images differ in size.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        first: int = 0,
        view: CropResize | None = None,
        frames: int | None = None,
    ) -> None:
        self.first = first
        given = [paths] if isinstance(paths, str | Path) else paths
        files = [file for path in given for file in find_files(path)]
        self._parts: list[Part] = [part for file in files for part in parts_of(file, view or CropResize(), frames)]
        self.image_shape: tuple[int, ...] = self._parts[0].shapes["image"][0]
        self._shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        for part in self._parts:
            for name, (shape, kind) in part.shapes.items():
                expected = self._shapes.setdefault(name, (shape, kind))
                if (shape, kind) != expected:
                    raise SceneFileError(
                        f"{name} of {part.path} is {shape} {kind}, in the files before it {expected[0]} {expected[1]}: "
                        "give files of one size and kind"
                    )
        self._starts = np.cumsum([first, *(part.length for part in self._parts)])
        runs: dict[str, list[NDArray[np.int64]]] = {}
        for i, part in enumerate(self._parts):
            if part.split is not None:
                runs.setdefault(part.split, []).append(np.arange(self._starts[i], self._starts[i + 1]))
        self.splits = {split: np.concatenate(each) for split, each in runs.items()}
        self._blocks = np.array([part.block for part in self._parts])
        self._first_block = np.cumsum([0, *(-(-part.length // part.block) for part in self._parts)])
        self._rows = int(self._blocks.max())
        largest = self._rows * sum(int(np.prod(shape)) * kind.itemsize for shape, kind in self._shapes.values())
        self._capacity = max(1, min(2 * WINDOW, _CACHE_BYTES // largest))
        self.window = max(1, self._capacity // 2)
        self._cache: dict[str, NDArray[Any]] = {}
        self._cached: OrderedDict[int, int] = OrderedDict()  # block -> its place in the cache
        self._free = list(range(self._capacity))
        self._small: dict[str, NDArray[Any] | None] = {}
        self._open: OrderedDict[int, None] = OrderedDict()  # parts, the most recently used last

    def __len__(self) -> int:
        return int(self._starts[-1]) - self.first

    @property
    def files(self) -> list[Path]:
        """The files and folders to read."""
        return list(dict.fromkeys(part.path for part in self._parts))

    def block_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the number of each scene's block."""
        return self._blocks_of(*self._locate(indices))

    def small(self, name: str) -> NDArray[Any] | None:
        """Returns ``num_objects`` (N,) or a factor (N, L, ...) of all scenes, without reading images; None if unknown.

        Row 0 is the scene :attr:`first`.
        """
        if not all(name in part.small_names for part in self._parts):
            return None
        return np.concatenate([self._part(i).small(name) for i in range(len(self._parts))])

    @property
    def factors(self) -> list[str]:
        """Names of the factors that all files have."""
        shared = [name for name in self._parts[0].small_names if all(name in part.small_names for part in self._parts)]
        return [name for name in shared if name != "num_objects"]

    def names(self, factor: str) -> list[str]:
        """Returns the names of a factor's codes 0, 1, ...; empty if they have none."""
        return list(self._parts[0].names.get(factor, []))

    def __getitem__(self, indices: Sequence[int]) -> dict[str, Any]:
        """Returns ``image`` (B, *image_shape) uint8, ``index`` (B,), and, if the files have them, ``label`` (B, H, W)
        uint8, ``membership`` (B, H, W), ``num_objects`` (B,) and ``factors``, a dict of (B, L, ...)."""
        where = np.asarray(indices, dtype=np.int64)
        part, row = self._locate(where)
        used = [self._part(i) for i in dict.fromkeys(part.tolist())]
        pixels = {
            name: np.empty((len(where), *shape), kind)
            for name, (shape, kind) in self._shapes.items()
            if all(name in each.shapes for each in used)
        }
        if self._rows == 1:
            for number in dict.fromkeys(part.tolist()):
                here = np.flatnonzero(part == number)
                for name, out in pixels.items():
                    self._parts[number].read_singly(row[here].tolist(), name, out, here.tolist())
        else:
            self._gather(part, row, pixels)
        if "label" in pixels:
            self._check_labels(pixels["label"], part, row)
        small = {
            name: self._small_rows(name, where, part, row)
            for name in used[0].small_names
            if all(name in each.small_names for each in used)
        }
        batch: dict[str, Any] = pixels | {"index": where}
        if "num_objects" in small:
            batch["num_objects"] = small.pop("num_objects").astype(np.int64)
        return batch | {"factors": small}

    def _check_labels(self, label: NDArray[np.uint8], part: NDArray[np.int64], row: NDArray[np.int64]) -> None:
        limits = [self._parts[i].num_entities for i in dict.fromkeys(part.tolist())]
        if None in limits or int(label.max()) < min(limits):
            return
        for i, (number, r) in enumerate(zip(part.tolist(), row.tolist(), strict=True)):
            entities, largest = self._parts[number].num_entities, int(label[i].max())
            if entities is not None and largest >= entities:
                raise SceneFileError(
                    f"{self._parts[number].path}: label of scene {r} has entity {largest}, but there are L = {entities}"
                    f" entities, 0 to {entities - 1}. The file is wrong: write it anew"
                )

    def _locate(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        part = np.searchsorted(self._starts, indices, side="right") - 1
        return part, indices - self._starts[part]

    def _blocks_of(self, part: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.asarray(self._first_block[part] + row // self._blocks[part])

    def _part(self, number: int) -> Part:
        """Opens and returns a part; if there are very many, only the most recently used stay open."""
        self._open[number] = None
        self._open.move_to_end(number)
        if len(self._open) > _OPEN_FILES:
            self._parts[self._open.popitem(last=False)[0]].close()
        self._parts[number].open()
        return self._parts[number]

    def _small_rows(
        self, name: str, where: NDArray[np.int64], part: NDArray[np.int64], row: NDArray[np.int64]
    ) -> NDArray[Any]:
        if name not in self._small:
            self._small[name] = self._joined(name)
        joined = self._small[name]
        if joined is not None:
            return joined[where - self.first]
        return np.stack([self._part(p).small(name)[r] for p, r in zip(part.tolist(), row.tolist(), strict=True)])

    def _joined(self, name: str) -> NDArray[Any] | None:
        """Returns ``num_objects`` or a factor of all files in one array, if it takes little memory, else None.

        For a single file it takes none, since the array is memory-mapped.
        """
        if len(self._parts) == 1:
            return self._part(0).small(name)
        first = self._part(0).small(name)
        if first.nbytes / len(first) * len(self) > _JOINED_BYTES:
            return None
        return self.small(name)

    def _gather(self, part: NDArray[np.int64], row: NDArray[np.int64], pixels: dict[str, NDArray[Any]]) -> None:
        """Gathers rows from the cache, which is filled with some of the blocks at a time."""
        if not self._cache:
            rows = self._capacity * self._rows
            self._cache = {name: np.empty((rows, *shape), kind) for name, (shape, kind) in self._shapes.items()}
        needed, which = np.unique(self._blocks_of(part, row), return_inverse=True)
        for first in range(0, len(needed), self._capacity):
            group = needed[first : first + self._capacity]
            self._load(group.tolist())
            place = np.array([self._cached[number] for number in group.tolist()])
            here = np.flatnonzero((which >= first) & (which < first + len(group)))
            position = place[which[here] - first] * self._rows + row[here] % self._blocks[part[here]]
            for name, out in pixels.items():
                if len(here) == len(out):
                    np.take(self._cache[name], position, axis=0, out=out, mode="clip")
                else:
                    out[here] = self._cache[name][position]

    def _load(self, blocks: Sequence[int]) -> None:
        """Reads the blocks that are not in the cache, and drops the least recently used ones."""
        for block in blocks:
            if block in self._cached:
                self._cached.move_to_end(block)
        missing = [block for block in blocks if block not in self._cached]
        while len(self._free) < len(missing):
            self._free.append(self._cached.popitem(last=False)[1])
        for block in missing:
            self._read(block, self._free[-1])
            # Only now: after an error the list must not have a block that was never read.
            self._cached[block] = self._free.pop()

    def _read(self, block: int, place: int) -> None:
        number = int(np.searchsorted(self._first_block, block, side="right") - 1)
        part = self._part(number)
        start = (block - int(self._first_block[number])) * part.block
        stop = min(start + part.block, part.length)
        at = place * self._rows
        for name in part.shapes:
            part.read(start, stop, name, self._cache[name][at : at + stop - start])

    def close(self) -> None:
        """Closes the files; the next read opens them again."""
        for part in self._parts:
            part.close()

    def __getstate__(self) -> dict[str, Any]:
        fresh = {"_cache": {}, "_cached": OrderedDict(), "_free": list(range(self._capacity)), "_open": OrderedDict()}
        return self.__dict__ | fresh | {"_small": {}}
