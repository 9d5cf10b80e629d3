"""Reads DeepMind's TFRecord files without TensorFlow: framing, checksums, and the tf.Example inside.

The files store every pixel value as a byte string of length one, which takes 3 bytes. They are read fast as a column of
an array.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from iodine_pl.files.tensorflow.wire import WireError, fields, masked_crc

__all__ = [
    "Feature",
    "Source",
    "TFRecordError",
    "largest_record",
    "looks_like_records",
    "parse_example",
    "read_records",
]

_GZIP_MAGIC = b"\x1f\x8b"
_LARGEST_RECORD = 1 << 30  # bytes, if nothing is known about the records
_SPARE = 1 << 20  # bytes of a record for features that are not read
_READ = 1 << 16  # compressed bytes at a time; they inflate about 30 times
_PIECE = 8 << 20  # inflated bytes at a time, at most: zeros inflate a thousand times


class TFRecordError(ValueError):
    """Says which record of a file is wrong, why, and what to do."""


class Source(Protocol):
    """A source of bytes: an open file, or a download."""

    @property
    def name(self) -> Any: ...

    def read(self, count: int, /) -> bytes: ...


class Feature(NamedTuple):
    """Describes a feature of an example: its shape, and whether its numbers are stored as bytes or as floats."""

    shape: tuple[int, ...]
    dtype: type[np.uint8] | type[np.float32] = np.float32


def largest_record(features: Mapping[str, Feature]) -> int:
    """Returns the largest size in bytes of a record with these features; a byte takes 3, a float at most 5."""
    numbers = sum(math.prod(feature.shape) * (3 if feature.dtype is np.uint8 else 5) for feature in features.values())
    return 2 * numbers + _SPARE


def read_records(source: str | Path | Source, largest: int = _LARGEST_RECORD) -> Iterator[bytes]:
    """Yields the records of a file, plain or gzip-compressed, and verifies every checksum.

    Args:
        source: the file's path, or a source to read it from.
        largest: maximum size of a record in bytes; a longer one is refused before it is read.

    Raises:
        FileNotFoundError: if there is no such file.
        TFRecordError: if the file is cut off, damaged or of another kind; it names the record.
    """
    if isinstance(source, str | Path):
        with Path(source).open("rb") as file:
            yield from read_records(file, largest)
        return
    number = 0
    stream = _Stream(source)
    while header := stream.read(12, number, optional=True):
        length, checksum = struct.unpack("<QI", header)
        if masked_crc(header[:8]) != checksum:
            what = "the file is damaged: download it again" if number else "is this a TFRecord file?"
            raise TFRecordError(f"{source.name}: record {number} has a wrong length checksum; {what}")
        if length > largest:
            raise TFRecordError(
                f"{source.name}: record {number} is of {length:,} bytes, expected are {largest:,} at most; is this the "
                "file of the dataset that was named?"
            )
        record = stream.read(length, number)
        if masked_crc(record) != int.from_bytes(stream.read(4, number), "little"):
            raise TFRecordError(
                f"{source.name}: record {number} has a wrong checksum; the file is damaged: download it again"
            )
        yield record
        number += 1
    if not number:
        raise TFRecordError(f"{source.name} is empty: download it again")


def looks_like_records(first: bytes) -> bool:
    """Tells from the first bytes whether a file may have records, plain or gzip-compressed."""
    if first.startswith(_GZIP_MAGIC):
        return True
    return len(first) >= 12 and masked_crc(first[:8]) == int.from_bytes(first[8:12], "little")


class _Stream:
    """Reads a plain or gzip file in small pieces and copies every byte once; ``gzip.open`` is slower."""

    def __init__(self, file: Source) -> None:
        self._file = file
        self._raw = file.read(_READ)
        self._gzip = self._raw.startswith(_GZIP_MAGIC)
        self._inflate = zlib.decompressobj(wbits=31)
        self._piece = memoryview(b"")

    def read(self, count: int, number: int, optional: bool = False) -> bytes:
        """Returns the next ``count`` bytes of record ``number``; if ``optional``, none at the end of the file."""
        parts: list[memoryview] = []
        missing = count
        while missing:
            if not len(self._piece):
                try:
                    self._piece = memoryview(self._next_piece(number))
                except zlib.error as error:
                    raise TFRecordError(
                        f"{self._file.name}: the gzip stream breaks in record {number} ({error}); the file is damaged: "
                        "download it again"
                    ) from error
                if not len(self._piece):
                    break
            parts.append(self._piece[:missing])
            self._piece = self._piece[missing:]
            missing -= len(parts[-1])
        if missing:
            if optional and missing == count and (self._inflate.eof or not self._gzip):
                return b""
            raise TFRecordError(
                f"{self._file.name} ends inside record {number}; the file is cut off: download the rest or ask for the "
                f"first {number} records only"
            )
        return b"".join(parts)

    def _next_piece(self, number: int) -> bytes:
        """Returns the next bytes of the content, empty at its end."""
        while True:
            self._raw = self._raw or self._file.read(_READ)
            if not self._raw or not self._gzip:
                piece, self._raw = self._raw, b""
                return piece
            if self._inflate.eof:  # gzip members may follow one another
                if not self._raw.startswith(_GZIP_MAGIC[:1]):
                    raise TFRecordError(f"{self._file.name}: something that is not gzip follows record {number}")
                self._inflate = zlib.decompressobj(wbits=31)
            piece = self._inflate.decompress(self._raw, _PIECE)
            self._raw = self._inflate.unconsumed_tail or self._inflate.unused_data
            if piece:
                return piece


def parse_example(record: bytes, features: Mapping[str, Feature]) -> dict[str, NDArray[Any]]:
    """Returns the named features of a serialized tf.Example as arrays of the given shapes and types.

    Raises:
        ValueError: if a feature is missing or has another number of elements or another kind; the message names it.
    """
    found: dict[str, NDArray[Any]] = {}
    try:
        for _, example in fields(memoryview(record)):
            for _, entry in fields(example):
                named = dict(fields(entry))
                if 1 not in named:
                    continue
                name = bytes(named[1]).decode(errors="replace")
                if name in features:
                    found[name] = _values(name, named.get(2, memoryview(b"")), features[name])
    except WireError as error:
        raise ValueError(f"not a tf.Example: {error}") from error
    if missing := [name for name in features if name not in found]:
        raise ValueError(f"no feature {', '.join(missing)}: this is not a file of the dataset that was named")
    return found


def _values(name: str, feature: memoryview, expected: Feature) -> NDArray[Any]:
    """Reads the list (of bytes, floats or integers) that a feature holds."""
    values: NDArray[Any] = np.empty(0, expected.dtype)
    for kind, content in fields(feature):
        if kind == 1 and expected.dtype is np.uint8:
            values = _byte_list(name, content)
        elif kind == 2 and expected.dtype is np.float32:
            values = _float_list(content)
        else:
            stored = {1: "bytes", 2: "floats", 3: "integers"}.get(kind, f"kind {kind}")
            raise ValueError(f"feature {name} is stored as {stored}, not as {expected.dtype.__name__}")
    count = int(np.prod(expected.shape))
    if values.size != count:
        raise ValueError(f"feature {name} has {values.size} elements, not {count} = {expected.shape}")
    return values.reshape(expected.shape)


def _byte_list(name: str, content: memoryview) -> NDArray[np.uint8]:
    raw = np.frombuffer(content, np.uint8)
    if len(raw) and len(raw) % 3 == 0:  # the fast path: only strings of length one, each 0A 01 and the byte
        headers = np.ndarray(len(raw) // 3, "<u2", content, strides=(3,))
        if (headers == 0x010A).all():
            return raw[2::3]
    strings = [bytes(string) for _, string in fields(content)]
    if len(strings) == 1:  # one string for the whole array
        return np.frombuffer(strings[0], np.uint8)
    if any(len(string) != 1 for string in strings):
        raise ValueError(f"feature {name} has byte-strings that are not of length one")
    return np.frombuffer(b"".join(strings), np.uint8)


def _float_list(content: memoryview) -> NDArray[np.float32]:
    return np.frombuffer(b"".join(bytes(part) for _, part in fields(content)), "<f4")  # packed, or one by one
