"""The files of DeepMind's multi_object_datasets (Kabra et al. 2019): addresses, features, codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from iodine_pl.files.tensorflow.tfrecord import Feature

__all__ = ["CLEVR", "MULTI_DSPRITES", "TETROMINOES", "Release"]

_ROOT = "https://storage.googleapis.com/multi-object-datasets"


class Release(NamedTuple):
    """Describes one file: ``features`` of a record, reported number of ``examples``, names of integer codes."""

    dataset: str
    url: str
    examples: int
    features: Mapping[str, Feature]
    masks_last: bool = False
    """Whether masks are stored as (H, W, L, 1) instead of (L, H, W, 1)."""
    names: Mapping[str, tuple[str, ...]] = {}
    """Factor -> the names of its codes 0, 1, ...; 0 is for the background and for entities that do not exist."""


def _features(
    image: tuple[int, int, int],
    mask: tuple[int, ...],
    floats: Mapping[str, tuple[int, ...]],
    codes: tuple[str, ...] = (),
) -> dict[str, Feature]:
    entities = floats["visibility"][0]
    return (
        {"image": Feature(image, np.uint8), "mask": Feature(mask, np.uint8)}
        | {name: Feature(shape) for name, shape in floats.items()}
        | {name: Feature((entities,), np.uint8) for name in codes}
    )


def _scalars(entities: int, *names: str) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys((*names, "visibility"), (entities,))


TETROMINOES = Release(
    dataset="tetrominoes",
    url=f"{_ROOT}/tetrominoes/tetrominoes_train.tfrecords",
    examples=1_000_000,
    features=_features((35, 35, 3), (4, 35, 35, 1), _scalars(4, "x", "y", "shape") | {"color": (4, 3)}),
)


def _multi_dsprites(variant: str, entities: int, channels: int) -> Release:
    scalars = _scalars(entities, "x", "y", "shape", "orientation", "scale")
    return Release(
        dataset=f"multi_dsprites_{variant}",
        url=f"{_ROOT}/multi_dsprites/multi_dsprites_{variant}.tfrecords",
        examples=1_000_000,
        features=_features((64, 64, channels), (64, 64, entities, 1), scalars | {"color": (entities, channels)}),
        masks_last=True,
    )


MULTI_DSPRITES = {
    "binarized": _multi_dsprites("binarized", 4, 1),
    "colored_on_grayscale": _multi_dsprites("colored_on_grayscale", 6, 3),
    "colored_on_colored": _multi_dsprites("colored_on_colored", 5, 3),
}

CLEVR = Release(
    dataset="clevr",
    url=f"{_ROOT}/clevr_with_masks/clevr_with_masks_train.tfrecords",
    examples=100_000,
    features=_features(
        (240, 320, 3),
        (11, 240, 320, 1),
        _scalars(11, "x", "y", "z", "rotation") | {"pixel_coords": (11, 3)},
        codes=("color", "material", "shape", "size"),
    ),
    names={  # color: 1 to 5 are in the first scene, 6 and 7 are inferred from the second, 8 is what remains
        "color": ("", "red", "cyan", "green", "blue", "brown", "gray", "purple", "yellow"),
        "material": ("", "rubber", "metal"),
        "shape": ("", "sphere", "cylinder", "cube"),
        "size": ("", "large", "small"),
    },
)
