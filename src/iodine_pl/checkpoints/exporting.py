"""Exports the weights of a checkpoint for others, without the state of optimizer, loops and callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from iodine_pl.checkpoints.finding import find_weights
from iodine_pl.checkpoints.loading import OF_COMMAND_LINE, OF_READING, class_path_of
from iodine_pl.checkpoints.reading import read_checkpoint
from iodine_pl.checkpoints.writing import AtomicCheckpointIO
from iodine_pl.distributions import ScaleSchedule

__all__ = ["export_weights"]

_KEPT = (
    "state_dict",
    "hyper_parameters",
    "hparams_name",
    "pytorch-lightning_version",
    "global_step",
    "epoch",
    "data",
    "image_size",
)


def export_weights(wanted: str | Path, out: Path) -> int:
    """Writes the parts of a checkpoint that a trained model needs: weights, hyperparameters, class, data, image size,
    update count.

    The folder of generated data and the settings of workers belong to this machine, and are left out.

    If the pixel scale followed a schedule, its last value is written, so that a training that starts from these weights
    begins where this one ended.

    Args:
        wanted: path, ``last``, ``best``, name or address, see :func:`iodine_pl.checkpoints.finding.find_weights`.
        out: the file to write.

    Returns:
        The number of updates that the weights were trained for.

    Raises:
        FileExistsError: if ``out`` already exists.
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if the file is not a checkpoint of a model, or an address has no digest.
        DownloadError: if the server does not send the file that has this digest.
    """
    if out.exists():
        raise FileExistsError(f"{out} is there already: delete it, or name another file by --out")
    path = find_weights(wanted)
    content = read_checkpoint(path)
    kept = {name: content[name] for name in _KEPT if name in content}
    kept["class_path"] = class_path_of(content)
    for name in ("data_dir", *OF_READING):
        kept.get("data", {}).get("init_args", {}).pop(name, None)
    for name in OF_COMMAND_LINE:  # a class with **arguments would take them
        kept["hyper_parameters"].pop(name, None)
    scale = kept["hyper_parameters"].get("pixel_scale")
    if isinstance(scale, Mapping):
        kept["hyper_parameters"]["pixel_scale"] = ScaleSchedule(scale).last
    AtomicCheckpointIO().save_checkpoint(kept, out)
    return int(content.get("global_step", 0))
