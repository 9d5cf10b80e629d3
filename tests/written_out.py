"""Writes out the likelihood of the mean and Muon, with autograd for every gradient, and names differences."""

import importlib
from itertools import product

import torch

CASES = list(product(["gaussian", "correlated", "logistic", "bernoulli"], [False, True], [1, 2, 4]))
CORRELATION = 0.7


def log_prob(name, scale, x, mean):
    """Sums the log density of ``x`` (B, C, H, W) about ``mean`` over the channels."""
    if name == "bernoulli":
        each = torch.distributions.Bernoulli(probs=mean).log_prob(x)
    elif name == "gaussian":
        each = torch.distributions.Normal(mean, scale).log_prob(x)
    elif name == "correlated":
        eye = torch.eye(x.shape[1], dtype=x.dtype)
        covariance = scale**2 * (eye + CORRELATION * (1 - eye))
        return torch.distributions.MultivariateNormal(mean.movedim(1, -1), covariance).log_prob(x.movedim(1, -1))
    else:
        base = torch.distributions.Uniform(torch.zeros((), dtype=x.dtype), torch.ones((), dtype=x.dtype))
        to_logistic = [torch.distributions.SigmoidTransform().inv, torch.distributions.AffineTransform(mean, scale)]
        each = torch.distributions.TransformedDistribution(base, to_logistic, validate_args=False).log_prob(x)
    return each.sum(1)


def likelihood_failures(package):
    """Compares the likelihood of the mean of a package with its definition, in float64."""
    distributions = importlib.import_module(f"{package.__name__}.distributions")
    mixture = importlib.import_module(f"{package.__name__}.mixture")
    decoder = importlib.import_module(f"{package.__name__}.decoder")
    torch.manual_seed(0)
    failures = []
    for name, bounded, slots in CASES:
        x = torch.rand(2, 3, 5, 6, dtype=torch.float64)
        x = x.round() if name == "bernoulli" else x
        scale = None if name == "bernoulli" else 0.2
        logits = torch.randn(2, slots, 5, 6, dtype=torch.float64, requires_grad=True)
        parameters = torch.randn(2, slots, 3, 5, 6, dtype=torch.float64, requires_grad=True)
        masks = (logits.exp() / logits.exp().sum(1, keepdim=True)).unsqueeze(2)
        means = 1 / (1 + (-parameters).exp()) if bounded or name == "bernoulli" else parameters

        def about_mean_of(some, name=name, scale=scale, x=x, masks=masks, means=means):
            return log_prob(name, scale, x, (masks[:, some] * means[:, some]).sum(1) / masks[:, some].sum(1))

        expected = {"log_prob": about_mean_of(list(range(slots)))}
        of_logits, of_parameters = torch.autograd.grad(-expected["log_prob"].sum(), (logits, parameters))
        without = [about_mean_of([j for j in range(slots) if j != k]) for k in range(slots)] if slots > 1 else []
        gain = expected["log_prob"].unsqueeze(1) - torch.stack(without, 1) if without else torch.zeros_like(logits)
        expected |= {"of logits": of_logits, "of parameters": of_parameters, "leave one out": gain}
        expected["reconstruction"] = (masks * means).sum(1)
        own = torch.stack([log_prob(name, scale, x, means[:, k]) for k in range(slots)], 1).exp() * masks[:, :, 0]
        expected["responsibilities"] = own / own.sum(1, keepdim=True)
        correlation = CORRELATION if name == "correlated" else 0.0
        kind = "gaussian" if correlation else name
        distribution = distributions.make_distribution(kind, scale, bounded, correlation)
        found = mixture.likelihood_of("mean", distribution)(x, decoder.Decoded(logits, parameters), distribution)
        gradients = found.nll_gradients()
        ours = {"log_prob": found.log_prob, "of logits": gradients[0], "of parameters": gradients[1]}
        ours |= {"leave one out": found.leave_one_out(), "reconstruction": found.reconstruction}
        ours["responsibilities"] = found.responsibilities
        failures += [
            f"{what} of {name}, {slots} slots, bounded {bounded}"
            for what, value in expected.items()
            if not torch.allclose(ours[what], value, rtol=1e-9, atol=1e-9)
        ]
    return failures


POLYNOMIALS = [
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
]


def by_singular_values(x, steps=3):
    """Applies Muon's polynomials to the singular values of a matrix, one by one."""
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    s = s / x.norm()
    for a, b, c in POLYNOMIALS[:steps]:
        s = a * s + b * s**3 + c * s**5
    return u @ torch.diag(s) @ vh


def muon_failures(package):
    """Compares four updates of Muon with its formula, in float64."""
    optim = importlib.import_module(f"{package.__name__}.optim")
    torch.manual_seed(0)
    shapes = [(4, 6), (8, 3), (6, 4), (5, 2, 3, 3), (7,), ()]
    parameters = [torch.nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in shapes]
    settings = {"momentum": 0.9, "weight_decay": 0.5, "betas": (0.8, 0.99), "eps": 1e-3}
    optimizer = optim.Muon(parameters, lr=0.01, adam_lr=0.02, **settings)
    expected = [p.detach().clone() for p in parameters[:4]]
    momenta = [torch.zeros_like(p) for p in expected]
    others = [torch.nn.Parameter(p.detach().clone()) for p in parameters[4:]]
    adam = optim.TFAdam(others, lr=0.02, betas=(0.8, 0.99), eps=1e-3)
    for _ in range(4):
        for p in parameters:
            p.grad = torch.randn_like(p)
        for other, p in zip(others, parameters[4:], strict=True):
            other.grad = p.grad.clone()
        for w, m, p in zip(expected, momenta, parameters, strict=False):
            m.mul_(0.9).add_(0.1 * p.grad)
            flat = (0.9 * m + 0.1 * p.grad).flatten(1)
            w *= 1 - 0.01 * 0.5
            w -= 0.01 * 0.2 * max(flat.shape) ** 0.5 * by_singular_values(flat).reshape(w.shape)
        optimizer.step()
        adam.step()
    return [
        str(tuple(p.shape))
        for p, w in zip(parameters, [*expected, *others], strict=True)
        if not torch.allclose(p, w, rtol=1e-9, atol=1e-9)
    ]
