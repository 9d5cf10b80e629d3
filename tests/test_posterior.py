import math

import torch
from torch.distributions import Independent, Normal, kl_divergence

from iodine_pl.posterior import PRIOR_SCALE, Posterior


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
