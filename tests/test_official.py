import numpy as np
import pytest
import torch
from test_iodine import small

from iodine_pl import IODINE
from iodine_pl.official import load_variables, parameter_names


def variables_of(model):
    """Writes a model's parameters as the reference code would."""
    parameters = dict(model.named_parameters())
    arrays = {}
    for variable, name in parameter_names(model).items():
        value = parameters[name].detach()
        value = value.permute(2, 3, 1, 0) if value.ndim == 4 else value.T if value.ndim == 2 else value
        arrays[variable] = value.contiguous().numpy()
    return arrays


@pytest.mark.parametrize("network", ["tetrominoes", "multi_dsprites", "clevr6"])
def test_every_parameter_has_one_variable(network):
    model, other = getattr(IODINE, network)(), getattr(IODINE, network)()
    names = parameter_names(model)
    assert sorted(names.values()) == sorted(name for name, _ in model.named_parameters())
    assert len(names) == {"tetrominoes": 31, "multi_dsprites": 33, "clevr6": 37}[network]
    load_variables(other, variables_of(model))
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_whatever_does_not_fit_is_named_and_changes_nothing():
    model = small()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    variables = variables_of(small())
    lost = "refinement_head/residual_head/linear/b"
    del variables[lost]
    variables["global_step"] = np.int64(3)
    bent = "encoder_net/cnn/mlp/linear_0/w"
    variables[bent] = variables[bent].T
    with pytest.raises(ValueError, match="do not fit") as caught:
        load_variables(model, variables)
    for words in (
        f"missing {lost}",
        "unknown global_step",
        f"misshapen {bent}: (6, 8) in PyTorch's order, the model has (8, 6)",
    ):
        assert words in str(caught.value)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
