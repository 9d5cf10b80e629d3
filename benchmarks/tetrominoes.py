"""Measures how fast Tetrominoes scenes are generated, read from TFRecords and streamed from HDF5, on one core.

python benchmarks/tetrominoes.py
"""

import struct
import sys
import tempfile
import time
import zlib
from itertools import islice
from pathlib import Path

import google_crc32c
import numpy as np
import torch

from iodine_pl.datamodules import Feature, TetrominoesDataModule
from iodine_pl.datamodules.synthetic.tetrominoes import generate
from iodine_pl.datamodules.tfrecord import parse_example, read_records

CLEVR = {"image": Feature((240, 320, 3), np.uint8), "mask": Feature((11, 240, 320, 1), np.uint8)}


def varint(number):
    return bytes([number & 127 | 128]) + varint(number >> 7) if number > 127 else bytes([number])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def masked_crc(data):
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def write_records(path, features, count):
    """Writes records of smooth noise, every byte a string of length one, as in DeepMind's files."""
    rng = np.random.default_rng(0)
    compress = zlib.compressobj(6, wbits=31)
    with path.open("wb") as file:
        for _ in range(count):
            entries = b""
            for name, feature in features.items():
                values = np.repeat(rng.integers(256, size=-(-np.prod(feature.shape) // 24)), 24)[
                    : np.prod(feature.shape)
                ]
                triples = np.stack([np.full_like(values, 0x0A), np.full_like(values, 0x01), values], axis=1)
                content = field(1, triples.astype(np.uint8).tobytes())
                entries += field(1, field(1, name.encode()) + field(2, content))
            record = field(1, entries)
            length = struct.pack("<Q", len(record))
            file.write(compress.compress(length + masked_crc(length) + record + masked_crc(record)))
        file.write(compress.flush())


def rate(items):
    """Returns items per second of processor time."""
    start, count = time.process_time(), 0
    for _ in items:
        count += 1
    return count / (time.process_time() - start)


def main():
    torch.set_num_threads(1)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        rows["scenes generated"] = 256 * rate(generate(20_480))
        path = Path(folder) / "clevr.tfrecords"
        write_records(path, CLEVR, 60)
        size = path.stat().st_size / 60
        rows[f"CLEVR-size records read ({size / 1e3:.0f} kB each)"] = rate(
            parse_example(record, CLEVR) for record in read_records(path)
        )
        data = TetrominoesDataModule(data_dir=folder, num_train=20_480)
        data.prepare_data()
        data.setup("fit")
        rows["images streamed in batches of 128"] = 128 * rate(islice(iter(data.train_dataloader()), 160))
    print(
        f"python {sys.version.split()[0]}, torch {torch.__version__}, one core, per second of processor time",
        flush=True,
    )
    for name, value in rows.items():
        print(f"{value:10,.0f}  {name}")


if __name__ == "__main__":
    main()
