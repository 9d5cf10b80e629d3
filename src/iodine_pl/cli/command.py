"""Builds model, data and Trainer, and runs a command of Lightning's in the folder of its run."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.io import CheckpointIO

from iodine_pl.callbacks import (
    AdjustedRandIndex,
    BestCheckpoint,
    ImagesPerSecond,
    LastCheckpoint,
    PredictionWriter,
    SlotPanels,
    SlotUse,
)
from iodine_pl.checkpoints.finding import RUNS, find_weights, run_of
from iodine_pl.checkpoints.writing import AtomicCheckpointIO
from iodine_pl.cli.arguments import complete_arguments
from iodine_pl.cli.memory import keep_freed_memory
from iodine_pl.datamodules import SceneFileError, TFRecordError

__all__ = ["IodineCLI", "main", "prepare_process"]


class _SaveConfigOfFit(SaveConfigCallback):
    """Saves the configuration of training only: a test in the run's folder must not replace it.

    Without the checkpoint that a run goes on from, so that the file starts a new run elsewhere.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self.config = self.config.clone()
            self.config["ckpt_path"] = None
            super().setup(trainer, pl_module, stage)


class IodineCLI(LightningCLI):
    """Builds model, data and Trainer from the arguments of :func:`complete_arguments`, and runs a command."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--name", type=str | None, default=None, help="Folder of the run in runs/; the dataset's name."
        )
        parser.add_lightning_class_args(SlotPanels, "panels")
        parser.add_lightning_class_args(LastCheckpoint, "last_checkpoint")
        parser.add_lightning_class_args(BestCheckpoint, "best_checkpoint")
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.set_defaults(
            {
                "model": "iodine_pl.IODINE",
                "trainer.max_steps": 1_000_000,
                "trainer.num_sanity_val_steps": 1,
            }
        )
        parser.link_arguments("data.init_args.batch_size", "model.init_args.batch_size")
        parser.link_arguments("seed_everything", "model.init_args.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Finds a checkpoint that a configuration names.

        The other arguments stay as they are: Lightning would put a checkpoint's above those that are given.
        """
        wanted = self._settings.get("ckpt_path") if self.config.get("subcommand") else None
        if wanted:
            try:
                self._settings.ckpt_path = str(find_weights(wanted, self._settings.name))
            except (OSError, ValueError) as error:
                self.parser.error(str(error))

    @property
    def _settings(self) -> Any:
        return self.config[self.config["subcommand"]]

    def before_instantiate_classes(self) -> None:
        if self.subcommand == "predict":
            self._settings.return_predictions = False  # they are written to a file, batch by batch

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        settings = self._settings
        if settings.trainer.logger in (None, True):
            checkpoint = settings.get("ckpt_path")
            run = run_of(Path(checkpoint)) if checkpoint else None
            if run is None:
                name = settings.name or getattr(self.datamodule, "dataset_name", "run")
                logger = TensorBoardLogger(RUNS, name=name, default_hp_metric=False)
            else:  # a command with a checkpoint goes on in the folder it came from
                logger = TensorBoardLogger(run.parent.parent, run.parent.name, run.name, default_hp_metric=False)
            kwargs["logger"] = logger
        plugins = self._get(self.config_init, "trainer.plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, AtomicCheckpointIO()]
        return super().instantiate_trainer(**kwargs)

    def after_fit(self) -> None:
        """Says what came out and where it is; the last line is the picture."""
        if not self.trainer.is_global_zero:
            return
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, BestCheckpoint) and callback.best_model_score is not None:
                score, path = float(callback.best_model_score), _relative(callback.best_model_path)
                print(f"best {callback.monitor}: {score:.4f} ({path})")
            elif isinstance(callback, LastCheckpoint):
                print(f"to go on: --ckpt_path {_relative(callback.path)}")
        self._name_picture()

    def after_test(self) -> None:
        self._name_picture()

    def after_predict(self) -> None:
        self._name_picture()

    def _name_picture(self) -> None:
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, SlotPanels) and callback.latest is not None:
                print(f"slots: {_relative(callback.latest)}")


def _relative(path: str | Path) -> str:
    return os.path.relpath(path)


def prepare_process() -> None:
    """Sets what concerns the whole process, so that a command does it and the library does not."""
    keep_freed_memory()
    # Densities far from a mean are denormal numbers, which a CPU takes many times as long for. Zero will do.
    torch.set_flush_denormal(True)


def main(args: Sequence[str] | None = None) -> IodineCLI:
    """Runs a command line, that of the process if ``args`` is None, and returns what was built."""
    try:
        arguments = complete_arguments(sys.argv[1:] if args is None else args)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    if args is None:  # the process is this command's
        prepare_process()
        sys.argv[1:] = arguments  # Lightning starts the other processes of a multi-device run with these
    # Going on in a run's folder is meant, so its checkpoints are no surprise.
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    try:
        return IodineCLI(
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_callback=_SaveConfigOfFit,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"callbacks": [AdjustedRandIndex(), ImagesPerSecond(), SlotUse()]},
            args=arguments,
        )
    except (SceneFileError, TFRecordError) as error:
        sys.exit(f"error: {error}")
