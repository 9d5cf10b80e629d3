"""The encodings in TensorFlow's files: masked checksums, numbers of variable length, protobuf messages."""

from __future__ import annotations

from collections.abc import Iterator

import google_crc32c

__all__ = ["WireError", "fields", "masked_crc", "varint"]


class WireError(ValueError):
    """Says how the encoding is broken."""


def masked_crc(data: bytes) -> int:
    """Returns the CRC-32C of ``data`` in the form in which TensorFlow stores it beside the data."""
    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def varint(message: memoryview, at: int) -> tuple[int, int]:
    """Returns the number at position ``at``, 0 <= number < 2^70, and the position after it.

    Raises:
        WireError: if it does not end within ten bytes and within the message.
    """
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise WireError("it ends inside a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise WireError("a number is too long")


def fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yields (field number, content) of a protobuf message; the content of a number is its bytes.

    Raises:
        WireError: if it is not a valid message.
    """
    at, end = 0, len(message)
    while at < end:
        tag, at = varint(message, at)
        kind = tag & 7
        if kind == 2:
            length, at = varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        elif kind == 0:
            length = varint(message, at)[1] - at
        else:
            raise WireError(f"wire type {kind}")
        if at + length > end:
            raise WireError("a field is longer than its message")
        yield tag >> 3, message[at : at + length]
        at += length
