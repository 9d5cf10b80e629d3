"""Finds the classes that a file names. Files may be from anyone, so they must not decide what code runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
from jsonargparse import ArgumentParser

__all__ = ["class_of", "data_of", "imported", "make_data", "named_data"]

Kind = TypeVar("Kind")


def imported(path: str) -> Any:
    """Returns the object with a dotted path, such as a class or a function."""
    module, name = path.rsplit(".", 1)
    return getattr(import_module(module), name)


def class_of(path: Any, base: type[Kind], file: str | Path) -> type[Kind]:
    """Returns the class that a file names. Only modules of this package are imported for it.

    Args:
        path: as in ``iodine_pl.IODINE``.
        base: the class must be derived from it.
        file: names the class; for messages.

    Raises:
        ValueError: if it is neither of this package nor already imported, or does not exist.
        TypeError: if it is not derived from ``base``.
    """
    module, _, name = str(path).rpartition(".")
    if module.split(".")[0] != "iodine_pl" and module not in sys.modules:
        option = "--data" if issubclass(base, pl.LightningDataModule) else "--model"
        raise ValueError(
            f"{file} names the class {path}, which is not part of iodine_pl. No file decides which code runs: import "
            f"the class first, or give the option {option} {path}"
        )
    try:
        found = getattr(import_module(module), name)
    except (AttributeError, ImportError) as error:
        raise ValueError(f"{file} names the class {path}, but there is none") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise TypeError(f"{file} names {path}, which is not derived from {base.__name__}")
    return found


def data_of(settings: Any, file: str | Path) -> dict[str, Any]:
    """Returns class and arguments of the data in a file's settings, after checking all classes that they name.

    Returns:
        ``class_path`` and ``init_args``; nothing if the settings name no data.

    Raises:
        ValueError, TypeError: as :func:`class_of`; also if the settings are not a mapping.
    """
    if not isinstance(settings, Mapping):
        raise ValueError(f"{file} is no configuration")
    data = settings.get("data")
    if data is None:
        return {}
    path, arguments = named_data(data, file)
    class_of(path, pl.LightningDataModule, file)
    for each in _named_in(arguments):
        class_of(each, object, file)
    return {"class_path": path, "init_args": arguments}


def named_data(data: Any, file: str | Path) -> tuple[str, dict[str, Any]]:
    """Returns the class path and the arguments in a description of data, without checking them.

    Raises:
        ValueError: if it is not such a description; the message names ``file``.
    """
    arguments = data.get("init_args") or {} if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or "class_path" not in data or not isinstance(arguments, Mapping):
        raise ValueError(f"{file} names no data: they need class_path and init_args")
    return str(data["class_path"]), dict(arguments)


def make_data(settings: Any, file: str | Path) -> Any:
    """Makes the datamodule that a file's settings name, with its arguments parsed as on the command line.

    Raises:
        ValueError, TypeError: as :func:`data_of`; also if there are no data, or an argument is of the wrong type.
    """
    data = data_of(settings, file)
    if not data:
        raise ValueError(f"{file} names no data")
    kind = class_of(data["class_path"], pl.LightningDataModule, file)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "data", fail_untyped=False)
    try:
        arguments = parser.parse_object({"data": data["init_args"]})
    except argparse.ArgumentError as error:
        raise ValueError(f"{file}: {error}") from error
    return kind(**arguments.data.as_dict())


def _named_in(settings: Any) -> Iterator[Any]:
    """Yields every ``class_path`` in settings, however deep."""
    if isinstance(settings, Mapping):
        if "class_path" in settings:
            yield settings["class_path"]
        for value in settings.values():
            yield from _named_in(value)
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from _named_in(value)
