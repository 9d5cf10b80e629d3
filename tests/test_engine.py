"""The ways that save work give the numbers of the plain form, and every parameter's gradient, in float64."""

import pytest
import torch
from plain import PlainIODINE
from test_iodine import SMALL

from iodine_pl import IODINE
from iodine_pl.layers import SameConv2d
from iodine_pl.partly_shared import convolve_broadcast, convolve_shared

NETWORKS = {
    "linear, LSTM": {"lstm_size": 7, "coordinates": "linear", "decoder_kernel": 3, "encoder_kernel": 3},
    "cosine, no LSTM": {"decoder_kernel": 5, "encoder_kernel": 5},
    "Bernoulli, one channel": {"image_channels": 1, "pixel_distribution": "bernoulli"},
    "one slot": {"num_slots": 1, "pixel_scale": 0.3},
    "even kernel": {"decoder_kernel": 4, "pixel_distribution": "gaussian"},
    "batch size fixed": {"batch_size": 7},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_and_gradients_are_those_of_the_plain_form(name):
    settings = SMALL | NETWORKS[name]
    model = IODINE(**settings).double()
    plain = PlainIODINE(**settings).double()
    plain.load_state_dict(model.state_dict())
    channels = settings.get("image_channels", 3)
    images = torch.rand(2, channels, 11, 14, dtype=torch.float64).round(decimals=0 if channels == 1 else 3)
    noise = torch.randn(model.noise_shape(2), dtype=torch.float64)
    loss, result = model.loss(images, noise=noise)
    expected, plainly = plain.loss(images, noise=noise)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(result.masks, plainly.masks, rtol=1e-9, atol=1e-12)
    loss.backward()
    expected.backward()
    for (parameter_name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        error = (ours.grad - theirs.grad).norm() / theirs.grad.norm().clamp(min=1e-6)
        assert error < 1e-9, parameter_name


@pytest.mark.parametrize("kernel", [1, 3, 4, 5])
@pytest.mark.parametrize("size", [(7, 9), (2, 3), (1, 1)])
def test_a_vector_at_every_pixel(kernel, size):
    convolution = SameConv2d(5 + 2, 4, kernel).double()
    vectors = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    fixed = torch.randn(1, 2, *size, dtype=torch.float64)
    copied = vectors[..., None, None].expand(-1, -1, *size)
    expected = convolution(torch.cat([copied, fixed.expand(3, -1, -1, -1)], dim=1))
    torch.testing.assert_close(convolve_broadcast(convolution, vectors, fixed), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_channels_that_all_slots_share(stride):
    convolution = SameConv2d(6, 4, 5, stride).double()
    shared, own = torch.randn(2, 2, 8, 9, dtype=torch.float64), torch.randn(6, 4, 8, 9, dtype=torch.float64)
    whole = torch.empty(6, 6, 8, 9, dtype=torch.float64)
    whole[:, [1, 4]] = shared.repeat_interleave(3, dim=0)
    whole[:, [0, 2, 3, 5]] = own
    ours = convolve_shared(convolution, own, shared, [1, 4])
    torch.testing.assert_close(ours, convolution(whole), rtol=1e-12, atol=1e-12)
