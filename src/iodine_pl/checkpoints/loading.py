"""Loads the model of any checkpoint, of whatever class it is."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from iodine_pl.checkpoints.finding import find_weights
from iodine_pl.scene_model import SceneModel

__all__ = ["DEFAULT_CLASS", "class_path_of", "imported", "load_model", "read_checkpoint"]

DEFAULT_CLASS = "iodine_pl.IODINE"


def class_path_of(checkpoint: Mapping[str, Any]) -> str:
    """Returns the class of the model in a checkpoint: of weights alone, else of the command line, else IODINE."""
    arguments = checkpoint.get("hyper_parameters", {})
    return str(checkpoint.get("class_path", arguments.get("_class_path", DEFAULT_CLASS)))


def imported(path: str) -> Any:
    """Returns what a dotted path names, such as a class or a function."""
    module, name = path.rsplit(".", 1)
    return getattr(import_module(module), name)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Returns the content of a checkpoint, on the CPU and, as far as it goes, not read before it is used.

    Raises:
        ValueError: if the file is no checkpoint of a model.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is no checkpoint: PyTorch cannot read it") from error
    missing = [name for name in ("state_dict", "hyper_parameters") if name not in content]
    if missing:
        raise ValueError(f"{path} is no checkpoint of a model: it has no {' and no '.join(missing)}")
    return dict(content)


def load_model(wanted: str | Path) -> SceneModel:
    """Makes the model that wrote a checkpoint, on the CPU, in evaluation mode.

    A checkpoint that does not name its class is taken for one of :class:`iodine_pl.IODINE`.

    Args:
        wanted: path, ``last``, ``best``, name or address, see :func:`iodine_pl.checkpoints.finding.find_weights`.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if an address has no digest, or the file is no checkpoint of a model.
        DownloadError: if the server does not send the file that has this digest.
        TypeError: if the class is not derived from :class:`SceneModel`.
    """
    path = find_weights(wanted)
    class_path = class_path_of(read_checkpoint(path))
    kind = imported(class_path)
    if not issubclass(kind, SceneModel):
        raise TypeError(f"{path} is of {class_path}, which is not derived from iodine_pl.SceneModel")
    model: SceneModel = kind.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    return model.eval()
