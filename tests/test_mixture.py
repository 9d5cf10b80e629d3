import math

import pytest
import torch
from written_out import likelihood_failures

import iodine_pl
from iodine_pl.decoder import Decoded
from iodine_pl.distributions import Bounded, make_distribution
from iodine_pl.mixture import PixelMixture, likelihood_of

NAMES = ["logistic", "gaussian", "bernoulli"]
LIKELIHOODS = ["mixture", "mean"]


def mixture(name, slots=4, channels=3, scale=1.0, dtype=torch.float64, likelihood="mixture", bounded=False):
    image = torch.rand(2, channels, 5, 6, dtype=dtype)
    if name == "bernoulli":
        image = image.round()
    decoded = Decoded(
        torch.randn(2, slots, 5, 6, dtype=dtype, requires_grad=True),
        (scale * torch.rand(2, slots, channels, 5, 6, dtype=dtype)).requires_grad_(),
    )
    distribution = make_distribution(name, bounded=bounded)
    return likelihood_of(likelihood, distribution)(image, decoded, distribution), decoded


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


def test_likelihood_of_the_mean_is_its_definition():
    assert not likelihood_failures(iodine_pl)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("name", NAMES)
def test_responsibilities_and_mask_posterior_are_those_of_the_slots_own_densities(name, likelihood):
    mix, decoded = mixture(name, likelihood=likelihood)
    p = mix.distribution.log_prob(mix.image, decoded.parameters).sum(2).exp()
    m = decoded.mask_logits.softmax(1)
    torch.testing.assert_close(mix.responsibilities, m * p / (m * p).sum(1, keepdim=True))
    torch.testing.assert_close(mix.mask_posterior(1e-6), p / (p.sum(1, keepdim=True) + 1e-6))


def test_hedging_pays_only_under_the_mixture():
    """A pixel is black or red with equal probability: two slots share it, or one slot shows the average."""
    red, black, both = torch.tensor([1.0, 0, 0]), torch.zeros(3), torch.tensor([0.5, 0, 0])
    flat, one = torch.zeros(2, 2, 1, 1), torch.tensor([99.0, 0]).expand(2, 2).reshape(2, 2, 1, 1)
    images = torch.stack([red, black]).view(2, 3, 1, 1)
    nll = {}
    for likelihood in LIKELIHOODS:
        distribution = make_distribution("gaussian", 0.2)
        kind = likelihood_of(likelihood, distribution)
        for way, logits, means in (("hedge", flat, (red, black)), ("average", one, (both, both))):
            decoded = Decoded(logits, torch.stack(means).expand(2, 2, 3).reshape(2, 2, 3, 1, 1))
            nll[likelihood, way] = float(kind(images, decoded, distribution).nll.mean())
    assert nll["mixture", "hedge"] < nll["mixture", "average"] - 2.0
    assert nll["mean", "hedge"] == pytest.approx(nll["mean", "average"])


def test_with_one_binary_channel_both_likelihoods_are_the_same():
    torch.manual_seed(0)
    one, decoded = mixture("bernoulli", channels=1)
    other = likelihood_of("mean", one.distribution)(one.image[:, 0], decoded, one.distribution)
    torch.testing.assert_close(other.log_prob, one.log_prob)
    torch.testing.assert_close(other.leave_one_out(), one.leave_one_out())
    for mine, its in zip(other.nll_gradients(), one.nll_gradients(), strict=True):
        torch.testing.assert_close(mine, its)


@pytest.mark.parametrize("name", ["logistic", "gaussian"])
def test_bounded_means_are_sigmoids(name):
    x, parameter = torch.rand(7).double(), torch.randn(7).double().requires_grad_()
    bounded, free = make_distribution(name, 0.2, bounded=True), make_distribution(name, 0.2)
    mean = torch.sigmoid(parameter)
    torch.testing.assert_close(bounded.mean(parameter), mean)
    torch.testing.assert_close(bounded.log_prob(x, parameter), free.log_prob(x, mean))
    (slope,) = torch.autograd.grad(free.log_prob(x, mean).sum(), parameter)
    torch.testing.assert_close(bounded.score(x, parameter), slope)
    assert not isinstance(make_distribution("bernoulli", bounded=True), Bounded)  # its mean is a sigmoid already


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("slots", [1, 2, 7])
def test_closed_form_gradients_are_those_of_autograd(name, slots, likelihood, bounded):
    mix, decoded = mixture(name, slots, likelihood=likelihood, bounded=bounded)
    expected = torch.autograd.grad(mix.nll.sum(), decoded)
    for ours, autograd in zip(mix.nll_gradients(), expected, strict=True):
        torch.testing.assert_close(ours, autograd, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("name", NAMES)
def test_a_pixel_that_every_slot_misses_by_far_stays_finite(name, likelihood):
    mix, decoded = mixture(name, scale=1e6, dtype=torch.float32, likelihood=likelihood)
    assert float(mix.nll.detach().min()) > 1e3
    outputs = [mix.nll.sum() + mix.mask_posterior().sum(), *mix.nll_gradients(), mix.leave_one_out()]
    outputs += torch.autograd.grad(outputs[0], decoded)
    assert all(torch.isfinite(x).all() for x in outputs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_leaving_out_the_only_slot_compares_with_nothing(name, likelihood):
    mix, _ = mixture(name, slots=1, likelihood=likelihood)
    assert (mix.leave_one_out() == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_leaving_out_the_slot_that_has_all_mask_stays_finite(name):
    """The masks of the other slots are zero in float32, so what they would show is unknown."""
    distribution = make_distribution(name)
    logits = torch.tensor([500.0, 0.0, 0.0]).view(1, 3, 1, 1)
    decoded = Decoded(logits, torch.rand(1, 3, 3, 1, 1))
    mix = likelihood_of("mean", distribution)(torch.ones(1, 3, 1, 1), decoded, distribution)
    assert torch.isfinite(mix.leave_one_out()).all()


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


def test_other_likelihoods_are_refused():
    with pytest.raises(ValueError, match="must be 'mixture' or 'mean', got 'median'"):
        likelihood_of("median", make_distribution("gaussian"))
