"""Samples CLEVR scenes by the rules of its generator (Johnson et al. 2017): objects, camera and lights."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["CUBE", "CYLINDER", "FRAME", "METAL", "PALETTE", "SPHERE", "Camera", "Scene", "draw_scene"]

SPHERE, CYLINDER, CUBE = 1, 2, 3
METAL = 2
PALETTE = np.array(  # by code: none, red, cyan, green, blue, brown, gray, purple, yellow
    [
        (0, 0, 0),
        (173, 35, 35),
        (41, 208, 208),
        (29, 105, 20),
        (42, 75, 215),
        (129, 74, 25),
        (87, 87, 87),
        (129, 38, 192),
        (255, 238, 51),
    ]
)
FRAME = (240, 320)
"""Rows and columns of the camera's image."""

_CAMERA = np.array([7.4811, -6.5076, 5.3437])
_CAMERA_JITTER = 0.5
_HALF_WIDTH = math.tan(math.radians(49.134) / 2)  # of the image at distance 1: lens 35, sensor 32
_LIGHTS = np.array([[6.4467, -2.9052, 4.2584], [-1.1685, 2.646, 5.8157], [-4.6711, -4.0136, 3.0112]])  # key, back, fill
_LIGHT_JITTER = 1.0
_RADIUS = {1: 0.7, 2: 0.35}  # large, small
_AREA = 3.0  # objects are placed in a square of twice this side
_GAP = 0.25  # minimum between any two objects
_MARGIN = 0.4  # minimum between any two along the camera's left-right and front-behind, unless they are level
_TRIES = 50  # places tried for one object before the scene is started again


class Camera(NamedTuple):
    """A pinhole camera: its position, and unit vectors across, down and ahead, each (3,)."""

    place: NDArray[np.float64]
    across: NDArray[np.float64]
    down: NDArray[np.float64]
    ahead: NDArray[np.float64]

    @staticmethod
    def at(place: NDArray[np.float64]) -> Camera:
        """Returns a camera that looks at the origin."""
        ahead = -place / np.linalg.norm(place)
        across = np.cross(ahead, [0.0, 0.0, 1.0])
        across /= np.linalg.norm(across)
        return Camera(place, across, np.cross(ahead, across), ahead)

    def directions(self, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the unit directions (..., 3) of points of the image, given in pixels from its upper left corner."""
        scale = 2.0 * _HALF_WIDTH / FRAME[1]
        right = ((columns - FRAME[1] / 2) * scale)[..., None] * self.across
        toward = right + ((rows - FRAME[0] / 2) * scale)[..., None] * self.down + self.ahead
        return np.asarray(toward / np.linalg.norm(toward, axis=-1, keepdims=True))

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns column, row and depth (..., 3) of points in the world."""
        offset = points - self.place
        depth = offset @ self.ahead
        scale = FRAME[1] / (2.0 * _HALF_WIDTH)
        column = FRAME[1] / 2 + scale * (offset @ self.across) / depth
        row = FRAME[0] / 2 + scale * (offset @ self.down) / depth
        return np.stack([column, row, depth], axis=-1)


class Scene(NamedTuple):
    """n objects: centers ``place`` (n, 3), ``radius`` (n,) or half the side of a cube, ``rotation`` (n,) in degrees,
    the integer codes of the released files (n,); the camera; ``lights`` (3, 3), the positions of the lamps."""

    place: NDArray[np.float64]
    radius: NDArray[np.float64]
    rotation: NDArray[np.float64]
    color: NDArray[np.int64]
    material: NDArray[np.int64]
    shape: NDArray[np.int64]
    size: NDArray[np.int64]
    camera: Camera
    lights: NDArray[np.float64]


def draw_scene(rng: np.random.Generator, objects: int) -> Scene:
    """Samples a scene with this number of objects; the caller checks that each is visible."""
    camera = Camera.at(_CAMERA + rng.uniform(-_CAMERA_JITTER, _CAMERA_JITTER, 3))
    lights = _LIGHTS + rng.uniform(-_LIGHT_JITTER, _LIGHT_JITTER, (3, 3))
    ahead = camera.ahead[:2] / np.linalg.norm(camera.ahead[:2])
    views = np.stack([ahead, camera.across[:2]])  # front-behind and left-right, on the ground
    while True:
        size = rng.integers(1, 3, objects)
        shape = rng.integers(1, 4, objects)
        reach = np.array([_RADIUS[int(code)] for code in size])
        radius = np.where(shape == CUBE, reach / math.sqrt(2.0), reach)
        places = _place(rng, reach, radius, views)
        if places is not None:
            break
    return Scene(
        place=np.concatenate([places, radius[:, None]], axis=1),
        radius=radius,
        rotation=rng.uniform(0.0, 360.0, objects),
        color=rng.integers(1, len(PALETTE), objects),
        material=rng.integers(1, 3, objects),
        shape=shape,
        size=size,
        camera=camera,
        lights=lights,
    )


def _place(
    rng: np.random.Generator, reach: NDArray[np.float64], radius: NDArray[np.float64], views: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Places the objects one after the other where there is space; None if there is none for one of them."""
    places = np.empty((0, 2))
    for k in range(len(reach)):
        tried = rng.uniform(-_AREA, _AREA, (_TRIES, 2))
        offset = tried[:, None] - places  # (tries, objects, 2)
        gap = np.linalg.norm(offset, axis=-1) - reach[k] - radius[:k]
        margin = np.abs(offset @ views.T)  # (tries, objects, 2)
        free = np.flatnonzero((gap >= _GAP).all(axis=1) & ((margin >= _MARGIN) | (margin == 0.0)).all(axis=(1, 2)))
        if not len(free):
            return None
        places = np.concatenate([places, tried[free[0], None]])
    return places
