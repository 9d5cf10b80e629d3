"""DeepMind's released weights: the reference code's variables into an IODINE."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from iodine_pl.iodine import IODINE

__all__ = ["load_variables", "parameter_names"]

_NORMS = {
    "dcomponents": "norm_mean_gradient",
    "dmask": "norm_mask_gradient",
    "log_prob": "norm_log_likelihood",
    "counterfactual": "norm_leave_one_out",
    "dzp": "norm_posterior_gradient",
}


def parameter_names(model: IODINE) -> dict[str, str]:
    """Returns, for every variable name of the reference code, the name of this model's parameter."""

    def layers(variables: str, module: str, root: nn.Module) -> dict[str, str]:
        """Pairs ``variables_0``, ``variables_1`` … with the layers of a stack that have weights, in order."""
        indices = [i for i, layer in enumerate(root.children()) if any(True for _ in layer.parameters())]
        return {f"{variables}_{n}": f"{module}.{i}" for n, i in enumerate(indices)}

    decoder = "pixel_decoder/broadcast_conv/conv_net_2d/conv_2d"
    weighted = layers(decoder, "decoder.hidden", model.decoder.hidden)
    weighted[f"{decoder}_{len(weighted)}"] = "decoder.output"
    weighted |= layers("encoder_net/cnn/conv_net_2d/conv_2d", "refinement.convolutions", model.refinement.convolutions)
    weighted |= layers("encoder_net/cnn/mlp/linear", "refinement.mlp", model.refinement.mlp)
    weighted["refinement_head/residual_head/linear"] = "refinement.head"

    names = {"model/iodine/initial_sample_distribution": "initial_posterior"}
    for variable, module in weighted.items():
        names |= {f"{variable}/w": f"{module}.weight", f"{variable}/b": f"{module}.bias"}
    for name, module in _NORMS.items():
        variable = f"model/iodine/preprocess/layer_norm_{name}"
        names |= {f"{variable}/gamma": f"refinement.{module}.weight", f"{variable}/beta": f"refinement.{module}.bias"}
    if model.refinement.lstm is not None:
        names["recurrent_net/lstm/lstm/w_gates"] = "refinement.lstm.gates.weight"
        names["recurrent_net/lstm/lstm/b_gates"] = "refinement.lstm.gates.bias"
    return names


def load_variables(model: IODINE, variables: Mapping[str, ArrayLike]) -> None:
    """Sets every parameter of ``model`` from the reference code's variables, each used exactly once.

    Args:
        model: with the architecture that the variables were trained in.
        variables: from TensorFlow's variable name to array: convolutions HWIO, linear layers in x out.

    Raises:
        ValueError: naming every missing, unknown or misshapen variable; the model is then unchanged.
    """
    names = parameter_names(model)
    parameters = dict(model.named_parameters())
    problems = [f"missing {name}" for name in names if name not in variables]
    problems += [f"unknown {name}" for name in variables if name not in names]
    values: dict[str, torch.Tensor] = {}
    for name in names.keys() & variables.keys():
        value = torch.from_numpy(np.array(variables[name]))
        if value.ndim == 4:
            value = value.permute(3, 2, 0, 1)  # HWIO to OIHW
        elif value.ndim == 2:
            value = value.T  # in x out to out x in
        expected = tuple(parameters[names[name]].shape)
        if tuple(value.shape) != expected:
            problems.append(f"misshapen {name}: {tuple(value.shape)} in PyTorch's order, the model has {expected}")
        values[names[name]] = value
    if problems:
        raise ValueError("these variables do not fit the model: " + "; ".join(sorted(problems)))
    with torch.no_grad():
        for parameter_name, value in values.items():
            parameters[parameter_name].copy_(value)
