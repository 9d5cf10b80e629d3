"""Builds model, data and Trainer, and runs one of Lightning's commands in the folder of its run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from jsonargparse import Namespace
from jsonargparse.typing import PositiveFloat
from lightning_utilities.core.rank_zero import rank_zero_info
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.plugins.io import CheckpointIO

from iodine_pl.callbacks import (
    BestCheckpoint,
    LastCheckpoint,
    PredictionWriter,
    SlotPanels,
)
from iodine_pl.callbacks.run_folder import RunFolder, RunLogger, is_first_process
from iodine_pl.checkpoints.finding import RUNS, run_of
from iodine_pl.checkpoints.writing import AtomicCheckpointIO
from iodine_pl.cli.arguments import DEFAULTS, settings_before
from iodine_pl.cli.changes import SayChanges
from iodine_pl.cli.data_of_model import KeepData
from iodine_pl.cli.errors import CommandError, sentence_of
from iodine_pl.cli.help import add_group_help
from iodine_pl.cli.origin import KeepOrigin
from iodine_pl.cli.processes import end_others, give_up_after
from iodine_pl.cli.progress import ProgressLines, StepsBar, table_of
from iodine_pl.cli.saving import is_of_run
from iodine_pl.cli.stopping import StopAtSignal

__all__ = ["IodineCLI"]


class IodineCLI(LightningCLI):
    """Builds model, data and Trainer from the arguments of a command line, and runs a command."""

    def __init__(self, *, args: list[str], **options: Any) -> None:
        self._command, self._given = args[0], args
        super().__init__(args=args, **options)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning asks an instance too
        """Returns only the given command, since collecting the options of each takes long."""
        return {name: skip for name, skip in super().subcommands().items() if name == self._command}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--name",
            type=str | None,
            default=None,
            help="Folder of the run in --trainer.default_root_dir; the dataset's name.",
        )
        parser.add_argument(
            "--process_timeout",
            type=PositiveFloat,
            default=300.0,
            help="Seconds after which a process that does not answer the others ends the run.",
        )
        parser.add_lightning_class_args(SlotPanels, "panels")
        parser.add_lightning_class_args(BestCheckpoint, "best_checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last_checkpoint")  # after it: see on_validation_end
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.set_defaults(
            {
                "trainer.default_root_dir": str(RUNS),
                "trainer.enable_model_summary": False,  # it says less than the line before a fit
                "trainer.max_steps": 1_000_000,
                "trainer.num_sanity_val_steps": 1,
            }
        )
        parser.link_arguments("data.init_args.batch_size", "model.init_args.batch_size")
        parser.link_arguments("seed_everything", "model.init_args.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)
        for group in ("trainer", "panels", "last_checkpoint", "best_checkpoint", "predictions"):
            add_group_help(parser, group)
        for action in parser._actions:  # the class whose options are shown by default
            if action.dest in ("model.help", "data.help"):
                action.const = DEFAULTS[action.dest.removesuffix(".help")]

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Gives the arguments precedence over the checkpoint's settings, and these over the defaults."""
        command, *rest = args
        try:
            settings, line = settings_before(rest)
        except (OSError, TypeError, ValueError) as error:
            raise CommandError(str(error)) from error
        # The settings are checked together with the arguments.
        before = self._subcommand_parsers[command].parse_object(settings, _skip_required=True, _skip_validation=True)
        self.config = parser.parse_args(args, namespace=Namespace({command: before}))  # type: ignore[no-untyped-call]
        if line is not None:
            rank_zero_info(line)

    def _parse_ckpt_path(self) -> None:
        """Leaves the arguments unchanged, where Lightning would overwrite them by those of the checkpoint.

        Raises:
            CommandError: if a command that evaluates has no checkpoint.
        """
        if self.config["subcommand"] != "fit" and not self._settings.get("ckpt_path"):
            raise CommandError(
                f"{self.config['subcommand']} needs a trained model: --ckpt_path best, --ckpt_path last or "
                "--ckpt_path FILE"
            )

    @property
    def _settings(self) -> Any:
        return self.config[self.config["subcommand"]]

    def _set_seed(self) -> None:
        seed = self._settings.seed_everything
        if not isinstance(seed, bool) and not 0 <= seed < 2**32:
            raise CommandError(f"seed_everything must be true, false or from 0 to {2**32 - 1}, got {seed}")
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        if self._settings.trainer.barebones:
            raise CommandError(
                "--trainer.barebones leaves out loggers, checkpoints and scores, which are what this command is for: "
                "measure from Python, with pytorch_lightning.Trainer(barebones=True)"
            )
        if "verbose" in self._settings:
            self._settings.verbose = False  # Lightning's table would list the values of every step
        if self.subcommand == "predict":
            self._settings.return_predictions = False  # they are written to a file

    def instantiate_classes(self) -> None:
        """Reports a value that a constructor refuses in one sentence.

        Raises:
            CommandError: if a constructor refuses a value.
        """
        try:
            super().instantiate_classes()
        except ValueError as error:
            sentence = sentence_of(error, about_values=True)
            if sentence is None:
                raise
            raise CommandError(sentence) from error

    def after_instantiate_classes(self) -> None:
        self._dump_config()
        data = self.config_dump["data"]
        self.trainer.callbacks += [KeepData(data), KeepOrigin(self._given), SayChanges(data)]  # type: ignore[attr-defined]

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        settings = self._settings
        root, checkpoint = settings.trainer.default_root_dir or RUNS, settings.get("ckpt_path")
        run = run_of(Path(checkpoint)) if checkpoint else None
        if run is not None and not is_of_run(run):
            run = None
        if run is not None and self.subcommand != "fit" and not os.access(run, os.W_OK):
            rank_zero_info(f"You may not write to {run}: the output goes to a new folder.")
            run = None
        # A command with a checkpoint continues in its folder.
        folder = RunFolder(root, settings.name or getattr(self.datamodule, "dataset_name", "run"), run)
        if settings.trainer.logger in (None, True):
            kwargs["logger"] = RunLogger(folder)
        self.run_folder = folder
        added = [*self.trainer_defaults.get("callbacks", ()), folder, StopAtSignal()]
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": added}
        kwargs |= self._shown_progress()
        plugins = self._get(self.config_init, "trainer.plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, AtomicCheckpointIO()]
        if job := os.environ.get("SLURM_JOB_ID"):
            # Lightning saves here when SLURM requeues the job, and resumes from it; it must belong to the same job.
            kwargs["default_root_dir"] = str(Path(root) / f"slurm_{job}")
        trainer = super().instantiate_trainer(**kwargs)
        if isinstance(settings.trainer.strategy, str):  # your own strategy has its own timeout
            give_up_after(trainer, settings.process_timeout)
        return trainer

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[pl.Callback]) -> pl.Trainer:
        if config["enable_checkpointing"] is False:
            callbacks = [each for each in callbacks if not isinstance(each, BestCheckpoint | LastCheckpoint)]
            config["enable_checkpointing"] = None  # with False, StopAtSignal would be an error, as it is a Checkpoint
        return super()._instantiate_trainer(config, callbacks)

    def _shown_progress(self) -> dict[str, Any]:
        """Returns the Trainer's argument, and adds a progress bar on a terminal or lines in a log."""
        given = self._settings.trainer.enable_progress_bar
        shown = sys.stderr.isatty() if given is None else given
        own = self._get(self.config_init, "trainer.callbacks") or []
        if any(isinstance(each, ProgressBar) for each in (own if isinstance(own, list) else [own])):
            return {}
        if shown or given is None:
            self.trainer_defaults["callbacks"].append(StepsBar() if shown else ProgressLines())
        return {"enable_progress_bar": shown}

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except BaseException:
            end_others(self.trainer, self._settings.process_timeout)
            raise
        finally:
            self.run_folder.release()

    def before_fit(self) -> None:
        if not self.run_folder.new and is_first_process():
            self.run_folder.lock()  # before loggers write there
        weights = sum(p.numel() for p in self.model.parameters())
        rank_zero_info(f"{type(self.model).__name__}: {weights:,} parameters")

    def after_fit(self) -> None:
        """Prints the best score and the paths of checkpoint and picture."""
        if not self.trainer.is_global_zero:
            return
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, BestCheckpoint) and callback.best_model_score is not None:
                score, path = float(callback.best_model_score), _relative(callback.best_model_path)
                print(f"best {callback.monitor}: {score:.4f} ({path})")
            elif isinstance(callback, LastCheckpoint) and callback.saved:
                print(f"to continue: --ckpt_path {_relative(callback.path)}")
        self._name_picture()

    def after_validate(self) -> None:
        self._show_scores("val")

    def after_test(self) -> None:
        self._show_scores("test")
        self._name_picture()

    def _show_scores(self, stage: str) -> None:
        if self.trainer.is_global_zero:
            print(table_of(stage, self.trainer.callback_metrics))

    def after_predict(self) -> None:
        self._name_picture()

    def _name_picture(self) -> None:
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, SlotPanels) and callback.latest is not None:
                print(f"slots: {_relative(callback.latest)}")


def _relative(path: str | Path) -> str:
    return os.path.relpath(path)
