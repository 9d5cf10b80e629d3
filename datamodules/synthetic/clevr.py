"""Generates CLEVR scenes with masks and factors: samples them, checks that every object is visible, renders them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from iodine_pl.datamodules.deepmind.releases import CLEVR
from iodine_pl.datamodules.deepmind.resizing import CROP
from iodine_pl.datamodules.synthetic.clevr_render import RANDOM_NUMBERS, SAMPLES, Stage
from iodine_pl.datamodules.synthetic.clevr_scenes import FRAME, Scene, draw_scene
from iodine_pl.datamodules.synthetic.generator import Generator, Scenes

__all__ = ["ClevrGenerator"]

_FEWEST, _MOST = 3, 10
_SEEN = 200  # minimum of visible pixels of an object in the camera's image


class ClevrGenerator(Generator):
    """Makes CLEVR scenes as the model gets them: the square crop of the camera's image that the experiments use,
    rendered directly at ``size``. A scene is a function of the seed and its position; CPU and GPU differ by rounding.

    Factors are those of the released files, each (n, 11, ...), zeros for the background and for the entities that do
    not exist. float32: ``x``, ``y``, ``z``, ``rotation`` in degrees, ``pixel_coords`` (column, row, depth; in the
    camera's image of 240x320 pixels), ``visibility`` (1, also for the background). Codes, uint8: ``color``,
    ``material``, ``shape``, ``size``.

    Args:
        seed: of all scenes.
        size: side of the images in pixels.
        device: cpu or cuda; None: a GPU if there is one.

    Raises:
        ValueError: if the size is below 8.
    """

    shard = 256
    names = CLEVR.names

    def __init__(self, seed: int = 0, size: int = 128, device: str | None = None) -> None:
        if size < 8:
            raise ValueError(f"size must be at least 8 pixels, got {size}")
        self.seed, self.size = seed, size
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.name = f"clevr_{size}px_seed{seed}"
        self.parallel = self.device == "cpu"
        self._batch = 1 if self.device == "cpu" else 32  # a single scene fits in a CPU's cache

    @torch.no_grad()
    def scenes(self, start: int, stop: int) -> Iterator[Scenes]:
        """Yields ``(image, label, factors)`` for the scenes ``start`` to ``stop``."""
        threads = torch.get_num_threads()
        try:
            for first in range(start, stop, 32):
                if self.device == "cpu":
                    torch.set_num_threads(1)  # the work is divided among processes, not threads
                numbers = range(first, min(first + 32, stop))
                groups = [numbers[i : i + self._batch] for i in range(0, len(numbers), self._batch)]
                made = [self._scenes(group) for group in groups]
                factors = {name: np.concatenate([each[2][name] for each in made]) for name in made[0][2]}
                torch.set_num_threads(threads)
                yield np.concatenate([each[0] for each in made]), np.concatenate([each[1] for each in made]), factors
        finally:
            torch.set_num_threads(threads)

    def _scenes(self, numbers: Sequence[int]) -> Scenes:
        generators = [np.random.default_rng([self.seed, number]) for number in numbers]
        scenes = self._draw(generators)
        stage = Stage(scenes, self.device)
        top, left, side, _ = CROP
        pixel = np.arange(self.size) * (side / self.size) + 0.5  # where the released code samples; see legacy_bilinear
        rows, columns = (axis.ravel() for axis in np.meshgrid(top + pixel, left + pixel, indexing="ij"))
        label = stage.entities(rows, columns).reshape(-1, self.size, self.size).to("cpu", torch.uint8).numpy()
        return self._images(stage, generators, rows, columns), label, _factors(scenes)

    def _draw(self, generators: Sequence[np.random.Generator]) -> list[Scene]:
        """Samples one scene from each generator, again as long as one of its objects is hidden."""
        grid = np.meshgrid(np.arange(FRAME[0]) + 0.5, np.arange(FRAME[1]) + 0.5, indexing="ij")
        rows, columns = (axis.ravel() for axis in grid)
        counts = [int(generator.integers(_FEWEST, _MOST + 1)) for generator in generators]
        scenes: dict[int, Scene] = {}
        while waiting := [i for i in range(len(generators)) if i not in scenes]:
            drawn = [draw_scene(generators[i], counts[i]) for i in waiting]
            seen = Stage(drawn, self.device).entities(rows, columns).cpu()
            for i, scene, entities in zip(waiting, drawn, seen, strict=True):
                pixels = torch.bincount(entities, minlength=counts[i] + 1)
                if int(pixels[1:].min()) >= _SEEN:
                    scenes[i] = scene
        return [scenes[i] for i in range(len(generators))]

    def _images(
        self,
        stage: Stage,
        generators: Sequence[np.random.Generator],
        rows: NDArray[np.float64],
        columns: NDArray[np.float64],
    ) -> NDArray[np.uint8]:
        shape = (SAMPLES, len(rows), RANDOM_NUMBERS)
        random = np.stack([generator.random(shape, dtype=np.float32) for generator in generators])
        quarter = np.array([(0.0, 0.0), (0.0, 0.5), (0.5, 0.0), (0.5, 0.5)], dtype=np.float32)[:, None]
        for k in range(
            RANDOM_NUMBERS // 2
        ):  # stratified: in each pair of numbers, every ray of a pixel has its own quarter
            order = np.roll(np.arange(SAMPLES), k) if k % 2 else np.roll(np.arange(SAMPLES)[::-1], k)
            random[..., 2 * k : 2 * k + 2] = quarter[order] + random[..., 2 * k : 2 * k + 2] / 2.0
        random = random.reshape(len(generators), -1, RANDOM_NUMBERS)
        width = CROP[2] / self.size
        at_rows = np.tile(rows, SAMPLES) + (random[..., 0] - 0.5) * width
        at_columns = np.tile(columns, SAMPLES) + (random[..., 1] - 0.5) * width
        numbers = torch.from_numpy(random[..., 2:]).to(stage.device)
        light = stage.colors(at_rows, at_columns, numbers)
        light = light.reshape(len(generators), SAMPLES, self.size, self.size, 3).mean(dim=1).clamp(0.0, 1.0)
        curve = torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp(min=1e-6) ** (1 / 2.4) - 0.055)
        return curve.mul(255.0).round().to("cpu", torch.uint8).numpy()


def _factors(scenes: Sequence[Scene]) -> dict[str, NDArray[Any]]:
    n, entities = len(scenes), _MOST + 1
    floats = {"x": (), "y": (), "z": (), "rotation": (), "pixel_coords": (3,), "visibility": ()}
    factors: dict[str, NDArray[Any]] = {
        name: np.zeros((n, entities, *shape), np.float32) for name, shape in floats.items()
    }
    factors |= {name: np.zeros((n, entities), np.uint8) for name in CLEVR.names}
    for i, scene in enumerate(scenes):
        here = slice(1, len(scene.radius) + 1)
        for axis, name in enumerate("xyz"):
            factors[name][i, here] = scene.place[:, axis]
        factors["rotation"][i, here] = scene.rotation
        factors["pixel_coords"][i, here] = scene.camera.project(scene.place)
        factors["visibility"][i, : len(scene.radius) + 1] = 1.0
        for name in CLEVR.names:
            factors[name][i, here] = getattr(scene, name)
    return factors
