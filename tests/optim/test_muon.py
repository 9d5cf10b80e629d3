import pytest
import torch
from helpers import small
from written_out import by_singular_values, muon_failures

import iodine_pl
from iodine_pl import IODINE
from iodine_pl.optim import COEFFICIENTS, Muon, orthogonalized

SHAPES = [(4, 6), (8, 3), (6, 4), (5, 2, 3, 3), (7,), ()]


@pytest.mark.parametrize("shape", [(3, 3), (3, 9), (1, 5)])
@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_iterates_the_polynomial_of_the_singular_values(shape, steps):
    x = torch.randn(2, *shape, dtype=torch.float64)
    expected = torch.stack([by_singular_values(matrix, steps) for matrix in x])
    torch.testing.assert_close(orthogonalized(x, COEFFICIENTS[:steps]), expected, rtol=1e-9, atol=1e-9)


def test_singular_values_come_near_one_and_float32_is_enough():
    torch.manual_seed(0)
    x = torch.randn(1, 64, 256) * torch.logspace(0, -2, 64)[:, None]
    values = torch.linalg.svdvals(orthogonalized(x))
    assert 0.1 < float(values.min()) < float(values.max()) < 1.9
    exact = orthogonalized(x.double())
    assert (orthogonalized(x) - exact).norm() < 1e-4 * exact.norm()


def test_no_gradient_is_no_update():
    assert (orthogonalized(torch.zeros(1, 3, 4)) == 0).all()


def test_muon_is_the_formula_for_matrices_and_adam_otherwise():
    assert not muon_failures(iodine_pl)


def test_the_memory_format_does_not_matter():
    torch.manual_seed(0)
    plain = torch.nn.Parameter(torch.randn(4, 3, 5, 5))
    last = torch.nn.Parameter(plain.detach().clone(memory_format=torch.channels_last))
    gradient = torch.randn_like(plain)
    for p in (plain, last):
        p.grad = gradient.clone(memory_format=torch.channels_last if p is last else torch.contiguous_format)
        Muon([p], lr=0.1).step()
    torch.testing.assert_close(last, plain)
    assert last.is_contiguous(memory_format=torch.channels_last)


def test_passes_over_a_parameter_without_gradient():
    still, moved = torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(2, 3))
    optimizer = Muon([still, moved], lr=0.1)
    moved.grad = torch.randn(2, 3)
    optimizer.step()
    assert (still == 1).all()
    assert still not in optimizer.state
    assert (moved != 1).any()


def test_the_closure_sees_every_parameter():
    """Lightning clips gradients by value in the closure, through the optimizer's groups."""
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    optimizer = Muon(parameters, lr=0.1)

    def closure():
        loss = sum(p.square().sum() for group in optimizer.param_groups for p in group["params"])
        loss.backward()
        return loss

    before = sum(float(p.detach().square().sum()) for p in parameters)
    assert optimizer.step(closure).item() == pytest.approx(before)
    assert all(p.grad is not None for p in parameters)


def test_a_skipped_update_exchanges_nothing():
    """There is no process group, so an exchange would raise."""
    still = torch.nn.Parameter(torch.ones(2, 3))
    Muon([still], shared=True).step()
    assert (still == 1).all()


def test_resumes_from_its_state():
    runs = []
    for stop in (None, 2):
        torch.manual_seed(1)
        parameters = [torch.nn.Parameter(torch.ones(shape)) for shape in SHAPES]
        optimizer = Muon(parameters, lr=0.1)
        for t in range(4):
            if t == stop:
                state = optimizer.state_dict()
                optimizer = Muon(parameters, lr=0.3)
                optimizer.load_state_dict(state)
            for p in parameters:
                p.grad = torch.randn_like(p)
            optimizer.step()
        runs.append([p.detach().clone() for p in parameters])
    for one, two in zip(*runs, strict=True):
        assert torch.equal(one, two)


def test_the_model_scales_both_rates_and_lets_both_fall():
    rates = {"learning_rate": 4e-3, "adam_learning_rate": 1e-3, "batch_size": 4, "reference_batch_size": 16}
    model = IODINE(optimizer="muon", weight_decay=0.1, **rates)
    made = model.configure_optimizers()
    matrices, others = made["optimizer"].param_groups
    assert all(p.ndim >= 2 for p in matrices["params"])
    assert all(p.ndim < 2 for p in others["params"])
    assert len(matrices["params"]) + len(others["params"]) == len(list(model.parameters()))
    assert (matrices["lr"], others["lr"]) == (2e-3, 5e-4)
    assert others["betas"] == (0.95, 0.999)
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.1, 0)
    small_model = IODINE(optimizer="muon", learning_rate=4e-3).configure_optimizers()["optimizer"]
    assert [group["lr"] for group in small_model.param_groups] == [4e-3, 4e-3]


def test_the_cosine_ends_at_zero():
    schedule = IODINE(decay="cosine", decay_steps=100).configure_optimizers()["lr_scheduler"]["scheduler"]
    (left,) = schedule.lr_lambdas
    assert [left(step) for step in (0, 50, 100, 101)] == pytest.approx([1.0, 0.5, 0.0, 0.0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"optimizer": "sgd"}, "'tf_adam', 'adam' or 'muon', got 'sgd'"),
        ({"adam_learning_rate": 1e-3}, "for optimizer='muon'"),
        ({"weight_decay": 0.1}, "for optimizer='muon', got it for 'tf_adam'"),
        ({"optimizer": "muon", "weight_decay": -0.1}, "weight_decay"),
        ({"decay": "linear"}, "'exponential' or 'cosine', got 'linear'"),
    ],
)
def test_wrong_settings_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        small(**arguments)
