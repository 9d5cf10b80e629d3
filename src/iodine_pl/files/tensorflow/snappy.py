"""Unpacks a block in the raw Snappy format (github.com/google/snappy, format_description.txt)."""

from __future__ import annotations

from iodine_pl.files.tensorflow.wire import WireError, varint

__all__ = ["decompress"]


def decompress(block: memoryview, limit: int) -> bytes:
    """Returns the unpacked bytes of a block, at most ``limit``.

    Raises:
        WireError: if the block is damaged or unpacks to more.
    """
    size, at = varint(block, 0)
    if size > limit:
        raise WireError(f"a compressed block says that it unpacks to {size} bytes")
    out = bytearray()

    def little_endian(count: int) -> int:
        nonlocal at
        if at + count > len(block):
            raise WireError("a compressed block ends inside a command")
        at += count
        return int.from_bytes(block[at - count : at], "little")

    while at < len(block):
        tag = little_endian(1)
        kind, length = tag & 3, (tag >> 2) + 1
        if kind == 0:  # a literal
            if length > 60:
                length = little_endian(length - 60) + 1
            if at + length > len(block) or len(out) + length > size:
                raise WireError("a compressed block copies from beyond its end")
            out += block[at : at + length]
            at += length
            continue
        if kind == 1:  # a copy of earlier bytes
            length, back = ((tag >> 2) & 7) + 4, (tag >> 5) << 8 | little_endian(1)
        else:
            back = little_endian(2 if kind == 2 else 4)
        if not 0 < back <= len(out) or len(out) + length > size:
            raise WireError("a compressed block copies from before its beginning")
        while length:  # source and target may overlap
            start = len(out) - back
            part = out[start : start + length]
            out += part
            length -= len(part)
    if len(out) != size:
        raise WireError(f"a compressed block unpacks to {len(out)} bytes, not to {size}")
    return bytes(out)
