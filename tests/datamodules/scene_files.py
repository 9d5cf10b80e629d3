"""Small data files for the tests."""

import numpy as np

from iodine_pl.datamodules import MultiObjectWriter
from iodine_pl.datamodules.synthetic.tetrominoes import TetrominoesGenerator


def joined(generator, count):
    """Returns ``(image, label, factors)`` of the first scenes."""
    blocks = list(generator.scenes(0, count))
    image, label = (np.concatenate([block[i] for block in blocks]) for i in range(2))
    return image, label, {name: np.concatenate([block[2][name] for block in blocks]) for name in blocks[0][2]}


def tetrominoes(path, count=150, first=0):
    """Writes generated Tetrominoes, stored in compressed blocks."""
    image, label, factors = joined(TetrominoesGenerator(), first + count)
    with MultiObjectWriter(path, dataset="tetrominoes") as writer:
        writer.append(image[first:], label[first:], {name: values[first:] for name, values in factors.items()})
    return path


def noise(count, size=6, entities=4, seed=0):
    """Returns scenes that do not compress: ``(image, label, factors)``; object k has the code k % 3 + 1 as its kind."""
    rng = np.random.default_rng(seed)
    image = rng.integers(256, size=(count, size, size, 3), dtype=np.uint8)
    label = rng.integers(entities, size=(count, size, size), dtype=np.uint8)
    visibility = (np.arange(entities) <= 1 + np.arange(count)[:, None] % (entities - 1)).astype(np.float32)
    kind = (np.arange(entities) + np.arange(count)[:, None]) % 3 + 1
    tint = rng.integers(1, 3, size=(count, entities))
    kind, tint = ((values * (visibility > 0)).astype(np.uint8) for values in (kind, tint))
    kind[:, 0] = tint[:, 0] = 0
    return image, label, {"visibility": visibility, "kind": kind, "tint": tint}


NAMES = {"kind": ("", "ball", "box", "tube"), "tint": ("", "red", "green")}


def stored_singly(path, count=20, seed=0):
    """Writes scenes of noise, stored one by one."""
    image, label, factors = noise(count, seed=seed)
    with MultiObjectWriter(path, NAMES, dataset="noise") as writer:
        writer.append(image, label, factors)
    return path
