"""Reads a TensorFlow checkpoint of version 2, a "tensor bundle": a sorted table of entries, and files of raw tensors.

Every byte is checked before it is used. A damaged or hostile file raises a :class:`BundleError` and takes at most a few
times its own size in memory; it never gives a wrong array.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iodine_pl.files.tensorflow.snappy import decompress
from iodine_pl.files.tensorflow.wire import WireError, fields, masked_crc, varint

__all__ = ["LARGEST_INDEX", "Bundle", "BundleError", "read_bundle"]

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER = 48  # bytes: two handles, each of two numbers, padding, the magic number
_TRAILER = 5  # bytes after each block: kind of compression, checksum
LARGEST_INDEX = 1 << 22  # bytes, compressed or not; the largest of an IODINE has 4,000
_LARGEST_KEY = 1 << 12  # bytes
_MOST_NUMBERS = 1 << 40  # in a tensor, with empty axes counted as 1
_MOST_AXES = 32
_DTYPES = {
    1: "<f4",
    2: "<f8",
    3: "<i4",
    4: "u1",
    5: "<i2",
    6: "i1",
    9: "<i8",
    10: "?",
    17: "<u2",
    19: "<f2",
    22: "<u4",
    23: "<u8",
}
_STRING = 7


class BundleError(ValueError):
    """Says what is wrong with the files of a checkpoint."""


class Bundle(NamedTuple):
    """Holds the tensors of a checkpoint by name."""

    arrays: dict[str, NDArray[Any]]
    unreadable: dict[str, str]
    """Name -> reason, for entries that are not read: strings, partitioned variables, unusual numeric types."""


class _Entry(NamedTuple):
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int


def read_bundle(index: bytes, read_shard: Callable[[int, int], bytes]) -> Bundle:
    """Reads all tensors and verifies every checksum.

    Args:
        index: content of ``PREFIX.index``.
        read_shard: (number of the shard, number of shards) -> content of ``PREFIX.data-NUMBER-of-SHARDS``.

    Raises:
        BundleError: if the index or a shard is damaged, cut off, or of another kind.
    """
    try:
        shards, entries, unreadable = _read_index(index)
    except WireError as error:
        raise BundleError(f"the index is damaged: {error}") from error
    of_shard: dict[int, list[_Entry]] = defaultdict(list)
    for entry in entries:
        of_shard[entry.shard].append(entry)
    arrays: dict[str, NDArray[Any]] = {}
    for shard, inside in sorted(of_shard.items()):
        arrays |= _read_tensors(read_shard(shard, shards), inside)
    return Bundle(dict(sorted(arrays.items())), unreadable)


def _read_tensors(data: bytes, entries: list[_Entry]) -> Iterator[tuple[str, NDArray[Any]]]:
    end, before = 0, ""
    for entry in sorted(entries, key=lambda entry: (entry.offset, entry.size)):
        if entry.offset + entry.size > len(data):
            raise BundleError(
                f"{entry.name} lies at bytes {entry.offset} to {entry.offset + entry.size} of a data file of "
                f"{len(data)}: the file is cut off, or belongs to another index"
            )
        if entry.size and entry.offset < end:
            raise BundleError(f"{entry.name} and {before} share bytes of the data file")
        end, before = max(end, entry.offset + entry.size), entry.name
        if masked_crc(data[entry.offset : entry.offset + entry.size]) != entry.checksum:
            raise BundleError(f"{entry.name} has a wrong checksum: the data file is damaged")
        values = np.frombuffer(data, entry.dtype, math.prod(entry.shape), entry.offset)
        # An aligned copy in the machine's byte order, which does not keep the whole file in memory.
        yield entry.name, values.reshape(entry.shape).astype(entry.dtype.newbyteorder("="))


def _read_index(index: bytes) -> tuple[int, list[_Entry], dict[str, str]]:
    """Returns the number of shards, the tensors, and the reasons why other entries are not read."""
    shards = 0
    entries: list[_Entry] = []
    unreadable: dict[str, str] = {}
    for key, value in _table(index):
        if not shards:
            if key:
                raise BundleError("the index has no header")
            shards = _number_of_shards(value)
        elif not key.startswith(b"\0"):  # the others are pieces of partitioned variables
            entry = _entry(key, value, shards)
            if isinstance(entry, str):
                unreadable[_text(key)] = entry
            else:
                entries.append(entry)
    if not shards:
        raise BundleError("the index is empty")
    return shards, entries, unreadable


def _number_of_shards(header: memoryview) -> int:
    numbers = dict(fields(header))
    if _number(numbers.get(2)):
        raise BundleError("the checkpoint was written on a big-endian machine, which is not supported")
    shards = _number(numbers.get(1))
    if not 1 <= shards <= 99_999:  # as many as its file names can count
        raise BundleError(f"the index says that there are {shards} data files")
    return shards


def _entry(key: bytes, value: memoryview, shards: int) -> _Entry | str:
    """Returns the entry of a tensor, or the reason why it is not read."""
    name = _text(key)
    numbers = dict(fields(value))
    if 7 in numbers:
        return "a partitioned variable"
    kind = _number(numbers.get(1))
    if kind not in _DTYPES:
        return "a string tensor" if kind == _STRING else f"of the unsupported type {kind}"
    dtype = np.dtype(_DTYPES[kind])
    shape = tuple(
        _number(dict(fields(axis)).get(1)) for field, axis in fields(numbers.get(2, memoryview(b""))) if field == 2
    )
    shard, offset, size = (_number(numbers.get(field)) for field in (3, 4, 5))
    # Checked before memory is taken, since any of these numbers may be absurd.
    if len(shape) > _MOST_AXES or math.prod(max(1, length) for length in shape) > _MOST_NUMBERS:
        raise BundleError(f"{name} has an absurd shape: {len(shape)} axes, {shape[:_MOST_AXES]}")
    if math.prod(shape) * dtype.itemsize != size:
        raise BundleError(f"{name} has {size} bytes, but {shape} of {dtype.name} are {math.prod(shape)} numbers")
    if shard >= shards:
        raise BundleError(f"{name} lies in data file {shard} of {shards}")
    checksum = numbers.get(6, memoryview(b""))
    if len(checksum) != 4:
        raise BundleError(f"{name} has no checksum")
    return _Entry(name, dtype, shape, shard, offset, size, int.from_bytes(checksum, "little"))


def _number(content: memoryview | None) -> int:
    """Returns the number in a field; 0 if the field is missing."""
    if content is None:
        return 0
    value, end = varint(content, 0)
    if value >= 1 << 63 or end != len(content):
        raise BundleError("the index is damaged: a number is negative or too long")
    return value


def _text(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise BundleError(f"the index is damaged: the name {key!r} is no text") from error


def _table(index: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yields (key, value) of the index, which is a sorted table."""
    if len(index) > LARGEST_INDEX:
        raise BundleError(f"the index has {len(index)} bytes or more, {LARGEST_INDEX} are the most that are read")
    if len(index) < _FOOTER or index[-8:] != _MAGIC:
        raise BundleError("this is not the index of a TensorFlow checkpoint, or its end is missing")
    footer = memoryview(index)[-_FOOTER:-8]
    at = 0
    for _ in range(2):  # skips the handle of an unused empty block
        _, at = varint(footer, at)
    top, _ = _handle(footer, at)
    content = memoryview(index)[:-_FOOTER]
    left = LARGEST_INDEX  # total bytes that all blocks may unpack to
    last: bytes | None = None
    end = 0
    for _, value in _entries(_block(content, *top, left)):
        (offset, size), _ = _handle(value, 0)
        if offset < end:
            raise BundleError("the index is damaged: a block stands twice, or blocks overlap")
        end = offset + size
        block = _block(content, offset, size, left)
        left -= len(block)
        for key, entry in _entries(block):
            if last is not None and key <= last:
                raise BundleError("the index is damaged: its names are not in order")
            last = key
            yield key, entry


def _handle(message: memoryview, at: int) -> tuple[tuple[int, int], int]:
    offset, at = varint(message, at)
    size, at = varint(message, at)
    return (offset, size), at


def _block(content: memoryview, offset: int, size: int, limit: int) -> memoryview:
    """Returns the verified, unpacked content of a block."""
    end = offset + size
    if end + _TRAILER > len(content):
        raise BundleError(f"the index is cut off: a block lies at bytes {offset} to {end} of {len(content)}")
    if masked_crc(bytes(content[offset : end + 1])) != int.from_bytes(content[end + 1 : end + _TRAILER], "little"):
        raise BundleError("a block of the index has a wrong checksum: the index is damaged")
    block, compression = content[offset:end], content[end]
    if compression == 1:
        return memoryview(decompress(block, limit))
    if compression:
        raise BundleError(f"a block of the index is compressed in the unknown way {compression}")
    return block


def _entries(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yields (key, value) of a block, in which each key is stored as its difference from the one before."""
    count = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (count + 1)  # offsets of whole keys, and their number
    if len(block) < 4 or end < 0:
        raise BundleError("the index is damaged: a block is shorter than its list of restarts")
    key = b""
    at = 0
    while at < end:
        shared, at = varint(block, at)
        added, at = varint(block, at)
        length, at = varint(block, at)
        if shared > len(key) or shared + added > _LARGEST_KEY or at + added + length > end:
            raise BundleError("the index is damaged: an entry is longer than its block")
        key = key[:shared] + bytes(block[at : at + added])
        at += added + length
        yield key, block[at - length : at]
