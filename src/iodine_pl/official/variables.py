"""The reference code's variables: how they are named and laid out, and what they tell of the architecture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from iodine_pl.iodine import IODINE

__all__ = ["in_our_layout", "infer_arguments", "load_variables", "parameter_names"]

_DECODER = "pixel_decoder/broadcast_conv/conv_net_2d/conv_2d"
_ENCODER = "encoder_net/cnn/conv_net_2d/conv_2d"
_MLP = "encoder_net/cnn/mlp/linear"
_LSTM = "recurrent_net/lstm/lstm"
_INITIAL = "model/iodine/initial_sample_distribution"
_NORMS = {
    "dcomponents": "norm_mean_gradient",
    "dmask": "norm_mask_gradient",
    "log_prob": "norm_log_likelihood",
    "counterfactual": "norm_leave_one_out",
    "dzp": "norm_posterior_gradient",
}


def infer_arguments(variables: Mapping[str, ArrayLike]) -> dict[str, Any]:
    """Returns the arguments of IODINE that names and shapes of the reference code's variables tell.

    Raises:
        ValueError: naming a variable that is missing or of a shape that no IODINE has.
    """
    shapes = {name: np.shape(value) for name, value in variables.items()}

    def shape(name: str, axes: int) -> tuple[int, ...]:
        if name not in shapes:
            raise ValueError(f"missing {name}: this is no checkpoint of IODINE")
        if len(shapes[name]) != axes or 0 in shapes[name]:
            raise ValueError(f"misshapen {name}: {shapes[name]}, it has {axes} axes in IODINE, none of them empty")
        return shapes[name]

    def stack(prefix: str, axes: int) -> Iterator[tuple[int, ...]]:
        n = 0
        while n == 0 or f"{prefix}_{n}/w" in shapes:
            yield shape(f"{prefix}_{n}/w", axes)
            n += 1

    decoder, encoder, mlp = list(stack(_DECODER, 4)), list(stack(_ENCODER, 4)), list(stack(_MLP, 2))
    if len(decoder) == 1:
        raise ValueError(f"missing {_DECODER}_1/w: a decoder has two convolutions at least")
    image_channels = decoder[-1][3] - 1
    coordinates = encoder[0][2] - 3 * image_channels - 7
    frequencies = math.isqrt(max(0, coordinates) + 1)
    if image_channels < 1 or (coordinates != 2 and (coordinates < 3 or frequencies**2 - 1 != coordinates)):
        raise ValueError(
            f"misshapen {_ENCODER}_0/w: {encoder[0]}; with {image_channels} image channels, as the decoder has, that "
            f"leaves {coordinates} for the coordinates, which have 2 or, n frequencies to an axis, n^2 - 1"
        )
    inferred: dict[str, Any] = {
        "latent_size": shape(_INITIAL, 1)[0] // 2,
        "image_channels": image_channels,
        "decoder_channels": tuple(layer[3] for layer in decoder[:-1]),
        "decoder_kernel": decoder[0][0],
        "encoder_channels": tuple(layer[3] for layer in encoder),
        "encoder_kernel": encoder[0][0],
        "mlp_sizes": tuple(layer[1] for layer in mlp),
        "lstm_size": shape(f"{_LSTM}/w_gates", 2)[1] // 4 if f"{_LSTM}/w_gates" in shapes else None,
        "coordinates": "linear" if coordinates == 2 else "cosine",
    }
    return inferred if coordinates == 2 else inferred | {"coordinate_frequencies": frequencies}


def parameter_names(model: IODINE) -> dict[str, str]:
    """Returns, for every variable name of the reference code, the name of this model's parameter."""

    def layers(variables: str, module: str, root: nn.Module) -> dict[str, str]:
        """Pairs ``variables_0``, ``variables_1`` … with the layers of a stack that have weights, in order."""
        indices = [i for i, layer in enumerate(root.children()) if any(True for _ in layer.parameters())]
        return {f"{variables}_{n}": f"{module}.{i}" for n, i in enumerate(indices)}

    weighted = layers(_DECODER, "decoder.hidden", model.decoder.hidden)
    weighted[f"{_DECODER}_{len(weighted)}"] = "decoder.output"
    weighted |= layers(_ENCODER, "refinement.convolutions", model.refinement.convolutions)
    weighted |= layers(_MLP, "refinement.mlp", model.refinement.mlp)
    weighted["refinement_head/residual_head/linear"] = "refinement.head"

    names = {_INITIAL: "initial_posterior"}
    for variable, module in weighted.items():
        names |= {f"{variable}/w": f"{module}.weight", f"{variable}/b": f"{module}.bias"}
    for name, module in _NORMS.items():
        variable = f"model/iodine/preprocess/layer_norm_{name}"
        names |= {f"{variable}/gamma": f"refinement.{module}.weight", f"{variable}/beta": f"refinement.{module}.bias"}
    if model.refinement.lstm is not None:
        names[f"{_LSTM}/w_gates"] = "refinement.lstm.gates.weight"
        names[f"{_LSTM}/b_gates"] = "refinement.lstm.gates.bias"
    return names


def load_variables(model: IODINE, variables: Mapping[str, ArrayLike]) -> None:
    """Sets every parameter of ``model`` from the reference code's variables, each used exactly once.

    Args:
        model: with the architecture that the variables were trained in.
        variables: from TensorFlow's variable name to array: convolutions HWIO, linear layers in x out.

    Raises:
        ValueError: naming every missing, unknown, misshapen or not finite variable; the model is then unchanged.
    """
    values = in_our_layout(model, variables)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def in_our_layout(model: IODINE, variables: Mapping[str, ArrayLike], suffix: str = "") -> dict[str, Tensor]:
    """Returns, for every parameter of ``model``, its variable in PyTorch's order of axes.

    ``suffix`` is what the variables' names had in the file, for the message.
    """
    names = parameter_names(model)
    parameters = dict(model.named_parameters())
    problems = [f"missing {name}{suffix}" for name in names if name not in variables]
    problems += [f"unknown {name}{suffix}" for name in variables if name not in names]
    values: dict[str, Tensor] = {}
    for name in names.keys() & variables.keys():
        array = np.array(variables[name])
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            what = "not finite" if array.dtype.kind == "f" else f"of type {array.dtype}"
            problems.append(f"{name}{suffix} is {what}")
            continue
        value = torch.from_numpy(array)
        if value.ndim == 4:
            value = value.permute(3, 2, 0, 1)  # HWIO to OIHW
        elif value.ndim == 2:
            value = value.T  # in x out to out x in
        expected = tuple(parameters[names[name]].shape)
        if tuple(value.shape) != expected:
            problems.append(
                f"misshapen {name}{suffix}: {tuple(value.shape)} in PyTorch's order, the model has {expected}"
            )
        values[names[name]] = value
    if problems:
        raise ValueError("these variables do not fit the model: " + "; ".join(sorted(problems)))
    return values
