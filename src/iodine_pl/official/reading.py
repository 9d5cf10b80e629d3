"""Reads a checkpoint of the reference code (TensorFlow 1): arguments, parameters, Adam's moments, number of updates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from iodine_pl.files.tensorflow.checkpoints import read_checkpoint
from iodine_pl.networks import NETWORKS, Network
from iodine_pl.official.variables import in_our_layout, infer_arguments

__all__ = ["Official", "read_official"]

_PROBE = "factor_evaluator/"
_FIRST, _SECOND = "/Adam", "/Adam_1"
_POWERS = ("beta1_power", "beta2_power")
_BETAS = (0.95, 0.999)  # of the released code
_STEP = "global_step"
_ALIKE = {"image_channels": 3, "coordinate_frequencies": 3}  # in all released networks


class Official(NamedTuple):
    """Holds the content of a checkpoint of the reference code."""

    arguments: dict[str, Any]
    """Arguments of :class:`iodine_pl.IODINE`."""
    parameters: dict[str, Tensor]
    """Name -> parameter, for all parameters of that model."""
    network: Network | None
    """The released network that has this architecture."""
    step: int
    """Number of updates; 0 if the checkpoint does not have it."""
    moments: dict[str, tuple[Tensor, Tensor]]
    """Parameter -> Adam's two moments; empty if the checkpoint has none."""
    unused: tuple[str, ...]
    """Variables of the factor probe, which is not part of the model."""

    def describe(self) -> str:
        """Returns a few lines about what was found and how it is used."""
        released = "no released network" if self.network is None else f"the released network {self.network}"
        slots = self.arguments.get("num_slots", NETWORKS[self.network or "tetrominoes"]["num_slots"])
        lines = {
            "architecture": f"that of {released}, {sum(x.numel() for x in self.parameters.values()):,} parameters",
            "variables used": f"{len(self.parameters)}",
            "slots": f"{slots}, which is not in the file; each call can take another number",
            "updates done": f"{self.step:,}",
            "moments of Adam": f"of {len(self.moments)} variables" if self.moments else "none",
            "factor probe": "not used: " + ", ".join(self.unused) if self.unused else "none",
        }
        return "\n".join(f"{name}: {text}" for name, text in lines.items())


def read_official(
    source: str | Path | Mapping[str, ArrayLike], folder: str | None = None, **arguments: Any
) -> Official:
    """Reads a checkpoint of the reference code; :meth:`iodine_pl.IODINE.from_official` makes the model.

    The architecture is inferred from names and shapes of the variables. Everything else (number of slots and refinement
    steps, pixel distribution, training) is that of the released network with this architecture, or IODINE's default.

    Args:
        source: the checkpoint, as :func:`iodine_pl.files.tensorflow.checkpoints.read_checkpoint` takes it; or its
            variables by name: convolutions HWIO, linear layers in x out.
        folder: which folder to take if ``source`` has several, such as ``clevr6``.
        arguments: of IODINE; replace those found.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if it cannot be read, or has variables that are missing, unknown, misshapen or not finite; the
            message names them all.
    """
    if isinstance(source, Mapping):
        return _from_variables(source, arguments)
    where, bundle = read_checkpoint(source, folder)
    try:
        if bundle.unreadable:
            problems = [f"{name} is {reason}" for name, reason in bundle.unreadable.items()]
            raise ValueError(f"no variables of IODINE: {'; '.join(problems)}")
        return _from_variables(bundle.arrays, arguments)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _from_variables(variables: Mapping[str, ArrayLike], arguments: Mapping[str, Any]) -> Official:
    weights: dict[str, ArrayLike] = {}
    moments: tuple[dict[str, ArrayLike], dict[str, ArrayLike]] = ({}, {})
    powers: dict[str, ArrayLike] = {}
    unused: list[str] = []
    for name, value in variables.items():
        if name.startswith(_PROBE):
            unused.append(name)
        elif name.endswith(_SECOND):
            moments[1][name.removesuffix(_SECOND)] = value
        elif name.endswith(_FIRST):
            moments[0][name.removesuffix(_FIRST)] = value
        elif name in _POWERS:
            powers[name] = value
        elif name != _STEP:
            weights[name] = value
    step = _step(variables[_STEP]) if _STEP in variables else 0

    inferred = infer_arguments(weights)
    network = next((name for name in NETWORKS if inferred.items() <= (_ALIKE | NETWORKS[name]).items()), None)
    made = (inferred if network is None else {"network": network}) | dict(arguments)
    architecture = _ALIKE | inferred | dict(arguments)
    parameters = in_our_layout(weights, architecture)
    if not any(moments) and not powers:
        return Official(made, parameters, network, step, {}, tuple(unused))

    if missing := [name for name in (_STEP, *_POWERS) if name not in variables]:
        raise ValueError(f"Adam's moments are there, but not {', '.join(missing)}")
    for name, beta in zip(_POWERS, arguments.get("betas", _BETAS), strict=True):
        stored, expected = float(np.asarray(powers[name])), beta ** (step + 1)
        if not math.isclose(stored, expected, abs_tol=1e-3):
            raise ValueError(
                f"{name} is {stored:.6g}, but {beta} to the power of {_STEP} + 1 = {step + 1} is {expected:.6g}: Adam "
                "ran with another beta; name it by betas=..."
            )
    first = in_our_layout(moments[0], architecture, _FIRST)
    second = in_our_layout(moments[1], architecture, _SECOND)
    both = {name: (first[name], second[name]) for name in first}
    return Official(made, parameters, network, step, both, tuple(unused))


def _step(value: ArrayLike) -> int:
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "iu" or array.item() < 0:
        raise ValueError(f"{_STEP} must be one number of updates, not {array.dtype} of shape {array.shape}")
    return int(array.item())
