"""Writes TFRecord files in the plainest way, independently of the reader that is tested."""

import gzip
import struct

import numpy as np

from iodine_pl.datamodules.synthetic.tetrominoes import TetrominoesGenerator


def _table():
    """Returns the CRC-32C of each byte, a bit at a time."""
    for crc in range(256):
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        yield crc


TABLE = list(_table())


def crc32c(data):
    """Returns the CRC-32C, masked as in TFRecord files, computed byte by byte."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values, strings="one per element", packed=True):
    values = np.asarray(values)
    if values.dtype == np.uint8:
        raw = values.tobytes()
        parts = [raw] if strings == "one for all" else [bytes([byte]) for byte in raw]
        return field(1, b"".join(field(1, part) for part in parts))
    if packed:
        return field(2, field(1, values.astype("<f4").tobytes()))
    return field(2, b"".join(varint(1 << 3 | 5) + struct.pack("<f", x) for x in values.ravel()))


def example(features, **options):
    entries = [field(1, field(1, name.encode()) + field(2, feature(v, **options))) for name, v in features.items()]
    return field(1, b"".join(entries))


def framed(record):
    length = struct.pack("<Q", len(record))
    return length + struct.pack("<I", crc32c(length)) + record + struct.pack("<I", crc32c(record))


def scenes(count, seed=0):
    """Returns generated scenes as the real files hold them."""
    found = []
    for image, label, factors in TetrominoesGenerator(seed).scenes(0, count):
        for i in range(len(image)):
            mask = (label[i] == np.arange(4)[:, None, None])[..., None].astype(np.uint8) * 255
            found.append({"image": image[i], "mask": mask} | {name: values[i] for name, values in factors.items()})
    return found


def write(path, records, compress=True):
    data = b"".join(framed(record) for record in records)
    path.write_bytes(gzip.compress(data, 1) if compress else data)
    return path
