"""Measures the speed of shuffled batches of images and labels, compared with a plain map-style h5py Dataset.

python benchmarks/data.py [--json FILE]

"ours" reads the files of the datamodules at their default settings. "plain" is the simplest reader: arrays stored by
h5py's defaults, uncompressed, read one image at a time, and a DataLoader that shuffles and collates. Every row is
measured in a process of its own with the files in the page cache: the median of three epochs, and the peak memory of
the process plus that of its largest worker. The first line shows the memory of python, torch and Lightning alone.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from iodine_pl.datamodules import (
    ClevrDataModule,
    MultiDSpritesDataModule,
    MultiObjectWriter,
    SceneDataset,
    TetrominoesDataModule,
)
from iodine_pl.datamodules.synthetic.clevr import ClevrGenerator
from iodine_pl.datamodules.synthetic.multi_dsprites import MultiDSpritesGenerator
from iodine_pl.datamodules.synthetic.shards import generate
from iodine_pl.datamodules.synthetic.tetrominoes import TetrominoesGenerator

KINDS = {"clevr": ClevrDataModule, "tetrominoes": TetrominoesDataModule, "multi_dsprites": MultiDSpritesDataModule}
COUNTS = {"clevr": 8192, "tetrominoes": 61_440, "multi_dsprites": 40_960}
RENDERED = 64  # CLEVR scenes to render; they are stored repeatedly, which makes no difference to a reader


class Plain(Dataset):
    def __init__(self, path):
        self.path = path
        self.file = None
        with h5py.File(path) as file:
            self.length = len(file["image"])

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if self.file is None:
            self.file = h5py.File(self.path)
        image = torch.from_numpy(self.file["image"][index]).permute(2, 0, 1)
        return {"image": image, "label": torch.from_numpy(self.file["label"][index])}


def make(folder):
    """Writes the three datasets in both layouts."""
    generate(TetrominoesGenerator(), folder / "tetrominoes", COUNTS["tetrominoes"])
    generate(MultiDSpritesGenerator(), folder / "multi_dsprites", COUNTS["multi_dsprites"])
    image, label, factors = zip(*ClevrGenerator().scenes(0, RENDERED), strict=True)
    image, label = np.concatenate(image), np.concatenate(label)
    factors = {name: np.concatenate([each[name] for each in factors]) for name in factors[0]}
    (folder / "clevr").mkdir()
    with MultiObjectWriter(folder / "clevr" / "clevr.h5") as writer:
        for _ in range(COUNTS["clevr"] // RENDERED):
            writer.append(image, label, factors)
    for name in KINDS:
        scenes = SceneDataset(sorted((folder / name).rglob("*.h5")))
        with h5py.File(folder / f"{name}.h5", "w") as file:
            shape = (len(scenes), *scenes.image_shape)
            file.create_dataset("image", shape, np.uint8)
            file.create_dataset("label", shape[:3], np.uint8)
            for start in range(0, len(scenes), 1024):
                batch = scenes[range(start, min(start + 1024, len(scenes)))]
                file["image"][start : start + 1024] = batch["image"]
                file["label"][start : start + 1024] = batch["label"]


def loader(folder, name, reader, workers):
    if reader == "plain":
        batch_size = KINDS[name]().batch_size
        scenes = Plain(folder / f"{name}.h5")
        return DataLoader(
            scenes, batch_size, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
        )
    files = folder / name if name == "clevr" else next((folder / name).iterdir())
    data = KINDS[name](files, num_train=COUNTS[name] - 640, num_workers=workers)
    data.setup("fit")
    return data.train_dataloader()


def measure(folder, name, reader, workers):
    """Prints images per second and peak bytes."""
    batches = loader(folder, name, reader, workers)
    rates = []
    for epoch in range(4):
        if reader == "ours":
            batches.sampler.set_epoch(epoch)
        start, count = time.perf_counter(), 0
        for batch in batches:
            count += len(batch["image"])
            assert batch["label"].shape[0] == batch["image"].shape[0]
            if count / (time.perf_counter() - start) < 2000 and count > 4000:
                break  # slow enough to be measured on a part of the epoch
        rates.append(count / (time.perf_counter() - start))
    helpers = [worker.pid for worker in batches._iterator._workers] if workers else []
    peak = peak_bytes("self") + max(map(peak_bytes, helpers), default=0)
    print(json.dumps([statistics.median(rates[1:]), peak]))


def peak_bytes(process):
    """Returns the largest resident size of a process so far (Linux)."""
    line = next(line for line in Path(f"/proc/{process}/status").read_text().splitlines() if "VmHWM" in line)
    return int(line.split()[1]) * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--folder", type=Path, help="keep the data here, and use what is there")
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, reader, workers = given.one
        measure(given.folder, name, reader, int(workers))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        if given.make:
            make(folder)
            return
        if not (folder / "multi_dsprites.h5").exists():
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run([sys.executable, __file__, "--folder", str(folder), "--make"], check=True)
        print(
            f"python {sys.version.split()[0]}, torch {torch.__version__}, {torch.get_num_threads()} cores", flush=True
        )
        print(f"the libraries alone: {peak_bytes('self') / 1e6:.0f} MB", flush=True)
        rows = []
        for name in KINDS:
            for workers in (0, 2):
                for reader in ("ours", "plain"):
                    command = [sys.executable, __file__, "--folder", str(folder), "--one", name, reader, str(workers)]
                    speed, peak = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                    rows.append(
                        {
                            "dataset": name,
                            "reader": reader,
                            "workers": workers,
                            "images_per_second": speed,
                            "peak_bytes": peak,
                        }
                    )
                    print(
                        f"{name:15} {reader:6} {workers} workers {speed:10,.0f} images/s {peak / 1e6:6.0f} MB",
                        flush=True,
                    )
    if given.json:
        given.json.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
