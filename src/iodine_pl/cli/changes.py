"""Reports changed settings when training continues from a checkpoint, and their consequences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.rank_zero import rank_zero_info
from pytorch_lightning.trainer.states import TrainerFn

from iodine_pl.checkpoints.loading import OF_READING

__all__ = ["SayChanges"]

_FOLLOWS = {
    "seed": "the order of the images and the noise change from here on",
    "num_slots": "the weights continue with another number of slots; scores before and after are of different models",
    "num_iterations": "the weights continue with another number of refinement steps",
    "optimizer": "the moments of the previous one are kept",
    "batch_size": "the learning rate follows it, and the rest of the epoch is read in batches of this size",
    "processes": "the learning rate follows it, and the rest of the epoch is divided among the processes",
}


class SayChanges(pl.Callback):
    """Compares the settings of a checkpoint with those of the command, and keeps the position in the epoch.

    The Trainer counts the batches of an epoch. With another batch size, the same images are another number of batches.

    Args:
        data: class and arguments of the data.
    """

    def __init__(self, data: Mapping[str, Any] | None) -> None:
        self.data = _arguments(data)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["processes"] = trainer.world_size

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        before: dict[str, Any] = {
            name: checkpoint["hyper_parameters"].get(name) for name in _FOLLOWS if name != "processes"
        }
        now: dict[str, Any] = {name: pl_module.hparams.get(name) for name in before}
        before["processes"] = checkpoint.get("processes", trainer.world_size)
        now["processes"] = trainer.world_size
        changed = [name for name in _FOLLOWS if before[name] is not None and before[name] != now[name]]
        if "optimizer" in changed and "muon" in (before["optimizer"], now["optimizer"]):
            raise MisconfigurationException(
                f"optimizer {now['optimizer']} cannot continue from the state of {before['optimizer']}: leave "
                "--model.optimizer out; or start a new training from the weights that `iodine export` writes"
            )
        for name in changed:
            rank_zero_info(f"{name} was {before[name]} and is {now[name]}: {_FOLLOWS[name]}.")
        data = _arguments(checkpoint.get("data"))
        names = [name for name in data | self.data if data.get(name) != self.data.get(name)] if data else []
        if names:
            shown = ", ".join(f"{name} was {data.get(name)} and is {self.data.get(name)}" for name in names)
            rank_zero_info(
                f"data: {shown}: training continues with other images; best.ckpt was scored on the previous ones."
            )
        if {"batch_size", "processes"} & set(changed) and None not in (before["batch_size"], now["batch_size"]):
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
            images = progress["ready"] * before["batch_size"] * before["processes"]
            later = images // (now["batch_size"] * now["processes"]) - progress["ready"]
            # All counts are shifted alike: the batch in which a checkpoint is saved is ready, but not completed.
            progress.update({name: max(0, count + later) for name, count in progress.items()})


def _arguments(data: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns what determines the images: the class of the data and its given arguments."""
    if not data:
        return {}
    others = ("seed", "batch_size", *OF_READING)
    given = {name: value for name, value in (data.get("init_args") or {}).items() if name not in others}
    return {"class": data["class_path"]} | {name: value for name, value in given.items() if value is not None}
