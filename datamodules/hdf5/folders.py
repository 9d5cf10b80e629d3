"""Reads pictures from a folder and its sub-folders, as single images or as the frames of clips."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iodine_pl.datamodules.hdf5.errors import SceneFileError
from iodine_pl.datamodules.hdf5.layouts import Fields
from iodine_pl.datamodules.hdf5.resizing import CropResize
from iodine_pl.files.pictures import PictureError, read_picture

__all__ = ["IMAGE_ENDINGS", "folder_fields", "pictures_in"]

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


def pictures_in(folder: Path) -> list[Path]:
    """Returns the pictures in a folder and its sub-folders, sorted by name, with numbers in numeric order."""
    found = [
        Path(inside, name)
        for inside, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(IMAGE_ENDINGS) and not name.startswith(".")
    ]
    return sorted(found, key=lambda path: [_natural(part) for part in path.relative_to(folder).parts])


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Returns a key that sorts frame 2 before frame 10."""
    words = re.split(r"([0-9]+)", name)
    return [(0, int(word), word) if word.isdecimal() else (1, 0, word) for word in words]


def folder_fields(folder: Path, view: CropResize, frames: int | None) -> Fields:
    """Opens a folder of pictures, or of clips, each a folder of its frames.

    Args:
        folder: has the pictures or the clips.
        view: crop and resizing of each picture.
        frames: S: clips are cut into sequences of S consecutive frames, the rest is not used; None: single pictures.

    Raises:
        SceneFileError: if there are none, or the first cannot be read.
    """
    paths = pictures_in(folder)
    if not paths:
        raise SceneFileError(f"the folder {folder} has no images ({', '.join(IMAGE_ENDINGS)})")
    if frames is None:
        return Fields(len(paths), 1, {"image": FolderColumn([[path] for path in paths], view, sequences=False)})
    clips: dict[Path, list[Path]] = {}
    for path in paths:
        clips.setdefault(path.parent, []).append(path)
    sequences = [
        clip[start : start + frames] for clip in clips.values() for start in range(0, len(clip) - frames + 1, frames)
    ]
    if not sequences:
        longest = max(map(len, clips.values()))
        raise SceneFileError(f"the clips in {folder} have at most {longest} frames, but frames={frames}. Ask for fewer")
    return Fields(len(sequences), 1, {"image": FolderColumn(sequences, view, sequences=True)})


class FolderColumn:
    """Reads pictures, or sequences of them.

    Size and number of channels are those of the first; gray pictures among colored ones are converted to RGB.
    """

    def __init__(self, pictures: list[list[Path]], view: CropResize, sequences: bool) -> None:
        self._pictures, self._view = pictures, view
        self._first = pictures[0][0]
        self._shape: tuple[int, ...] = self._decoded(self._first).shape
        self.row_shape = (len(pictures[0]), *self._shape) if sequences else self._shape
        self.dtype = np.dtype(np.uint8)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        frames = out.reshape(-1, *self._shape)
        paths = [path for sequence in self._pictures[start:stop] for path in sequence]
        for frame, path in zip(frames, paths, strict=True):
            image = self._decoded(path)
            if image.shape[:2] != self._shape[:2]:
                raise SceneFileError(
                    f"{path} is {image.shape}, but {self._first} is {self._shape} (H, W, C): all images must have one "
                    "size. Give --data.crop center --data.resize PIXELS"
                )
            if image.shape[2] > self._shape[2]:
                raise SceneFileError(
                    f"{path} has colors, but {self._first}, the first, is gray: make that RGB, or all of them gray"
                )
            frame[:] = image

    def _decoded(self, path: Path) -> NDArray[np.uint8]:
        try:
            picture = read_picture(path)
        except PictureError as error:
            raise SceneFileError(str(error)) from error
        return self._view.image(np.atleast_3d(np.asarray(picture)), str(path))
