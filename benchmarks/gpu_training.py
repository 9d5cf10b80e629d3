"""Trains the full-size recipes, slice by slice, from one file each.

The checkpoint has everything that the next slice needs: the curve of validation scores and the time spent are saved
with the weights, so that they are consistent. If the machine is lost, the work since the last save is lost.
"""

import json
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from gpu_recipes import TINY_NETWORK, TINY_TRAINER, Settings
from pytorch_lightning.callbacks import Checkpoint

from iodine_pl.callbacks import LastCheckpoint
from iodine_pl.checkpoints.reading import read_file
from iodine_pl.cli import prepare_process, run_command

SCORES = ("ari_fg", "ari", "mse", "elbo")
SAVING = 1.0  # minutes between saves


class KeptCheckpoint(LastCheckpoint):
    """Saves to a file outside of the run's folder, and after each validation instead of before, with its scores."""

    def __init__(self, file: str, every_n_minutes: float | None = SAVING, every_n_train_steps: int | None = None):
        super().__init__(every_n_minutes, every_n_train_steps)
        self.file = Path(file)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.path = self.file

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pass

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.save(trainer)


class Curve(Checkpoint):
    """Records every validation and the seconds of training with validation; a checkpoint keeps both.

    It is a Checkpoint because Lightning calls these last, when the scores are known.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._before = 0.0
        self._since = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._since

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or (self.rows and self.rows[-1]["updates"] == trainer.global_step):
            return
        known = trainer.callback_metrics
        scores = {name: round(float(known[f"val/{name}"]), 5) for name in SCORES if f"val/{name}" in known}
        self.rows.append({"updates": trainer.global_step, "seconds": round(self.seconds, 1), **scores})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": list(self.rows), "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self._before = list(state_dict["rows"]), state_dict["seconds"]


def kept(settings: Settings, network: str) -> Path:
    """Returns the file from which the training of a network continues."""
    return settings.out / f"{network}.ckpt"


def train(network: str, settings: Settings, results: dict) -> dict:
    """Continues the training of a recipe to its end, and returns its curve, seconds and test scores."""
    prepare_process()
    file = kept(settings, network)
    arguments = _arguments(network, settings, results)
    saving = {"class_path": "gpu_training.KeptCheckpoint", "init_args": {"file": str(file)}}
    curve = {"class_path": "gpu_training.Curve"}
    added = [f"--trainer.callbacks+={json.dumps(each)}" for each in (curve, saving)]
    goes_on = ["--ckpt_path", str(file)] if file.exists() else []
    trained = run_command(["fit", *arguments, *added, *goes_on])
    (noted,) = (each for each in trained.trainer.callbacks if isinstance(each, Curve))
    tested = run_command(["test", *arguments, "--ckpt_path", str(file)])
    known = {name.removeprefix("test/"): float(value) for name, value in tested.trainer.callback_metrics.items()}
    test = {name: known[name] for name in SCORES if name in known}
    return {"updates": trained.trainer.global_step, "seconds": noted.seconds, "rows": noted.rows, "test": test}


def _arguments(network: str, settings: Settings, results: dict) -> list[str]:
    """Returns the flags that all commands for a network share."""
    flags: dict[str, Any] = {
        "trainer.default_root_dir": str(settings.work / "runs"),
        "trainer.accelerator": "gpu" if settings.device == "cuda" else "cpu",
        "trainer.devices": 1,
        "trainer.precision": results["data/choices"][network],
        "trainer.enable_progress_bar": False,
        "best_checkpoint.save_top_k": 0,
    }
    flags |= {f"data.{name}": value for name, value in settings.data(network, results).items()}
    if settings.tiny:
        flags |= {f"model.{name}": value for name, value in TINY_NETWORK.items()}
        flags |= {f"trainer.{name}": value for name, value in TINY_TRAINER.items()}
        flags |= {"trainer.logger": False, "panels.every_n_validations": 1000}
    given = [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in flags.items()]
    return ["--config", str(settings.config(network)), *given, *settings.flags]


def progress(network: str, settings: Settings) -> dict | None:
    """Returns the progress of a training at its last save; None if it has not begun."""
    file = kept(settings, network)
    if not file.exists():
        return None
    content = read_file(file)
    curve = content["callbacks"]["Curve"]
    return {"updates": content["global_step"], "seconds": curve["seconds"], "rows": curve["rows"]}
