"""The model computes what the reference code computes: every activation, loss, gradient, and four updates."""

import pytest
from reference import FULL, SHARED, TINY, Reference

import iodine_pl
import iodine_pl.official.variables


@pytest.mark.parametrize("name", TINY)
def test_every_activation_loss_and_gradient(name):
    reference = Reference(name, iodine_pl)
    assert reference.failures() == []
    # The noise is put in, the losses are compared beside the activations, and rawstat is the mean and variance of raw.
    rest = {"eps", "re", "kl", *(f"rawstat/{x}" for x in ("log_prob", "dmask", "dcomponents", "counterfactual"))}
    assert reference.unchecked() == rest


@pytest.mark.parametrize("name", TINY)
def test_four_updates(name):
    assert Reference(name, iodine_pl).failures_of_updates() == []


@pytest.mark.parametrize("name", FULL)
def test_full_size(name):
    if not (SHARED / f"{name}.npz").is_file():
        pytest.skip(f"{name}.npz (3 to 8 MB) is not shipped with the project")
    assert Reference(name, iodine_pl).failures() == []
