"""Reads rows of an HDF5 dataset from an untrusted file: nothing unpacks to more than its shape says."""

from __future__ import annotations

import zlib
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import google_crc32c
import h5py
import numpy as np
from numpy.typing import NDArray

__all__ = ["ArrayRows", "CheckedRows", "ChunkedRows", "Rows", "rows_of", "table_of"]

_LARGEST = 1 << 30  # bytes of an unpacked chunk or a table: more than any use needs, and it still fits in memory
_DEFLATE, _SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE


class Rows(Protocol):
    """Rows of one shape and type, the first axis counting scenes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk: int
    """Rows that are unpacked together."""

    def read(self, start: int, stop: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Returns rows (stop - start, ...), written to ``out`` if given.

        Raises:
            OSError, RuntimeError: if the file is damaged there.
        """


class ArrayRows:
    """Rows of an array, which may be memory-mapped."""

    chunk = 1

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = array.dtype

    def read(self, start: int, stop: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        if out is None:
            return self._array[start:stop]
        out[:] = self._array[start:stop]
        return out


class CheckedRows:
    """Rows that are stored with a CRC-32C each.

    Args:
        rows: the stored rows.
        checksums: (N,) uint32.
    """

    def __init__(self, rows: Rows, checksums: NDArray[np.uint32]) -> None:
        self._rows, self._checksums = rows, checksums
        self.shape, self.dtype, self.chunk = rows.shape, rows.dtype, rows.chunk

    def read(self, start: int, stop: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        rows = self._rows.read(start, stop, out)
        for number in range(stop - start):
            if google_crc32c.value(np.ascontiguousarray(rows[number])) != self._checksums.item(start + number):
                raise OSError(
                    "its checksum is wrong; if you changed it yourself, delete the group crc32c, and it is not checked"
                )
        return rows


class ChunkedRows:
    """Rows of a dataset that is stored in chunks.

    Uncompressed and gzip chunks are read here, which is faster than HDF5's selections and never unpacks more than the
    size of a chunk. Chunks with other filters are checked and then read by HDF5.

    Raises:
        ValueError: if a chunk is too large to be unpacked at all, or compressed twice.
    """

    def __init__(self, dataset: h5py.Dataset, path: Path) -> None:
        self._dataset = dataset
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: np.dtype[Any] = dataset.dtype
        self._chunk: tuple[int, ...] = dataset.chunks
        self.chunk = self._chunk[0]
        properties = dataset.id.get_create_plist()
        self._filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
        self._size = int(np.prod(self._chunk, dtype=object)) * self.dtype.itemsize
        if self._size > _LARGEST:
            raise ValueError(
                f"its chunks {self._chunk} take {self._size / 1e9:.1f} GB each. Write it again in smaller ones, for "
                "example with h5repack -l CHUNK"
            )
        if self._filters.count(_DEFLATE) > 1:
            raise ValueError("it is compressed twice. Write it anew with MultiObjectWriter")
        self._direct = self._filters in ([], [_DEFLATE], [_SHUFFLE, _DEFLATE])
        self._singly: _MappedRows | None = None
        lone = not self._filters and self._chunk == (1, *self.shape[1:]) and not dataset.file.userblock_size
        if lone and hasattr(dataset.id, "chunk_iter"):  # since HDF5 1.12.3
            self._singly = _MappedRows(dataset, path, self._size)

    def read(self, start: int, stop: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        if out is None:
            out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        rows, *others = self._chunk
        if self._singly is not None and out.flags.c_contiguous:
            self._singly.read(start, out)
            return out
        first = range(start - start % rows, stop, rows)
        corners = product(first, *(range(0, side, step) for side, step in zip(self.shape[1:], others, strict=True)))
        if not self._direct:
            for corner in corners:
                self._look_at(corner)
            out[:] = self._dataset[start:stop]
            return out
        for corner in corners:
            low, high = max(corner[0], start), min(corner[0] + rows, stop)
            inner = tuple(slice(at, at + step) for at, step in zip(corner[1:], others, strict=True))
            place = out[(slice(low - start, high - start), *inner)]
            within = tuple(slice(0, side) for side in place.shape[1:])
            place[...] = self._unpacked(corner)[(slice(low - corner[0], high - corner[0]), *within)]
        return out

    def _stored(self, corner: tuple[int, ...]) -> tuple[int, memoryview] | None:
        """Returns the mask of filters that a chunk skips, and its stored bytes; None if it was never written."""
        room = np.empty(self._size + self._size // 1000 + 64, np.uint8)  # incompressible data may grow by this much
        try:
            skipped, packed = self._dataset.id.read_direct_chunk(corner, out=room)
        except ValueError as error:
            raise OSError(f"a chunk takes more than the {len(room)} bytes it can have") from error
        except (OSError, RuntimeError):
            if self._dataset.id.get_chunk_info_by_coord(corner).byte_offset is None:
                return None
            raise
        return skipped, memoryview(packed)

    def _unpacked(self, corner: tuple[int, ...]) -> NDArray[Any]:
        stored = self._stored(corner)
        if stored is None:  # it was never written
            return np.broadcast_to(np.asarray(self._dataset.fillvalue, self.dtype), self._chunk)
        skipped, packed = stored
        content: Any = packed
        for number in reversed(range(len(self._filters))):
            if skipped >> number & 1:
                continue
            if self._filters[number] == _DEFLATE:
                content = self._inflated(content)
            elif len(content) == self._size:
                content = np.frombuffer(content, np.uint8).reshape(self.dtype.itemsize, -1).T.tobytes()
        if len(content) != self._size:
            raise OSError(f"a chunk has {len(content)} bytes, not {self._size}")
        return np.frombuffer(content, self.dtype).reshape(self._chunk)

    def _look_at(self, corner: tuple[int, ...]) -> None:
        """Refuses a chunk that HDF5 would unpack to more than the size of a chunk."""
        stored = self._stored(corner)
        if stored is not None and _DEFLATE in self._filters and not stored[0] >> self._filters.index(_DEFLATE) & 1:
            self._inflated(stored[1])

    def _inflated(self, packed: Any) -> bytes:
        inflate = zlib.decompressobj()
        try:
            content = inflate.decompress(packed, self._size + 1)
        except zlib.error as error:
            raise OSError(str(error)) from error
        if len(content) > self._size:
            raise OSError(f"a chunk unpacks to more than the {self._size} bytes it has room for")
        if not inflate.eof:
            raise OSError("a chunk is cut off")
        return content


class _MappedRows:
    """Rows that are one uncompressed chunk each. They are read without HDF5, which takes three times as long."""

    def __init__(self, dataset: h5py.Dataset, path: Path, size: int) -> None:
        self._dataset, self._size = dataset, size
        self._file = np.memmap(path, np.uint8, "r")
        self._at: NDArray[np.int64] | None = None

    def read(self, start: int, out: NDArray[Any]) -> None:
        """Copies rows from ``start`` to all of ``out``.

        Raises:
            OSError: if one of them is not inside the file.
        """
        if self._at is None:
            self._at = self._found()
        content = out.reshape(len(out), -1).view(np.uint8)
        for number in range(len(out)):
            at = self._at.item(start + number)
            if at < 0:
                out[number] = self._dataset.fillvalue
            elif at + self._size > len(self._file):
                raise OSError("it lies beyond the end of the file")
            else:
                content[number] = self._file[at : at + self._size]

    def _found(self) -> NDArray[np.int64]:
        """Returns the offset of each row, -1 if it was never written; looking up one would take as long as all."""
        at = np.full(len(self._dataset), -1, np.int64)

        def note(chunk: Any) -> None:
            row = chunk.chunk_offset[0]
            if row >= len(at):
                raise OSError(f"it has a chunk for row {row} of {len(at)}")
            at[row] = chunk.byte_offset

        self._dataset.id.chunk_iter(note)
        return at


def rows_of(dataset: h5py.Dataset, path: Path) -> Rows:
    """Returns the rows of a dataset, memory-mapped if it is contiguous in the file.

    Raises:
        ValueError: if it is outside the file, or cannot be unpacked safely.
    """
    if dataset.chunks is not None:
        return ChunkedRows(dataset, path)
    offset = dataset.id.get_offset()
    if offset is None or not dataset.size:
        if dataset.nbytes > _LARGEST:
            raise ValueError(f"nothing of its {dataset.nbytes / 1e9:.1f} GB is stored")
        return ArrayRows(dataset[()])
    return ArrayRows(np.asarray(np.memmap(path, dataset.dtype, "r", offset, dataset.shape)))


def table_of(dataset: h5py.Dataset, path: Path) -> NDArray[Any]:
    """Returns a dataset as an array, which is memory-mapped if it is contiguous in the file.

    Raises:
        ValueError: as :func:`rows_of`.
        OSError: if it is damaged.
    """
    if dataset.chunks is not None and dataset.nbytes > _LARGEST:
        raise ValueError(f"it takes {dataset.nbytes / 1e9:.1f} GB, far more than a table of factors")
    return rows_of(dataset, path).read(0, len(dataset))
