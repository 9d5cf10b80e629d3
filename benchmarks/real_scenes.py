"""Splits the real scenes that come with the tests, by weights that were trained on generated ones.

python benchmarks/real_scenes.py --json docs/results/real_scenes.json --plots docs/results

These are two CLEVR scenes, cropped and resized as in the experiments, and ten records of Tetrominoes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from iodine_pl import IODINE
from iodine_pl.datamodules import TetrominoesDataModule
from iodine_pl.datamodules.deepmind.resizing import crop_and_resize
from iodine_pl.evaluation.panels import Row, draw_rows, slot_rows
from iodine_pl.evaluation.scores import SCORES, step_scores

REAL = Path(__file__).parents[1] / "tests" / "data"
SLOTS = (7, 11)  # for the five and the eight objects of the CLEVR scenes: as in training, and as for up to 10 objects
SHOWN = ("ari_fg", "ari", "mse")


def clevr(side: int) -> tuple[Tensor, Tensor]:
    """Returns images (2, 3, H, W) in [0, 1] and labels (2, H, W)."""
    with np.load(REAL / "clevr_two_scenes.npz") as file:
        images, labels = crop_and_resize(file["image"], file["label"], side)
    return torch.from_numpy(images).movedim(-1, 1) / 255, torch.from_numpy(labels.squeeze())


def tetrominoes() -> tuple[Tensor, Tensor]:
    """Returns images (10, 3, 35, 35) in [0, 1] and labels (10, 35, 35)."""
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copy(REAL / "tetrominoes_mini.tfrecords", folder)  # the converted file is written beside it
        data = TetrominoesDataModule(path, num_train=1, num_val=1, num_test=8, batch_size=10, num_workers=0)
        data.prepare_data()
        data.setup("fit")
        scenes = data.dataset[list(range(10))]
    return torch.as_tensor(scenes["image"]).movedim(-1, 1) / 255, torch.as_tensor(scenes["label"])


def split(weights: str, images: Tensor, labels: Tensor, **numbers: int) -> tuple[list[dict], list[Row]]:
    """Returns the scores of each image, and its row in a picture."""
    model = IODINE.from_pretrained(weights)
    result = model.decompose({"image": images, "index": torch.arange(len(images))}, **numbers)
    scores = step_scores(result, labels)
    rows = [{SCORES[name]: float(scores[name][i, -1]) for name in SHOWN} for i in range(len(images))]
    return rows, slot_rows(images, result, labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plots", type=Path, help="folder of real_clevr.png and real_tetrominoes.png")
    given = parser.parse_args()
    images, labels = clevr(64)
    of_clevr = [split("clevr6_64px", images[i : i + 1], labels[i : i + 1], num_slots=K) for i, K in enumerate(SLOTS)]
    of_tetrominoes = split("tetrominoes_full_size", *tetrominoes())
    found = {"clevr": [row for rows, _ in of_clevr for row in rows], "tetrominoes": of_tetrominoes[0]}
    for name, rows in found.items():
        for number, row in enumerate(rows):
            print(f"{name}, scene {number}:", ", ".join(f"{score} {value:.4f}" for score, value in row.items()))
    mean = [{"score": score, "mean": statistics.mean(row[score] for row in of_tetrominoes[0])} for score in rows[0]]
    print("tetrominoes, mean:", ", ".join(f"{each['score']} {each['mean']:.4f}" for each in mean))
    if given.json:
        given.json.write_text(json.dumps(found | {"mean of tetrominoes": mean}, indent=1) + "\n")
    if given.plots:
        drawn = {"clevr": [row for _, rows in of_clevr for row in rows], "tetrominoes": of_tetrominoes[1]}
        for name, rows in drawn.items():
            Image.fromarray(draw_rows(rows)).save(given.plots / f"real_{name}.png", optimize=True)


if __name__ == "__main__":
    main()
