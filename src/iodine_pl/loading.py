"""Loads the model of any checkpoint, of whatever class it is."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import torch

from iodine_pl.scene_model import SceneModel

__all__ = ["load_model"]


def load_model(path: str | Path) -> SceneModel:
    """Makes the model that wrote a checkpoint, on the CPU, in evaluation mode.

    A checkpoint of the command line names its class; any other is taken for :class:`iodine_pl.IODINE`.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: if the class is not derived from :class:`SceneModel`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    module, name = content.get("hyper_parameters", {}).get("_class_path", "iodine_pl.IODINE").rsplit(".", 1)
    kind = getattr(import_module(module), name)
    if not issubclass(kind, SceneModel):
        raise TypeError(f"{path} is of {module}.{name}, which is not derived from iodine_pl.SceneModel")
    model: SceneModel = kind.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    return model.eval()
