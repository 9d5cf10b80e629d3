"""Completes the arguments of a command line: what a user may leave out, and what a checkpoint knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from iodine_pl.checkpoints.finding import find_weights, run_of
from iodine_pl.checkpoints.loading import class_path_of

__all__ = ["complete_arguments"]

_SUBCOMMANDS = ("fit", "validate", "test", "predict")
_DATA = "--data=iodine_pl.datamodules.TetrominoesDataModule"


def complete_arguments(arguments: Sequence[str]) -> list[str]:
    """Spells out what a user may leave to us.

    ``fit`` is the command if none is named. Tetrominoes are the data if no others are. Whatever names a checkpoint
    (see :func:`~iodine_pl.checkpoints.finding.find_weights`) becomes its path. A checkpoint in the folder of a run
    brings that run's configuration, and any other brings its model's arguments. Both come before all that is given
    here, so that resuming or testing needs no other word.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if a command that evaluates has none, or an address has no digest.
        DownloadError: if the server does not send the file that has this digest.
    """
    given = list(arguments)
    if not given or given[0] not in (*_SUBCOMMANDS, "-h", "--help", "--version"):
        given.insert(0, "fit")
    command, rest = given[0], given[1:]
    wanted = _value_of("--ckpt_path", rest)
    if command in _SUBCOMMANDS and wanted is not None:
        checkpoint = find_weights(wanted, _value_of("--name", rest))
        run = run_of(checkpoint)
        before = _model_of(checkpoint) if run is None else ["--config", str(run / "config.yaml")]
        rest = [*before, *_without("--ckpt_path", rest), "--ckpt_path", str(checkpoint)]
    elif command in _SUBCOMMANDS[1:] and not any(word in ("-h", "--help", "--print_config") for word in rest):
        raise ValueError(f"{command} needs a trained model: --ckpt_path best, --ckpt_path last or --ckpt_path FILE")
    # As a default of the parser, its arguments would stay when a configuration names another class.
    data = [] if command not in _SUBCOMMANDS or _names_data(rest) else [_DATA]
    return [command, *data, *rest]


def _model_of(checkpoint: Path) -> list[str]:
    """Spells out the arguments of the model that a checkpoint holds, but for those that are linked to others."""
    content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    left = ("_class_path", "_instantiator", "batch_size", "seed")
    kept = {name: value for name, value in content.get("hyper_parameters", {}).items() if name not in left}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in kept.items()}
    return [f"--model={class_path_of(content)}", *(f"--model.{name}={text}" for name, text in texts.items())]


def _names_data(arguments: Sequence[str]) -> bool:
    """Tells whether the arguments, or a configuration among them, say what class the data are of."""
    if any(_value_of(option, arguments) is not None for option in ("--data", "--data.class_path")):
        return True
    for i, word in enumerate(arguments):
        if word in ("--config", "-c") and i + 1 < len(arguments):
            file = arguments[i + 1]
        elif word.startswith("--config="):
            file = word.split("=", 1)[1]
        else:
            continue
        content = yaml.safe_load(Path(file).read_text()) if Path(file).is_file() else None
        if isinstance(content, dict) and content.get("data"):
            return True
    return False


def _value_of(option: str, arguments: Sequence[str]) -> str | None:
    """Returns the last value given to an option, in either spelling; None if it is not given."""
    value = None
    for i, word in enumerate(arguments):
        if word == option and i + 1 < len(arguments):
            value = arguments[i + 1]
        elif word.startswith(f"{option}="):
            value = word.split("=", 1)[1]
    return value


def _without(option: str, arguments: Sequence[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in arguments:
        if not skip and word != option and not word.startswith(f"{option}="):
            kept.append(word)
        skip = not skip and word == option
    return kept
