"""Parses options and reports an error in one line."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterable
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import docstring_parser
import pytorch_lightning as pl
from jsonargparse import ArgumentParser
from pytorch_lightning.cli import LightningArgumentParser

import iodine_pl
from iodine_pl import baselines, datamodules
from iodine_pl.checkpoints.classes import imported
from iodine_pl.cli.arguments import DEFAULTS
from iodine_pl.cli.errors import CommandError, did_you_mean
from iodine_pl.cli.help import help_of_command, shipped, subclasses_of

__all__ = ["CommandParser", "FunctionParser"]

# Imports the classes, which can then be named without their path.
for _package in (iodine_pl, baselines, datamodules):
    for _name in _package.__all__:
        getattr(_package, _name)

_BASES = {"model": pl.LightningModule, "data": pl.LightningDataModule}
_UNKNOWN = re.compile(r"(?:Option|Group '(.*)' does not accept option) '([^']*)'(?: is not accepted)?")


class _OneLine(ArgumentParser):
    """Raises a CommandError of one line instead of printing a usage message."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # it parses a class's arguments for another parser
            super().error(message, ex)
        raise CommandError(self._sentence(message)) from ex

    def validate(self, *args: Any, **kwargs: Any) -> None:
        """Suggests options similar to an unknown one; only the parser that finds it knows the others."""
        try:
            super().validate(*args, **kwargs)
        except KeyError as error:
            found = _UNKNOWN.fullmatch(str(error))
            if found is None:
                raise
            group, name = f"{found[1]}." if found[1] else "", found[2]
            known = [action.dest for action in self._actions if action.dest.startswith(group)]
            raise type(error)(f"no option {group}{name}.{did_you_mean(group + name, known)}") from error

    def _sentence(self, message: str) -> str:
        """Returns the error, similar options, and how to list the options."""
        parser: Any = self
        group = shown = ""
        if extra := re.search(r"[^\n]*iodine-pl\[[^\n]*", message):
            return extra[0].strip(" -")
        if found := re.match(r"unrecognized arguments: (\S+)", message):
            option = found[1].split("=")[0]
            group = option.removeprefix("--").split(".")[0]
            said = f"there is no option {option}.{did_you_mean(option, self._known_options())}"
            if not option.startswith("-"):
                said = f"{option} is not an option: options begin with --"
        elif found := re.match(r"the following arguments are required: (.+)", message):
            names = found[1].split(", ")
            if "." in names[0]:  # those of a subcommand
                assert self._subcommands_action is not None
                parser = self._subcommands_action.choices[names[0].split(".")[0]]
                names = [name.split(".")[1] for name in names]
            typed = " and ".join(parser._as_typed(name) for name in names)
            said = f"{parser.prog.replace(' [options]', '')} needs the argument{'s' if names[1:] else ''} {typed}"
        elif found := re.match(r'expected "(\w+)" to be one of \{(.*)\}, but it was not provided', message):
            said = f"{self.prog} needs the argument {found[1]}: {_listed(found[2].split(','))}"
        elif found := re.match(r"argument (\w+): invalid choice: '(.*)' \(choose from (.*)\)", message):
            choices = re.findall(r"[\w.]+", found[3])
            said = f"{found[1]} must be {_listed(choices)}, got {found[2]}"
        elif found := re.match(r"Subcommand '(.*)' does not accept option '(.*)'", message):
            assert self._subcommands_action is not None
            parser = self._subcommands_action.choices[found[1]]
            group = found[2].split(".")[0]
            said = f"there is no option {found[2]}.{did_you_mean(found[2], parser._known_options())}"
        elif found := re.match(r'(?:argument --|Parser key ")([\w.+]+)', message):
            group, key = found[1].split(".")[0], found[1]
            commands = [] if self._subcommands_action is None else [*self._subcommands_action.choices.values()]
            if len(commands) == 1:  # the one that was typed
                (parser,) = commands
            classes = re.findall(r"Problem with given class_path '([\w.]+)'", message)
            shown = f" {classes[0]}" if classes and group in _BASES else ""
            if unknown := re.search(r"no option \S+.*", message):
                said = f"{classes[-1] if classes else group} has {unknown[0]}"
            else:
                *_, (key, words) = re.findall(r'Parser key "([\w.+]+)":((?:(?!Parser key).)*)', message, re.DOTALL) or [
                    (key, message)
                ]
                said = _about_value(key, words)
        else:
            said = f"there is {message}" if message.startswith("no option") else message
        option = f"--{group}.help" if f"--{group}.help" in parser._option_string_actions else "--help"
        end = "" if said.endswith("?") else "."
        return f"{said.rstrip('.')}{end} {parser.prog.replace(' [options]', '')} {option}{shown} lists the options"

    def _as_typed(self, name: str) -> str:
        options = [action.option_strings for action in self._actions if action.dest == name]
        return options[0][-1] if options and options[0] else name

    def _known_options(self) -> list[str]:
        return list(self._option_string_actions)


class FunctionParser(_OneLine):
    """Parses the arguments of a function. A boolean option needs no value."""

    def add_function(self, function: Any) -> None:
        """Adds the parameters of a function. Those without a default are positional, unless they are keyword-only.

        A list is given as one or more words.
        """
        parameters = inspect.signature(function).parameters.values()
        said = {
            each.arg_name: each.description for each in docstring_parser.parse(inspect.getdoc(function) or "").params
        }
        by_position: set[str | int] = set()
        for parameter in parameters:
            hint = get_type_hints(function)[parameter.name]
            if parameter.default is not parameter.empty or parameter.kind is parameter.KEYWORD_ONLY:
                continue
            by_position.add(parameter.name)
            if get_origin(hint) is list:
                self.add_argument(parameter.name, nargs="+", type=get_args(hint)[0], help=said.get(parameter.name))
            else:
                others: set[str | int] = {each.name for each in parameters if each is not parameter}
                self.add_function_arguments(function, as_positional=True, as_group=False, skip=others)
        self.add_function_arguments(function, as_group=False, skip=by_position)
        for action in self._actions:
            if getattr(action, "_typehint", None) is bool:
                action.nargs, action.const = "?", True


class CommandParser(_OneLine, LightningArgumentParser):
    """Parses the options of one of Lightning's commands."""

    def _known_options(self) -> list[str]:
        """Adds the options of the default classes, which are known whether these are named or not."""
        known = super()._known_options()
        for group, path in DEFAULTS.items():
            inner = type(self)(exit_on_error=False)
            known += [f"--{group}.{name}" for name in inner.add_class_arguments(imported(path), fail_untyped=False)]
        return known

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """Writes settings without checking them again: they were checked when they were parsed, which takes as long."""
        return str(super().dump(*args, **{"skip_validation": True} | kwargs))

    def format_help(self, *args: Any) -> str:
        if self.callback_keys:
            return help_of_command(self)
        self.usage = argparse.SUPPRESS  # in the help for a class, whose options may be in any order
        return str(super().format_help(*args))


def _about_value(key: str, words: str) -> str:
    """Returns what was expected of a value, from jsonargparse's lines for each type that it tried."""
    if missing := re.search(r"Expected a dot import path string: (\S+)", words):
        names = [kind.__name__ for kind in subclasses_of(_BASES.get(key, pl.Callback))]
        near = did_you_mean(missing[1], names)
        if not near and key in _BASES:
            near = f" Give {', '.join(shipped(_BASES[key]))} or the path of your own"
        return f"{key}: there is no class {missing[1]}.{near}"
    if made := re.search(r"Problem with given class_path '([\w.]+)':\n\s*(?!Parser key)(\S.*)", words):
        kind, problem = made.groups()
        if missing := re.match(r"the following arguments are required: (.+)", problem):
            return f"{kind} needs {' and '.join(f'--{key}.{name}' for name in missing[1].split(', '))}"
        return f"{key}: {kind} cannot be made: {problem}"
    if other := re.search(r"Import path (?:(\S+) )?does not correspond to a subclass of (\w+)", words):
        return f"{key}: {other[1] or words.rsplit('Given value: ', 1)[-1].strip()} is not a {other[2]}"
    if "does not conform to restriction v>0" in words:
        return f"{key} must be positive, got {words.split(': ')[1].split()[0]}"
    if missing := re.search(r"(?:File does not exist|No such file).*?'([^']*)'", words):
        return f"{key}: there is no file {missing[1]}"
    value = re.search(r"(?:Given value|Got value): (.*)", words)
    expected = re.findall(r"Expected an? (.+?)(?:\. Got value|$)", words[: value.end()] if value else "", re.MULTILINE)
    if value is None or not expected:
        return words.strip() if key in words else f"{key}: {words.strip()}"
    kinds = [re.sub(r"<class '(?:.*\.)?(\w+)'>", r"\1", kind).replace("NoneType", "null") for kind in expected]
    kinds = [one for kind in kinds for one in (re.findall(r"'([^']*)'", kind) if "Literal[" in kind else [kind])]
    return f"{key} must be {_listed(kinds)}, got {value[1].strip()}"


def _listed(words: Iterable[str]) -> str:
    """Returns each word once, as ``a, b or c``."""
    *most, last = dict.fromkeys(words)
    return f"{', '.join(most)} or {last}" if most else last
