"""All modes of the engine give the loss and the gradients of the plain form, in float64."""

import gc
import weakref

import pytest
import torch
from helpers import SMALL
from plain import PlainIODINE
from train_in_double import MODES

from iodine_pl import IODINE
from iodine_pl.layers import SameConv2d


class Held:
    """A tensor that is kept for the backward pass."""

    def __init__(self, tensor):
        self.tensor = tensor


NETWORKS = {
    "linear, LSTM": {"lstm_size": 7, "coordinates": "linear", "decoder_kernel": 3, "encoder_kernel": 3},
    "cosine, no LSTM": {"decoder_kernel": 5, "encoder_kernel": 5},
    "Bernoulli, one channel": {"image_channels": 1, "pixel_distribution": "bernoulli"},
    "one slot": {"num_slots": 1, "pixel_scale": 0.3},
    "even kernel": {"decoder_kernel": 4, "pixel_distribution": "gaussian"},
    "batch size fixed": {"batch_size": 7},
    "inner batch size fixed": {"batch_size": 7, "inner_batch_size": 14},
    "mean, normal": {"pixel_likelihood": "mean", "pixel_distribution": "gaussian", "bounded_means": True},
    "mean, correlated": {"pixel_likelihood": "mean", "pixel_distribution": "gaussian", "channel_correlation": 0.6},
    "mixture, correlated": {"pixel_distribution": "gaussian", "pixel_scale": 0.3, "channel_correlation": 0.6},
    "mean, logistic, not bounded": {"pixel_likelihood": "mean", "pixel_scale": 0.3},
    "mean, one slot": {"pixel_likelihood": "mean", "pixel_scale": 0.3, "bounded_means": True, "num_slots": 1},
    "mean, Bernoulli": {"pixel_likelihood": "mean", "pixel_distribution": "bernoulli"},
    "mixture, bounded": {"bounded_means": True, "pixel_scale": 0.3},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NETWORKS)
def test_loss_and_gradients_equal_the_plain_form(name, mode):
    settings = SMALL | NETWORKS[name] | MODES[mode]
    model = IODINE(**settings).double()
    with torch.no_grad():
        for parameter in model.parameters():  # gains of one and biases of zero would hide mistakes
            parameter += 0.1 * torch.randn_like(parameter)
    plain = PlainIODINE(**settings).double()
    plain.load_state_dict(model.state_dict())
    channels = settings.get("image_channels", 3)
    images = torch.rand(2, channels, 11, 14, dtype=torch.float64)
    if settings.get("pixel_distribution") == "bernoulli":
        images = images.round()
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


def waiting_bytes(iterations, **arguments):
    """Returns the size in bytes of what is kept for the backward pass."""
    model = IODINE(**SMALL | arguments)
    held = weakref.WeakSet()

    def hold(tensor):
        holder = Held(tensor)
        held.add(holder)
        return holder

    model.num_iterations = iterations
    with torch.autograd.graph.saved_tensors_hooks(hold, lambda holder: holder.tensor):
        loss, _ = model.loss(torch.rand(2, 3, 24, 24))
        storages = [holder.tensor.untyped_storage() for holder in held]
        loss.backward()
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def growth(mode, **arguments):
    return waiting_bytes(9, **MODES[mode] | arguments) - waiting_bytes(3, **MODES[mode] | arguments)


@pytest.mark.parametrize("mode", ["recompute", "stopped, recompute"])
def test_no_activation_waits_for_the_end(mode):
    assert growth(mode) < 0.01 * growth("full")


def test_with_stopped_inputs_no_activation_of_the_decoder_waits():
    small, large = {"decoder_channels": (4,)}, {"decoder_channels": (16, 16, 16)}
    assert growth("stopped", **large) == growth("stopped", **small)
    assert growth("full", **large) > 2 * growth("full", **small)


@pytest.mark.parametrize("mode", MODES)
def test_an_update_leaves_nothing_for_the_garbage_collector(mode):
    """Otherwise the memory of several updates would pile up before it runs."""
    model, images = IODINE(**SMALL | MODES[mode]), torch.rand(2, 3, 9, 9)

    def image_sized():
        return [x for x in gc.get_objects() if type(x) is torch.Tensor and x.shape[-2:] == (9, 9)]

    gc.collect()
    gc.disable()
    try:
        left = []
        for _ in range(2):
            loss, result = model.loss(images)
            loss.backward()
            del loss, result
            left.append(len(image_sized()))
        assert left[0] == left[1] < 10  # the images, and constants of their size
    finally:
        gc.enable()


def test_evaluation_keeps_the_activations_of_one_step():
    """The decoder's last activation of the step before is gone when a step begins."""
    model = IODINE(**SMALL)
    alive = []

    def watch(_module, _inputs, output):
        assert all(reference() is None for reference in alive), "an activation outlived its step"
        alive.append(weakref.ref(output))

    model.decoder.hidden[-2].register_forward_hook(watch)
    with torch.no_grad():
        model(torch.rand(2, 3, 12, 12), num_iterations=4)
    assert len(alive) == 5


@pytest.mark.parametrize(
    "weigh",
    [
        lambda trace: (trace.nll[-1] * torch.tensor([1.0, 2.0])).sum(),
        lambda trace: trace.nll[-1].sum(),
        lambda trace: trace.nll.sum(),
    ],
    ids=["other images", "the last step alone", "all steps alike"],
)
def test_stopped_inputs_need_the_weights_of_the_loss(weigh):
    trace = IODINE(**SMALL, input_gradients="stopped")(torch.rand(2, 3, 9, 9)).trace
    with pytest.raises(RuntimeError, match="the weights t/T of the refinement steps"):
        weigh(trace).backward()


def of_every_field(result):
    """Returns a loss that every field of the last state and of the first has a part in, and the trace's error."""
    fields = ("mean", "std", "latents", "masks", "means", "reconstruction", "kl", "responsibilities")
    states = (result, result.steps[0])
    return result.trace.mse.sum() + sum((getattr(state, name) ** 3).sum() for state in states for name in fields)


@pytest.mark.parametrize("mode", MODES)
def test_a_loss_of_every_field(mode):
    settings = SMALL | MODES[mode]
    model, plain = IODINE(**settings).double(), PlainIODINE(**settings).double()
    plain.load_state_dict(model.state_dict())
    images, noise = torch.rand(2, 3, 9, 9), torch.randn(model.noise_shape(2), dtype=torch.float64)
    for each in (model, plain):
        result = each(images, noise=noise, return_steps=True, graph=True)
        (each.objective(result.trace) + of_every_field(result)).backward()
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert (ours.grad - theirs.grad).norm() < 1e-9 * theirs.grad.norm(), name


@pytest.mark.parametrize("field", ["masks", "means", "reconstruction", "responsibilities", "mse"])
@pytest.mark.parametrize("mode", MODES)
def test_a_loss_of_a_field_without_a_graph_raises(mode, field):
    model, images = IODINE(**SMALL | MODES[mode]), torch.rand(2, 3, 9, 9)
    result = model(images)
    loss = model.objective(result.trace) + getattr(result.trace if field == "mse" else result, field).square().sum()
    if mode == "full":
        loss.backward()
    else:
        with pytest.raises(RuntimeError, match="call the model with graph=True, or take nll from its trace"):
            loss.backward()
    assert not model.eval()(images).masks.requires_grad or mode == "full"  # so that a user may draw them


@pytest.mark.parametrize("mode", MODES)
def test_frozen_parts_get_no_gradient_and_the_others_the_same(mode):
    gradients = {}
    for frozen in (True, False):
        torch.manual_seed(3)
        model = IODINE(**SMALL | MODES[mode]).double()
        model.decoder.requires_grad_(not frozen)
        model.initial_posterior.requires_grad_(not frozen)
        loss, _ = model.loss(torch.rand(2, 3, 9, 9))
        loss.backward()
        gradients[frozen] = dict(model.named_parameters())
    for name, parameter in gradients[True].items():
        if name.startswith("refinement."):
            torch.testing.assert_close(parameter.grad, gradients[False][name].grad, rtol=1e-9, atol=1e-12)
        else:
            assert parameter.grad is None


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
    torch.testing.assert_close(convolution.convolve_broadcast(vectors, fixed), expected, rtol=1e-12, atol=1e-12)
