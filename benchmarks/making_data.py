"""Measures the speed of generating scenes and reading TFRecords, per second of processor time on one core.

python benchmarks/making_data.py
"""

import struct
import sys
import tempfile
import time
import zlib
from pathlib import Path

import google_crc32c
import numpy as np
import torch

from iodine_pl.datamodules.deepmind.releases import CLEVR, TETROMINOES
from iodine_pl.datamodules.synthetic.clevr import ClevrGenerator
from iodine_pl.datamodules.synthetic.multi_dsprites import MultiDSpritesGenerator
from iodine_pl.datamodules.synthetic.tetrominoes import TetrominoesGenerator
from iodine_pl.files.tensorflow.tfrecord import parse_example, read_records


def varint(number):
    return bytes([number & 127 | 128]) + varint(number >> 7) if number > 127 else bytes([number])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def masked_crc(data):
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def write_records(path, features, count):
    """Writes records of smooth noise with every byte as a string of length one, as in DeepMind's files."""
    rng = np.random.default_rng(0)
    compress = zlib.compressobj(6, wbits=31)
    with path.open("wb") as file:
        for _ in range(count):
            entries = b""
            for name, feature in features.items():
                size = int(np.prod(feature.shape))
                if feature.dtype is np.uint8:
                    values = np.repeat(rng.integers(256, size=-(-size // 24)), 24)[:size]
                    triples = np.stack([np.full_like(values, 0x0A), np.full_like(values, 0x01), values], axis=1)
                    content = field(1, triples.astype(np.uint8).tobytes())
                else:
                    content = field(2, field(1, rng.random(size, dtype=np.float32).tobytes()))
                entries += field(1, field(1, name.encode()) + field(2, content))
            record = field(1, entries)
            length = struct.pack("<Q", len(record))
            file.write(compress.compress(length + masked_crc(length) + record + masked_crc(record)))
        file.write(compress.flush())
    return path


def rate(blocks):
    """Returns the number of items in the blocks per second of processor time."""
    start, count = time.process_time(), 0
    for block in blocks:
        count += len(block[0]) if isinstance(block, tuple) else 1
    return count / (time.process_time() - start)


def main():
    torch.set_num_threads(1)
    rows = {
        "Tetrominoes scenes generated": rate(TetrominoesGenerator().scenes(0, 20_480)),
        "Multi-dSprites scenes generated": rate(MultiDSpritesGenerator().scenes(0, 5_120)),
    }
    clevr = ClevrGenerator(device="cpu")
    next(clevr.scenes(1000, 1001))
    rows["CLEVR scenes of 128x128 rendered"] = rate(clevr.scenes(0, 96))
    with tempfile.TemporaryDirectory() as folder:
        for release, count in ((TETROMINOES, 3000), (CLEVR, 60)):
            path = write_records(Path(folder) / release.dataset, release.features, count)
            size = path.stat().st_size / count
            rows[f"{release.dataset} records read ({size / 1e3:.1f} kB each)"] = rate(
                parse_example(record, release.features) for record in read_records(path)
            )
    print(f"python {sys.version.split()[0]}, torch {torch.__version__}, one core, per second of processor time")
    for name, value in rows.items():
        print(f"{value:10,.1f}  {name}")


if __name__ == "__main__":
    main()
