import torch

from iodine_pl.posterior import keyed_normal


def test_is_a_function_of_its_key():
    first = keyed_normal((3, 4), 1, 2, 3)
    torch.rand(5)
    assert torch.equal(first, keyed_normal((3, 4), 1, 2, 3))
    others = [keyed_normal((3, 4), *key) for key in ((1, 2, 4), (1, 3, 3), (2, 2, 3), (1, 2), (3, 2, 1))]
    assert all(not torch.equal(first, other) for other in others)


def test_does_not_touch_the_global_generator():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    keyed_normal((2,), 1)
    assert torch.equal(torch.rand(3), expected)


def test_is_standard_normal():
    x = keyed_normal((100_000,), 7)
    assert abs(float(x.mean())) < 0.02
    assert abs(float(x.std()) - 1) < 0.02
