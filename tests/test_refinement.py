"""Inputs of the refinement network that are left out, and its layer norms."""

import pytest
import torch

from iodine_pl import IODINE
from iodine_pl.refinement import RefinementInputs

NAMES = (*RefinementInputs._fields, "coordinates")
SMALL = {"num_slots": 2, "num_iterations": 2, "latent_size": 3, "decoder_channels": (4,), "encoder_channels": (4, 4)}


def inputs_of(names=()):
    """Returns random inputs, with some of them changed."""
    b, k, c, h, w, d = 2, 2, 3, 9, 9, 3
    shapes = dict.fromkeys(NAMES, (b, k, h, w)) | dict.fromkeys(("means", "mean_gradient"), (b, k, c, h, w))
    shapes |= {"image": (b, c, h, w), "log_likelihood": (b, h, w)}
    shapes |= dict.fromkeys(("posterior", "posterior_gradient"), (b, k, 2 * d))
    generator = torch.Generator().manual_seed(1)
    values = {name: torch.randn(shapes[name], generator=generator).double() for name in RefinementInputs._fields}
    return RefinementInputs(**{n: x.flip(-1) * 2.0 if n in names else x for n, x in values.items()})


@pytest.mark.parametrize("name", RefinementInputs._fields)
def test_what_is_left_out_has_no_effect(name):
    torch.manual_seed(0)
    whole = IODINE(**SMALL).double()
    without = IODINE(**SMALL, leave_out=[name]).double()
    without.load_state_dict(whole.state_dict())
    same, changed = inputs_of(), inputs_of([name])
    assert not torch.allclose(whole.refinement(same)[0], whole.refinement(changed)[0])
    torch.testing.assert_close(without.refinement(same)[0], without.refinement(changed)[0])
    for other in set(RefinementInputs._fields) - {name}:
        assert not torch.allclose(without.refinement(same)[0], without.refinement(inputs_of([other]))[0])


def test_without_coordinates_the_place_does_not_matter():
    """Moved by a whole period of the strides, an input on a wide zero border gives the same update."""
    torch.manual_seed(0)
    for leave_out, expected in ((["coordinates"], True), ([], False)):
        network = IODINE(**SMALL, leave_out=leave_out).double().refinement
        inputs = inputs_of()
        grown = {}
        for left in (20, 24):
            grown[left] = inputs._replace(
                **{
                    name: torch.nn.functional.pad(getattr(inputs, name), (left, 44 - left, 20, 24))
                    for name in RefinementInputs._fields
                    if not name.startswith("posterior")
                }
            )
        updates = [network(grown[left])[0] for left in (20, 24)]
        assert torch.allclose(*updates, rtol=0, atol=1e-12) is expected


def test_without_layer_norm_the_size_of_a_gradient_matters():
    torch.manual_seed(0)
    for layer_norm in (True, False):
        network = IODINE(**SMALL, layer_norm=layer_norm, norm_epsilon=1e-12).double().refinement
        inputs = inputs_of()
        larger = inputs._replace(mean_gradient=inputs.mean_gradient * 100.0)
        assert torch.allclose(network(inputs)[0], network(larger)[0], atol=1e-6) is layer_norm


def test_no_gradient_passes_a_stopped_input_without_layer_norm():
    model = IODINE(**SMALL, layer_norm=False).double()
    gradient = inputs_of().mean_gradient.requires_grad_()
    update, _ = model.refinement(inputs_of()._replace(mean_gradient=gradient))
    update.sum().backward()
    assert gradient.grad is None


def test_refuses_an_unknown_input():
    with pytest.raises(ValueError, match="leave_out has picture, but the inputs are image, means"):
        IODINE(leave_out=["picture"])
