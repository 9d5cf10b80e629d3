"""The reference code's variables: their names, their layout, and the architecture that follows from them.

No model is needed: names and shapes follow from the arguments of :class:`iodine_pl.IODINE`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from iodine_pl.refinement import INPUTS, VECTORS, input_channels

__all__ = ["Variable", "in_our_layout", "infer_arguments", "variables_of"]

_DECODER = "pixel_decoder/broadcast_conv/conv_net_2d/conv_2d"
_ENCODER = "encoder_net/cnn/conv_net_2d/conv_2d"
_MLP = "encoder_net/cnn/mlp/linear"
_LSTM = "recurrent_net/lstm/lstm"
_INITIAL = "model/iodine/initial_sample_distribution"
_HEAD = "refinement_head/residual_head/linear"
_NORM = "model/iodine/preprocess/layer_norm"


class Variable(NamedTuple):
    """Describes the parameter that a variable holds."""

    parameter: str
    """Its name in :class:`iodine_pl.IODINE`."""
    shape: tuple[int, ...]
    """Its shape in PyTorch's order of axes."""


def infer_arguments(variables: Mapping[str, ArrayLike]) -> dict[str, Any]:
    """Infers arguments of IODINE from names and shapes of the reference code's variables.

    Raises:
        ValueError: if a variable is missing or has a shape that no IODINE has; the message names it.
    """
    shapes = {name: np.shape(value) for name, value in variables.items()}

    def shape(name: str, axes: int) -> tuple[int, ...]:
        if name not in shapes:
            raise ValueError(f"missing {name}: this is not a checkpoint of IODINE")
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
    others = input_channels(INPUTS, {"C": image_channels, "coordinates": 0})
    coordinates = encoder[0][2] - sum(others.values())
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
        "lstm_size": shape(f"{_LSTM}/w_gates", 2)[1] // 4 if f"{_LSTM}/w_gates" in shapes else 0,
        "coordinates": "linear" if coordinates == 2 else "cosine",
    }
    return inferred if coordinates == 2 else inferred | {"coordinate_frequencies": frequencies}


def variables_of(arguments: Mapping[str, Any]) -> dict[str, Variable]:
    """Returns every variable of the network with these arguments of IODINE, by its name in the reference code.

    Args:
        arguments: ``latent_size``, ``image_channels``, ``lstm_size``, ``coordinates``, ``coordinate_frequencies``, and
            sizes and kernels of the convolutions and the MLP.
    """
    latent, channels, lstm = arguments["latent_size"], arguments["image_channels"], arguments["lstm_size"]
    decoder, encoder, mlp = (arguments[name] for name in ("decoder_channels", "encoder_channels", "mlp_sizes"))
    sizes = {"C": channels, "2D": 2 * latent}
    sizes["coordinates"] = 2 if arguments["coordinates"] == "linear" else arguments["coordinate_frequencies"] ** 2 - 1
    images, vectors = input_channels(INPUTS, sizes), input_channels(VECTORS, sizes)
    features = mlp[-1] + sum(vectors.values())
    made: dict[str, Variable] = {}

    def layer(variable: str, parameter: str, outputs: int, *others: int) -> None:
        made[f"{variable}/w"] = Variable(f"{parameter}.weight", (outputs, *others))
        made[f"{variable}/b"] = Variable(f"{parameter}.bias", (outputs,))

    def stack(variable: str, parameter: str, inputs: int, outputs: Sequence[int], *kernel: int) -> None:
        for n, (before, after) in enumerate(zip((inputs, *outputs), outputs, strict=False)):
            layer(f"{variable}_{n}", f"{parameter}.{2 * n}", after, before, *kernel)  # an ELU follows each

    made[_INITIAL] = Variable("initial_posterior", (2 * latent,))
    kernel = (arguments["decoder_kernel"],) * 2
    stack(_DECODER, "decoder.hidden", latent + 3, decoder, *kernel)
    layer(f"{_DECODER}_{len(decoder)}", "decoder.output", channels + 1, decoder[-1], *kernel)
    stack(_ENCODER, "refinement.convolutions", sum(images.values()), encoder, *(arguments["encoder_kernel"],) * 2)
    stack(_MLP, "refinement.mlp", encoder[-1], mlp)
    for row in (*INPUTS, *VECTORS):
        if row.norm:
            count, norm = (images | vectors)[row.name], f"refinement.norm_{row.name}"
            made[f"{_NORM}_{row.reference}/gamma"] = Variable(f"{norm}.weight", (count,))
            made[f"{_NORM}_{row.reference}/beta"] = Variable(f"{norm}.bias", (count,))
    if lstm:
        made[f"{_LSTM}/w_gates"] = Variable("refinement.lstm.gates.weight", (4 * lstm, features + lstm))
        made[f"{_LSTM}/b_gates"] = Variable("refinement.lstm.gates.bias", (4 * lstm,))
    layer(_HEAD, "refinement.head", 2 * latent, lstm or features)
    return made


def in_our_layout(
    variables: Mapping[str, ArrayLike], arguments: Mapping[str, Any], suffix: str = ""
) -> dict[str, Tensor]:
    """Returns every parameter of the network by its name in IODINE, from the reference code's variables.

    Args:
        variables: from TensorFlow's variable name to array: convolutions HWIO, linear layers in x out.
        arguments: as :func:`variables_of` takes them.
        suffix: of the variables' names in the file, for the message.

    Raises:
        ValueError: if variables are missing, unknown, misshapen or not finite; the message names them all.
    """
    expected = variables_of(arguments)
    problems = [f"missing {name}{suffix}" for name in expected if name not in variables]
    problems += [f"unknown {name}{suffix}" for name in variables if name not in expected]
    values: dict[str, Tensor] = {}
    for name in expected.keys() & variables.keys():
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
        parameter, shape = expected[name]
        if tuple(value.shape) != shape:
            problems.append(f"misshapen {name}{suffix}: {tuple(value.shape)} in PyTorch's order, the model has {shape}")
        values[parameter] = value
    if problems:
        raise ValueError("these variables do not fit the model: " + "; ".join(sorted(problems)))
    return values
