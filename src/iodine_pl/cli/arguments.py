"""Completes the arguments of a command by defaults and by the settings of a checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
import yaml

from iodine_pl.checkpoints.classes import class_of, data_of, imported, named_data
from iodine_pl.checkpoints.configuration import read_configuration
from iodine_pl.checkpoints.finding import find_weights, run_of
from iodine_pl.checkpoints.loading import DEFAULT_CLASS, OF_COMMAND_LINE, class_path_of
from iodine_pl.checkpoints.reading import read_checkpoint

__all__ = ["DEFAULTS", "checkpoint_of", "settings_before"]

DEFAULTS = {"model": DEFAULT_CLASS, "data": "iodine_pl.datamodules.TetrominoesDataModule"}
"""The classes that are taken if nothing names one."""
_LINKED = (*OF_COMMAND_LINE, "batch_size", "seed")
"""The model's arguments that the command line adds, or sets from the data or the seed."""


class _Unclear(Exception):
    """The arguments are wrong; the main parser reports how."""


class _Scout(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Unclear(message)


class _ReadConfig(argparse.Action):
    """Adds the names in a configuration at its place among the arguments; later arguments win."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        text = values  # or the configuration itself
        try:
            if Path(values).is_file():
                text = Path(values).read_text(encoding="utf-8")
            content = yaml.safe_load(text)
        except OSError:
            return
        except UnicodeDecodeError:
            raise ValueError(f"{values} is not a text file: give a configuration in YAML") from None
        except yaml.YAMLError as error:
            raise ValueError(f"{values} is not YAML ({error})") from None
        if not isinstance(content, Mapping):
            if text is values:
                return
            raise ValueError(f"{values} has no settings: give a configuration, such as those that training saves")
        model, data = (
            part.get("class_path") if isinstance(part, Mapping) else part
            for part in (content.get("model"), content.get("data"))
        )
        trainer = content.get("trainer")
        root = trainer.get("default_root_dir") if isinstance(trainer, Mapping) else None
        named = {"ckpt_path": content.get("ckpt_path"), "name": content.get("name")}
        found = named | {"model": model, "data": data, "root": root}
        for name, value in found.items():
            if value is not None:
                setattr(namespace, name, value)


def _named(arguments: Sequence[str]) -> argparse.Namespace:
    """Returns the checkpoint, the run's name, the folder of runs and the classes that the arguments name.

    This must precede the main parser, whose options depend on the classes of model and data, which the checkpoint
    names. It uses argparse, like the main parser, so that abbreviations mean the same.
    """
    scout = _Scout(add_help=False)
    scout.add_argument("-c", "--config", action=_ReadConfig)
    for option in ("--ckpt_path", "--name", "--model", "--data"):
        scout.add_argument(option)
    for group in ("model", "data"):
        scout.add_argument(f"--{group}.class_path", dest=group)
    scout.add_argument("--trainer.default_root_dir", dest="root")
    try:
        return scout.parse_known_args(arguments)[0]
    except _Unclear:
        return scout.parse_args([])


def checkpoint_of(arguments: Sequence[str]) -> Path | None:
    """Returns the path of the checkpoint that the arguments of a command name, if any.

    Raises:
        FileNotFoundError: if there is no such checkpoint, or its run has no configuration.
        ValueError: if an address has no digest.
        DownloadError: if the server does not send the file that has this digest.
    """
    named = _named(arguments)
    if not named.ckpt_path:
        return None
    path = find_weights(named.ckpt_path, named.name, named.root)
    if named.ckpt_path in ("last", "best") and run_of(path) is None:
        raise FileNotFoundError(
            f"{path.parent.parent} has no config.yaml, which says how the run was trained: restore a copy of it, or "
            f"give --ckpt_path {path}, which names its own model and data"
        )
    return path


def settings_before(arguments: Sequence[str]) -> tuple[dict[str, Any], str | None]:
    """Returns the settings that precede all arguments, and a line that says where the data are from.

    They are those of the checkpoint's run, or the model and the data in a checkpoint outside of a run. If the arguments
    name data of another class, the checkpoint's data are left out. If nothing names data, they are Tetrominoes; if
    nothing names a model, it is IODINE.

    Returns:
        The settings in the form of a configuration; and one line about the data if there is a checkpoint and the
        arguments name no data.

    Raises:
        ValueError, TypeError: if a file is not a checkpoint of a model, or not a configuration, or names a class that
            is neither of this package nor imported nor named by the arguments.
    """
    named, checkpoint = _named(arguments), checkpoint_of(arguments)
    settings: dict[str, Any] = {}
    file = checkpoint
    if checkpoint is not None and (run := run_of(checkpoint)) is not None:
        file = run / "config.yaml"
        settings = read_configuration(file)
    elif checkpoint is not None:
        settings = _settings_in(checkpoint, named)
    # A default of the parser would keep its arguments when a configuration names another class.
    if "model" not in settings and named.model is None:
        settings["model"] = {"class_path": DEFAULTS["model"]}
    data, line = settings.pop("data", None), None
    path, given = named_data(data, f"{file}") if data else ("", {})
    if data and (named.data is None or _same_class(named.data, path)):
        settings["data"] = data
        if named.data is None:
            shown = ", ".join(f"{name}={value}" for name, value in given.items() if value is not None)
            line = f"data: those of {checkpoint}, {path.rsplit('.', 1)[-1]}({shown}); --data names others"
    elif named.data is None:
        settings["data"] = {"class_path": DEFAULTS["data"]}
        if checkpoint is not None:
            line = f"data: {DEFAULTS['data']}, as {checkpoint} does not say what it was trained on; --data names others"
    return settings, line


def _settings_in(checkpoint: Path, named: argparse.Namespace) -> dict[str, Any]:
    """Returns model and data of a checkpoint; their classes are of this package or named by the arguments."""
    for path in (named.model, named.data):
        with suppress(ImportError, AttributeError, ValueError):  # the main parser reports it
            imported(path or "")
    content = read_checkpoint(checkpoint)
    class_of(class_path_of(content), pl.LightningModule, checkpoint)
    arguments = {name: value for name, value in content["hyper_parameters"].items() if name not in _LINKED}
    settings = {"model": {"class_path": class_path_of(content), "init_args": arguments}}
    data = content.get("data")
    replaced = (
        named.data is not None
        and isinstance(data, Mapping)
        and not _same_class(named.data, str(data.get("class_path")))
    )
    return settings if data is None or replaced else settings | {"data": data_of(content, checkpoint)}


def _same_class(named: str, class_path: str) -> bool:
    """Tells whether a name is that of a class: its path or, as on the command line, its name without the path."""
    return named == class_path or ("." not in named and named == class_path.rsplit(".", 1)[-1])
