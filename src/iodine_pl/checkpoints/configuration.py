"""Reads the configuration of a run, which names the model and the data of its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

__all__ = ["MARK", "read_configuration"]

MARK = "# Configuration of the run in this folder. A command that goes on with the run writes it anew.\n"
"""The first line of a configuration that a run wrote."""

_OF_RUN = ("model", "data", "ckpt_path")  # the last of them is at the end of the file


def read_configuration(path: Path) -> dict[str, Any]:
    """Returns the settings in a YAML file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not YAML, not a mapping, or a truncated file of a run.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML ({error})") from error
    whole = isinstance(settings, dict) and not (text.startswith(MARK) and any(name not in settings for name in _OF_RUN))
    if not whole:
        raise ValueError(
            f"{path} is empty, truncated or not a configuration: restore a copy of it, or delete it and give "
            "--ckpt_path the path of the checkpoint, which names its own model and data"
        )
    return dict(settings)
