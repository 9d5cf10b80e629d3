"""Shows the slots of pictures of any size; labels are not needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from iodine_pl.checkpoints.classes import make_data
from iodine_pl.checkpoints.loading import load_model
from iodine_pl.evaluation.drawing import Pixels
from iodine_pl.evaluation.panels import Row, draw_rows, slot_rows
from iodine_pl.files.pictures import PictureError, cut_square, opaque, picture_of, read_picture
from iodine_pl.scene_model import SceneModel

__all__ = ["Picture", "show"]

Picture = str | Path | Image.Image | NDArray[Any] | Tensor
"""A file; a picture; an array (H, W), (H, W, C) or (B, H, W, C); or a tensor (H, W), (C, H, W) or (B, C, H, W). C is 1
or 3. Values are uint8, or float in [0, 1]."""

_PICTURE = (str, Path, Image.Image, np.ndarray, Tensor)
_COLOR = {"L": "gray", "RGB": "colored"}
_BATCH = 16  # images per forward pass


def show(
    model: SceneModel | str | Path,
    images: Picture | Sequence[Picture],
    size: int | None = None,
    crop: tuple[int, int, int] | None = None,
    num_slots: int | None = None,
    num_iterations: int | None = None,
) -> Image.Image:
    """Draws the slots of pictures, one row each, with the columns of :func:`iodine_pl.evaluation.panels.slot_panel`.

    The decomposition is that of evaluation, :meth:`iodine_pl.SceneModel.decompose`. It does not depend on the other
    pictures, and the model's mode does not change. Pictures are converted to gray or color as the model needs; a
    message says so.

    Args:
        model: a model, or its weights: path, ``last``, ``best``, name or address (see
            :func:`iodine_pl.checkpoints.finding.find_weights`).
        images: one or several, of any kinds and sizes.
        size: side in pixels to which the middle square of each image is resized. None: the size that the model was
            trained on (:attr:`iodine_pl.SceneModel.trained_size`, or that of the data named in its checkpoint); a
            message says so. A model that was not trained takes the images at their size.
        crop: first row, first column and side in pixels of the square to use instead of the middle one.
        num_slots, num_iterations: K and T; None: the model's own.

    Raises:
        FileNotFoundError: if there are no such weights.
        PictureError: if an image cannot be read or makes the model overflow, the images differ in size, or the training
            size of the weights is unknown.
        ValueError: if the model does not take these numbers.
    """
    weights, model = ("", model) if isinstance(model, SceneModel) else (str(model), load_model(model))
    trained = _trained_size(model, weights) if size is None else None
    tensors, names = [], []
    for name, picture in _named([images] if isinstance(images, _PICTURE) else images):
        if trained is not None and size is None and (crop is not None or trained != (picture.height, picture.width)):
            size = _side(trained)
            rank_zero_info(f"The images are resized to {size}x{size} pixels, the size of the training images.")
        if size is not None or crop is not None:
            picture = cut_square(picture, size, crop, name)
        tensors.append(_tensor(name, picture, model.image_channels))
        names.append(name)
    if not tensors:
        raise PictureError("there are no pictures: give at least one")
    if len({tensor.shape for tensor in tensors}) > 1:
        raise PictureError("the images differ in size: give size=..., the side of those that the model was trained on")
    return Image.fromarray(_panel(model, names, torch.stack(tensors), num_slots, num_iterations))


def _trained_size(model: SceneModel, weights: str) -> tuple[int, int] | None:
    """Returns (H, W) of the images that a model was trained on; None for a model that was not trained.

    Args:
        weights: the weights that the model was loaded from, for messages; empty for a model given as an object.

    Raises:
        PictureError: if the size of the data in its checkpoint cannot be found, or ``weights`` name no data.
    """
    if model.trained_size is not None:
        return model.trained_size
    unknown = (
        f"the size of the images that {weights or 'the model'} was trained on is not known: give "
        f"{'--size' if weights else 'size'}, the side in pixels"
    )
    if model.trained_on is not None:
        try:
            size: tuple[int, int] = make_data({"data": model.trained_on}, weights or "the checkpoint").image_size()
        except (AttributeError, ImportError, TypeError, ValueError) as error:
            raise PictureError(f"{unknown} ({error})") from None
        return size
    if weights:
        raise PictureError(unknown)
    return None


def _side(size: tuple[int, int]) -> int:
    if size[0] != size[1]:
        raise PictureError(
            f"the model was trained on images of {size[0]}x{size[1]} pixels and an image here has another size: give "
            "the size, the side of the square to resize it to"
        )
    return size[0]


def _named(images: Sequence[Picture]) -> Iterator[tuple[str, Image.Image]]:
    """Yields every picture with its name for messages: the path of a file, or a number."""
    number = 0
    for given in images:
        if isinstance(given, str | Path):
            pictures = [read_picture(given)]
        elif isinstance(given, Image.Image):
            pictures = [opaque(given)]
        elif isinstance(given, Tensor):
            values = given.detach().cpu().numpy()
            pictures = _of_array(np.moveaxis(values, -3, -1) if values.ndim > 2 else values, number)
        else:
            pictures = _of_array(np.asarray(given), number)
        for picture in pictures:
            yield str(given) if isinstance(given, str | Path) else f"image {number}", picture
            number += 1


def _of_array(values: NDArray[Any], number: int) -> list[Image.Image]:
    images = values if values.ndim == 4 else [values]
    return [picture_of(image, f"image {number + i}") for i, image in enumerate(images)]


def _tensor(name: str, picture: Image.Image, channels: int) -> Tensor:
    """Returns a picture as (C, H, W) uint8 with the channels of a model."""
    mode = {1: "L", 3: "RGB"}.get(channels)
    if mode is None:
        raise PictureError(f"the model takes images of {channels} channels, but a picture has 1 or 3")
    if picture.mode != mode:
        rank_zero_info(f"{name} is {_COLOR[picture.mode]}; the model takes {_COLOR[mode]} images, so it is converted.")
        picture = picture.convert(mode)
    return torch.from_numpy(np.atleast_3d(np.array(picture))).permute(2, 0, 1)


def _panel(
    model: SceneModel, names: Sequence[str], images: Tensor, num_slots: int | None, num_iterations: int | None
) -> Pixels:
    """Decomposes images (B, C, H, W) uint8, and draws their rows.

    Raises:
        PictureError: if an image is so unlike the training images that the posterior overflows.
    """
    rows: list[Row] = []
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(images), _BATCH):
                part = images[start : start + _BATCH]
                # The index keys the noise of each image.
                batch = {"image": part.to(model.device) / 255, "index": torch.arange(start, start + len(part))}
                result = model.decompose(batch, num_slots=num_slots, num_iterations=num_iterations)
                finite = result.reconstruction.isfinite().flatten(1).all(dim=1)
                if not finite.all():
                    name = names[start + int(finite.logical_not().nonzero()[0])]
                    raise PictureError(
                        f"{name} is so unlike the images of the training that this model's posterior overflows: take "
                        "other weights, such as multi_dsprites_32px"
                    )
                rows += slot_rows(batch["image"], result)
    finally:
        model.train(training)
    return draw_rows(rows)
