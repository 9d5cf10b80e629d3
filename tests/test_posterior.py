import math

import torch
from torch.distributions import Independent, Normal, kl_divergence

from iodine_pl.posterior import PRIOR_SCALE, Posterior, keyed_normal


def test_kl_and_sample_agree_with_torch_distributions():
    parameters = torch.randn(3, 4, 10, dtype=torch.float64) * 3
    q = Posterior(parameters)
    normal = Independent(Normal(q.mean, q.std), 1)
    for scale in (PRIOR_SCALE, 1.0, 0.3):
        prior = Independent(Normal(torch.zeros_like(q.mean), scale * torch.ones_like(q.std)), 1)
        torch.testing.assert_close(q.kl(scale), kl_divergence(normal, prior), rtol=1e-12, atol=1e-12)
    noise = torch.randn(3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(q.rsample(noise), q.mean + q.std * noise, rtol=0, atol=0)


def test_default_prior_is_the_posterior_of_zeros():
    q = Posterior(torch.zeros(2, 3, 8, dtype=torch.float64))
    assert math.isclose(PRIOR_SCALE, 0.832555, abs_tol=1e-6)
    torch.testing.assert_close(q.kl(), torch.zeros(2, 3, dtype=torch.float64), rtol=0, atol=1e-14)


def test_noise_is_a_function_of_its_key():
    first = keyed_normal((3, 4), 1, 2, 3)
    torch.rand(5)
    assert torch.equal(first, keyed_normal((3, 4), 1, 2, 3))
    others = [keyed_normal((3, 4), *key) for key in ((1, 2, 4), (1, 3, 3), (2, 2, 3), (1, 2), (3, 2, 1))]
    assert all(not torch.equal(first, other) for other in others)


def test_noise_does_not_touch_the_global_generator():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    keyed_normal((2,), 1)
    assert torch.equal(torch.rand(3), expected)


def test_noise_is_standard_normal():
    x = keyed_normal((100_000,), 7)
    assert abs(float(x.mean())) < 0.02
    assert abs(float(x.std()) - 1) < 0.02
