"""Joins the masks of a scene to one map: the entity of each pixel, or where masks overlap a bit for each entity."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["label_map", "lone_membership", "membership_map"]


def label_map(mask: NDArray[Any]) -> NDArray[np.uint8]:
    """Joins masks (L, H, W) to one map (H, W) of entity numbers, 0 being the first mask, the background.

    Raises:
        ValueError: if some pixel belongs to no entity or to several, as one map would then lose something.
    """
    inside = mask > 0
    owners = inside.sum(axis=0, dtype=np.uint8)
    if not (owners == 1).all():
        raise ValueError(f"{int((owners != 1).sum())} pixels do not belong to exactly one mask")
    label: NDArray[np.uint8] = inside.argmax(axis=0).astype(np.uint8)
    return label


def lone_membership(label: NDArray[np.uint8], dtype: np.dtype[Any]) -> NDArray[np.unsignedinteger[Any]]:
    """Returns the membership (...) that a label map stands for: of every pixel the bit of its one entity."""
    bits: NDArray[np.unsignedinteger[Any]] = np.left_shift(dtype.type(1), label, dtype=dtype)
    return bits


def membership_map(mask: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.unsignedinteger[Any]]]:
    """Joins any masks (L, H, W), L <= 32, without loss: a label map, and a bit for each entity that a pixel is of.

    The label of a pixel is the last entity it belongs to, as later entities lie in front; 0 if it belongs to none.
    """
    entities = len(mask)
    dtype = next(kind for kind in (np.uint8, np.uint16, np.uint32) if np.iinfo(kind).bits >= entities)
    bits = np.zeros(mask.shape[1:], dtype)
    for entity, inside in enumerate(mask > 0):
        bits |= inside.astype(dtype) << dtype(entity)
    last = entities - 1 - (mask > 0)[::-1].argmax(axis=0)
    return np.where(bits > 0, last, 0).astype(np.uint8), bits
