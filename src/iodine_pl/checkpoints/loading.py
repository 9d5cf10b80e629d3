"""Loads the model of a checkpoint, whatever its class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pytorch_lightning.core.saving import _load_state

from iodine_pl.checkpoints.classes import class_of
from iodine_pl.checkpoints.finding import find_weights
from iodine_pl.checkpoints.reading import read_checkpoint
from iodine_pl.scene_model import SceneModel

__all__ = ["DEFAULT_CLASS", "OF_COMMAND_LINE", "OF_READING", "class_path_of", "load_model", "model_in"]

Model = TypeVar("Model", bound=SceneModel)

DEFAULT_CLASS = "iodine_pl.IODINE"
OF_COMMAND_LINE = ("_class_path", "_instantiator")
"""The arguments that Lightning's command line adds to a checkpoint."""
OF_READING = ("num_workers", "multiprocessing_context", "worker_timeout")
"""The data's arguments that say how a machine reads images, not which."""


def class_path_of(checkpoint: Mapping[str, Any]) -> str:
    """Returns the class path of a checkpoint's model, as exported or as the command line wrote it; else IODINE's."""
    arguments = checkpoint.get("hyper_parameters", {})
    return str(checkpoint.get("class_path", arguments.get("_class_path", DEFAULT_CLASS)))


def load_model(wanted: str | Path) -> SceneModel:
    """Makes the model that wrote a checkpoint, on the CPU, in evaluation mode.

    If a checkpoint does not name its class, the class is :class:`iodine_pl.IODINE`.

    Args:
        wanted: path, ``last``, ``best``, name or address, see :func:`iodine_pl.checkpoints.finding.find_weights`.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if an address has no digest, the file is not a checkpoint of a model, or its class is neither part
            of this package nor imported.
        DownloadError: if the server does not send the file that has this digest.
        TypeError: if the class is not derived from :class:`SceneModel`.
    """
    return model_in(find_weights(wanted), SceneModel)  # type: ignore[type-abstract]


def model_in(path: Path, base: type[Model], **arguments: Any) -> Model:
    """Makes the model in a checkpoint, on the CPU, in evaluation mode.

    Args:
        path: the file.
        base: the expected class. It is used itself if the checkpoint names one of its base classes.
        arguments: replace those in the checkpoint.

    Raises:
        FileNotFoundError, ValueError, TypeError: as :func:`load_model`, with ``base`` instead of ``SceneModel``.
        MisfitError: if the weights do not fit the arguments.
    """
    content = read_checkpoint(path)
    kind: Any = class_of(class_path_of(content), SceneModel, path)
    if issubclass(base, kind):
        kind = base
    elif not issubclass(kind, base):
        raise TypeError(f"{path} is of {kind.__name__}, which is not derived from {base.__name__}")
    # With the command line's additions Lightning would look for the class itself.
    known = {name: value for name, value in content["hyper_parameters"].items() if name not in OF_COMMAND_LINE}
    model: Model = _load_state(kind, content | {"hyper_parameters": known}, **arguments)  # type: ignore[assignment]
    return model.eval()
