"""Stores in a checkpoint how it was made: command, versions, commit, hardware."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

import iodine_pl

__all__ = ["KeepOrigin"]


class KeepOrigin(pl.Callback):
    """Adds to each checkpoint, under ``origin``, the command, versions, commit and hardware as strings.

    Args:
        arguments: of the command.
    """

    def __init__(self, arguments: list[str]) -> None:
        self.command = " ".join(["iodine", *arguments])

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        versions = {
            "iodine-pl": iodine_pl.__version__,
            "torch": str(torch.__version__),
            "lightning": version("pytorch-lightning"),
            "Python": platform.python_version(),
        }
        checkpoint["origin"] = {
            "command": self.command,
            "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
            "commit": _commit(),
            "hardware": f"{trainer.world_size} x {_device(pl_module.device)}, precision {trainer.precision}",
        }


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type.upper()} {_processor()}"


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@cache
def _commit() -> str:
    """Returns the commit of the checkout that the package runs from, with ``-dirty`` if files differ; "" if none.

    An installed package may be inside another repository, so git must know this file.
    """
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], check=True, capture_output=True, timeout=10)
        described = [*git, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(described, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
