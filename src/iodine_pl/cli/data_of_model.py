"""Stores in a checkpoint the data that its model was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl

__all__ = ["KeepData"]


class KeepData(pl.Callback):
    """Adds the class and the arguments of the data to each checkpoint, under ``data``.

    Args:
        settings: ``class_path`` and ``init_args``, as numbers, strings and lists of them.
    """

    def __init__(self, settings: Mapping[str, Any] | None) -> None:
        self.settings = settings

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self.settings is not None:
            given = self.settings.get("init_args", {})
            kept = {name: value for name, value in given.items() if value is not None and name != "seed"}
            checkpoint["data"] = {"class_path": self.settings["class_path"], "init_args": kept}
