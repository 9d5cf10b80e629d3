import math

import pytest
import torch

from iodine_pl.decoder import Decoded
from iodine_pl.mixture import PixelMixture, make_distribution

NAMES = ["logistic", "gaussian", "bernoulli"]


def mixture(name, slots=4, channels=3, scale=1.0, dtype=torch.float64):
    image = torch.rand(2, channels, 5, 6, dtype=dtype)
    if name == "bernoulli":
        image = image.round()
    decoded = Decoded(
        torch.randn(2, slots, 5, 6, dtype=dtype, requires_grad=True),
        (scale * torch.rand(2, slots, channels, 5, 6, dtype=dtype)).requires_grad_(),
    )
    return PixelMixture(image, decoded, make_distribution(name)), decoded


def test_densities_are_those_of_torch():
    x, m = torch.rand(7, dtype=torch.float64), torch.rand(7, dtype=torch.float64)
    gaussian = torch.distributions.Normal(m, 0.1).log_prob(x)
    torch.testing.assert_close(make_distribution("gaussian").log_prob(x, m), gaussian)
    bernoulli = torch.distributions.Bernoulli(logits=m).log_prob(x.round())
    torch.testing.assert_close(make_distribution("bernoulli").log_prob(x.round(), m), bernoulli)
    # the logistic density is the derivative of its distribution function, a sigmoid
    edge = x.clone().requires_grad_()
    (density,) = torch.autograd.grad(torch.sigmoid((edge - m) / 0.03).sum(), edge)
    torch.testing.assert_close(make_distribution("logistic").log_prob(x, m), density.log(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_likelihood_is_the_mixture_written_out(name):
    mix, decoded = mixture(name)
    p = mix.distribution.log_prob(mix.image, decoded.parameters).sum(2).exp()
    m = decoded.mask_logits.exp() / decoded.mask_logits.exp().sum(1, keepdim=True)
    torch.testing.assert_close(mix.log_prob.exp(), (m * p).sum(1))
    torch.testing.assert_close(mix.masks, m)
    torch.testing.assert_close(mix.mask_posterior(1e-6), p / (p.sum(1, keepdim=True) + 1e-6))
    for k in range(4):
        rest = [j for j in range(4) if j != k]
        without = (m[:, rest] * p[:, rest]).sum(1) / m[:, rest].sum(1)
        torch.testing.assert_close(mix.leave_one_out()[:, k], ((m * p).sum(1) / without).log(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("slots", [1, 2, 7])
def test_closed_form_gradients_are_those_of_autograd(name, slots):
    mix, decoded = mixture(name, slots)
    expected = torch.autograd.grad(mix.nll.sum(), decoded)
    for ours, autograd in zip(mix.nll_gradients(), expected, strict=True):
        torch.testing.assert_close(ours, autograd, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_a_pixel_that_every_slot_misses_by_far_stays_finite(name):
    mix, decoded = mixture(name, scale=1e6, dtype=torch.float32)
    assert float(mix.nll.detach().min()) > 1e3
    outputs = [mix.nll.sum() + mix.mask_posterior().sum(), *mix.nll_gradients(), mix.leave_one_out()]
    outputs += torch.autograd.grad(outputs[0], decoded)
    assert all(torch.isfinite(x).all() for x in outputs)


def test_leaving_out_the_only_slot_compares_with_nothing():
    mix, _ = mixture("logistic", slots=1)
    assert (mix.leave_one_out() == 0).all()


def test_leave_one_out_of_a_slot_that_owns_its_pixels():
    """Where slot 0 has all the mass, removing it costs its whole advantage, and removing another costs nothing."""
    image = torch.full((1, 3, 1, 1), 0.5, dtype=torch.float64)
    logits = torch.tensor([50.0, 0.0, 0.0], dtype=torch.float64).view(1, 3, 1, 1)
    means = torch.tensor([0.5, 0.9, 0.9], dtype=torch.float64).view(1, 3, 1, 1, 1).expand(1, 3, 3, 1, 1)
    gain = PixelMixture(image, Decoded(logits, means), make_distribution("gaussian")).leave_one_out().flatten()
    assert math.isclose(float(gain[0]), 3 * 0.5 * (0.4 / 0.1) ** 2, rel_tol=1e-9)
    torch.testing.assert_close(gain[1:], torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "scale", "words"),
    [("logistic", 0.0, "positive"), ("bernoulli", 0.1, "no scale"), ("cauchy", None, "'cauchy'")],
)
def test_wrong_distribution_is_refused(name, scale, words):
    with pytest.raises(ValueError, match=words):
        make_distribution(name, scale)
