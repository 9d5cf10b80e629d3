"""Small data files for the tests."""

import h5py
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
    """Returns scenes that do not compress: ``(image, label, factors)``; object k has the kind k % 3 + 1."""
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


def planes(label, entities=4):
    """Returns masks (N, L, H, W, 1) of 0 and 255."""
    return (label[:, None, ..., None] == np.arange(entities)[:, None, None, None]) * np.uint8(255)


def efficientmorl(path, counts, **storage):
    """Writes groups with ``imgs``, ``masks`` and ``factors``, the scenes of noise with the count as their seed."""
    with h5py.File(path, "w") as file:
        for split, count in counts.items():
            image, label, factors = noise(count, seed=count)
            file.create_dataset(f"{split}/imgs", data=image, **storage)
            file.create_dataset(f"{split}/masks", data=planes(label), **storage)
            for name, values in factors.items():
                file[f"{split}/factors/{name}"] = values
    return path


def hhousen(path, image, label, factors, entities=4):
    """Writes the fields of the TFRecords side by side, compressed by gzip in chunks that h5py chooses."""
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=image, compression="gzip")
        file.create_dataset("mask", data=planes(label, entities), compression="gzip")
        for name, values in factors.items():
            file.create_dataset(name, data=values, compression="gzip")
    return path


def object_centric_library(path, count=6):
    """Writes scenes of noise with a ``mask`` (N, H, W, 1) of entity numbers, and a dataset for each factor."""
    image, label, factors = noise(count)
    with h5py.File(path, "w") as file:
        file["image"] = image
        file["mask"] = label[..., None].astype(np.int64)
        file["num_actual_objects"] = factors["visibility"].sum(axis=1, keepdims=True).astype(np.int64)
        for name, values in factors.items():
            file[name] = values
    return path


def npz(path, count=40, save=np.savez, dtype=np.float32):
    """Writes scenes of noise as ``images`` (N, C, H, W) in [0, 1] and ``labels`` (N, H, W)."""
    image, label, _ = noise(count)
    save(path, images=np.moveaxis(image / 255, 3, 1).astype(dtype), labels=label.astype(np.int64))
    return path
