"""The ways that save work give the numbers of the plain form, and every parameter's gradient, in float64."""

import weakref

import pytest
import torch
from plain import PlainIODINE
from test_iodine import SMALL

from iodine_pl import IODINE
from iodine_pl.layers import SameConv2d
from iodine_pl.partly_shared import convolve_broadcast, convolve_shared


class Held:
    """A tensor that waits for the backward pass."""

    def __init__(self, tensor):
        self.tensor = tensor


NETWORKS = {
    "linear, LSTM": {"lstm_size": 7, "coordinates": "linear", "decoder_kernel": 3, "encoder_kernel": 3},
    "cosine, no LSTM": {"decoder_kernel": 5, "encoder_kernel": 5},
    "Bernoulli, one channel": {"image_channels": 1, "pixel_distribution": "bernoulli"},
    "one slot": {"num_slots": 1, "pixel_scale": 0.3},
    "even kernel": {"decoder_kernel": 4, "pixel_distribution": "gaussian"},
    "batch size fixed": {"batch_size": 7},
}


@pytest.mark.parametrize("input_gradients", ["full", "stopped"])
@pytest.mark.parametrize("name", NETWORKS)
def test_loss_and_gradients_are_those_of_the_plain_form(name, input_gradients):
    settings = SMALL | NETWORKS[name] | {"input_gradients": input_gradients}
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


def test_stopped_inputs_change_no_activation():
    full, stopped = IODINE(**SMALL).double(), IODINE(**SMALL, input_gradients="stopped").double()
    stopped.load_state_dict(full.state_dict())
    images = torch.rand(2, 3, 11, 14, dtype=torch.float64)
    noise = torch.randn(full.noise_shape(2), dtype=torch.float64)
    (loss, result), (other, others) = full.loss(images, noise=noise), stopped.loss(images, noise=noise)
    torch.testing.assert_close(other, loss, rtol=1e-12, atol=0)
    for mine, theirs in zip(result.trace, others.trace, strict=True):
        torch.testing.assert_close(theirs, mine, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(stopped(images, noise=noise).masks, full(images, noise=noise).masks)


def waiting_bytes(**arguments):
    """Returns the size of what waits for the backward pass."""
    model = IODINE(**(SMALL | {"decoder_channels": (32, 32, 32, 32)} | arguments))
    held = weakref.WeakSet()

    def hold(tensor):
        holder = Held(tensor)
        held.add(holder)
        return holder

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda holder: holder.tensor):
        loss, _ = model.loss(torch.rand(2, 3, 24, 24))
        storages = [holder.tensor.untyped_storage() for holder in held]
        loss.backward()
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def test_stopped_inputs_keep_no_activation_of_the_decoder():
    """What a further step adds is the refinement network's, and the decoder's gradient in place of its activations."""
    growth = {
        mode: waiting_bytes(num_iterations=8, input_gradients=mode)
        - waiting_bytes(num_iterations=3, input_gradients=mode)
        for mode in ("full", "stopped")
    }
    assert growth["stopped"] < 0.4 * growth["full"]


def test_stopped_inputs_need_one_weight_for_all_images():
    model = IODINE(**SMALL, input_gradients="stopped")
    result = model(torch.rand(2, 3, 9, 9))
    with pytest.raises(RuntimeError, match="every image must have the same weight"):
        (result.nll * torch.tensor([1.0, 2.0])).sum().backward()


def test_other_input_gradients_are_refused():
    with pytest.raises(ValueError, match="must be 'full' or 'stopped', got 'none'"):
        IODINE(**SMALL, input_gradients="none")


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
