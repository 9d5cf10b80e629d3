"""Shows the common options of a command, and all options of a group, such as the Trainer's."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.cli import LightningArgumentParser

__all__ = ["add_group_help", "help_of_command", "shipped", "subclasses_of"]

_WIDTH, _COLUMN = 118, 42
_OF_RUN = {
    "config": "A YAML file or name of settings; later options win. May be repeated.",
    "name": "Folder of the run in --trainer.default_root_dir; by default the dataset.",
    "ckpt_path": "last or best of the newest run, a shipped name, a path, https://... or hf://...",
    "seed_everything": "The seed of weights, order and noise.",
}
_TRAINER = {
    "accelerator": "cpu, gpu, or auto for the fastest available.",
    "devices": "Number of devices, or a list of their indices.",
    "precision": "For example bf16-mixed; null is 32-true.",
    "max_steps": "Updates after which training stops.",
    "max_epochs": "Epochs after which training stops.",
    "max_time": "Time after which training stops, DD:HH:MM:SS.",
    "val_check_interval": "Batches, or fraction of an epoch, between validations.",
    "check_val_every_n_epoch": "Epochs between validations; null counts only batches.",
    "log_every_n_steps": "Updates between logged values.",
    "accumulate_grad_batches": "Batches per update.",
    "limit_test_batches": "Batches of a test, or a fraction of them.",
    "enable_progress_bar": "true, false, or null for a terminal only.",
    "logger": "false for none, or a class.",
    "callbacks": "A list of callbacks; --trainer.callbacks+ adds one.",
    "default_root_dir": "Parent folder of the runs.",
}
"""The options in the help of a command, with their descriptions."""


def help_of_command(parser: LightningArgumentParser) -> str:
    """Returns a line for each common option, and how to see the others."""
    command = parser.prog.replace(" [options]", "")
    actions = {action.dest: action for action in parser._actions}
    lines = [f"usage: {command} [--config FILE] [--OPTION VALUE ...]", "", "run"]
    lines += [_line(actions[name], about) for name, about in _OF_RUN.items()]
    lines += [_entry("--print_config", "Print all settings as a configuration and exit.")]
    for group, base in (("model", pl.LightningModule), ("data", pl.LightningDataModule)):
        lines += ["", group, _entry(f"--{group} CLASS", f"One of {', '.join(shipped(base))}, or the path of your own.")]
        lines += [_entry(f"--{group}.ARGUMENT VALUE", f"Any argument of the class: --{group}.help CLASS lists them.")]
    lines += ["", "Trainer (--trainer.help lists all options)"]
    lines += [_line(actions[f"trainer.{name}"], about) for name, about in _TRAINER.items()]
    lines += [_entry("--trainer.callbacks.help CLASS", "Show the options of a callback and exit.")]
    for group in parser.callback_keys:
        lines += ["", f"{group} (--{group}.help says more)"]
        own = [action for name, action in actions.items() if name.startswith(f"{group}.") and _is_option(action)]
        lines += [_line(action) for action in own[:4]]
    return "\n".join([*lines, "", "null means none. The documentation explains the options.", ""])


def _is_option(action: argparse.Action) -> bool:
    return bool(action.default != argparse.SUPPRESS)


def _line(action: argparse.Action, about: str | None = None) -> str:
    sentence = about or re.split(r"(?<=\.)\s", " ".join((action.help or "").split()))[0]
    sentence = sentence[:1].upper() + sentence[1:] if about is None else sentence
    default = "null" if action.default is None else action.default
    return _entry(action.option_strings[-1].rstrip("+"), f"{sentence.rstrip('.')} ({default}).")


def _entry(option: str, about: str) -> str:
    return f"  {option:<{_COLUMN - 4}}  {textwrap.shorten(about, _WIDTH - _COLUMN, placeholder=' ...')}"


def subclasses_of(kind: type) -> Iterator[type]:
    """Yields the imported subclasses of a class."""
    found: list[type] = kind.__subclasses__()
    for each in found:
        yield each
        yield from subclasses_of(each)


def shipped(kind: type) -> list[str]:
    """Returns the names of this package's subclasses of a class, without those that are only bases."""
    names = {each.__name__ for each in subclasses_of(kind) if each.__module__.startswith("iodine_pl.")}
    return sorted(names - {"OptimizedModule", "SceneModel"})


class _GroupHelp(argparse.Action):
    """Shows all options of a group."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments | {"nargs": 0, "default": argparse.SUPPRESS})

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        group = self.option_strings[0].removeprefix("--").removesuffix(".help")
        for action in parser._actions:
            if action.dest.startswith(f"{group}.") and _is_option(action):
                text = " ".join((action.help or "").split())
                default = "null" if action.default is None else action.default
                print(f"--{action.dest} ({default})")
                print(textwrap.fill(text, _WIDTH, initial_indent="    ", subsequent_indent="    "))
        parser.exit()


def add_group_help(parser: LightningArgumentParser, group: str) -> None:
    """Adds ``--GROUP.help``, which shows the options of a group."""
    parser.add_argument(f"--{group}.help", action=_GroupHelp, help=f"Show all options of {group} and exit.")
