import math

import pytest
import torch
from torch import nn

from iodine_pl.layers import Linear, LSTMCell, SameConv2d, StoppedLayerNorm, mlp, same_padding


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (64, 5, 2, (1, 2)),
        (35, 5, 2, (2, 2)),
        (18, 5, 2, (1, 2)),
        (9, 5, 2, (2, 2)),
        (128, 3, 2, (0, 1)),
        (7, 3, 1, (1, 1)),
    ],
)
def test_same_padding_of_tensorflow(size, kernel, stride, expected):
    assert same_padding(size, kernel, stride) == expected


@pytest.mark.parametrize("shape", [(12, 15), (11, 14), (5, 5)])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_with_asymmetric_padding(shape, stride):
    conv = SameConv2d(2, 3, 5, stride).double()
    x = torch.randn(2, 2, *shape, dtype=torch.float64)
    out = conv(x)
    assert out.shape[-2:] == tuple(math.ceil(n / stride) for n in shape)
    # one output at a time, by definition: the window of output i begins at i * stride - before
    for row in range(out.shape[2]):
        for column in range(out.shape[3]):
            expected = conv.bias.clone()
            for i in range(5):
                for j in range(5):
                    y = row * stride - same_padding(shape[0], 5, stride)[0] + i
                    z = column * stride - same_padding(shape[1], 5, stride)[0] + j
                    if 0 <= y < shape[0] and 0 <= z < shape[1]:
                        expected = expected + x[0, :, y, z] @ conv.weight[:, :, i, j].T
            torch.testing.assert_close(out[0, :, row, column], expected)


def test_lstm_is_torchs_with_reordered_gates():
    ours, theirs = LSTMCell(3, 4).double(), nn.LSTMCell(3, 4).double()
    i, j, f, o = ours.gates.weight.data.chunk(4)
    bi, bj, bf, bo = ours.gates.bias.data.chunk(4)
    theirs.weight_ih.data, theirs.weight_hh.data = torch.cat([i, f, j, o]).split([3, 4], dim=1)
    theirs.bias_ih.data, theirs.bias_hh.data = torch.cat([bi, bf + 1.0, bj, bo]), torch.zeros(16, dtype=torch.float64)
    state, expected = (), None
    for _ in range(3):
        x = torch.randn(5, 3, dtype=torch.float64)
        state, expected = ours(x, state), theirs(x, expected)
        torch.testing.assert_close(state, expected)


def test_layer_norm_is_group_norm_of_one_group_and_stops_gradients():
    for shape in ((6, 3, 4, 5), (6, 3)):
        norm, other = StoppedLayerNorm(3).double(), nn.GroupNorm(1, 3).double()
        norm.weight.data.normal_()
        norm.bias.data.normal_()
        other.load_state_dict(norm.state_dict())
        x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        torch.testing.assert_close(norm(x), other(x))
        norm(x).square().sum().backward()
        assert x.grad is None
        assert norm.weight.grad.abs().min() > 0


def test_initial_values():
    linear, conv, lstm = Linear(400, 500), SameConv2d(16, 64, 5), LSTMCell(300, 100)
    for weight, fan_in in ((linear.weight, 400), (conv.weight, 400), (lstm.gates.weight, 400), (lstm.gates.bias, 400)):
        limit = 2.0 / math.sqrt(fan_in)
        assert float(weight.detach().abs().max()) <= limit
        if weight.numel() > 1000:
            assert math.isclose(float(weight.detach().std()), 0.8796 / math.sqrt(fan_in), rel_tol=0.02)
    assert (linear.bias == 0).all()
    assert (conv.bias == 0).all()


def test_mlp_has_nothing_after_its_last_layer():
    assert [type(layer).__name__ for layer in mlp(3, (4, 5))] == ["Linear", "ELU", "Linear"]
    assert [type(layer).__name__ for layer in mlp(3, (4,))] == ["Linear"]
