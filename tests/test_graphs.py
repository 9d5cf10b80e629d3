"""A recorded loss equals the plain one. Only a GPU can record, so here the same code runs again instead."""

import copy
import pickle

import pytest
import pytorch_lightning as pl
import torch
from helpers import SMALL, fit, small
from train_in_double import MODES

from iodine_pl import IODINE, graphs


class Rerun:
    """Repeats the recorded code, and writes the results where the recording wrote them."""

    def __init__(self, run):
        self.run = run
        self.written = run()

    def replay(self):
        with torch.no_grad():
            for old, new in zip(_tensors(self.written), _tensors(self.run()), strict=True):
                old.copy_(new)


def _tensors(written):
    fields = [x for x in written.result if isinstance(x, torch.Tensor)]
    return [written.loss, *(g for g in written.gradients if g is not None), *fields, *written.result.trace]


@pytest.fixture
def recorded(monkeypatch):
    """Makes a CPU record; the list gets an entry for each recording."""
    made = []

    def captured(run, device):
        made.append(Rerun(run))
        return made[-1], made[-1].written

    monkeypatch.setattr(graphs.Recordings, "possible_on", lambda self, device: True)
    monkeypatch.setattr(graphs, "_captured", captured)
    return made


def pair(**arguments):
    """Returns a model that records and one that does not, in float64, with the same weights."""
    models = [IODINE(**SMALL | arguments, cuda_graphs=recording).double() for recording in (True, False)]
    models[0].load_state_dict(models[1].state_dict())
    return models


def inputs(model, count=2):
    return torch.rand(count, 3, 8, 10).double(), torch.randn(model.noise_shape(count)).double()


@pytest.mark.parametrize("mode", MODES)
def test_loss_gradients_and_result_equal_those_without_graphs(mode, recorded):
    ours, theirs = pair(**MODES[mode])
    for _ in range(3):
        images, noise = inputs(ours)
        (loss, result), (expected, expected_result) = (each.loss(images, noise=noise) for each in (ours, theirs))
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(result.trace.nll, expected_result.trace.nll)
        torch.testing.assert_close(result.means, expected_result.means)
        for each, value in ((ours, loss), (theirs, expected)):
            each.zero_grad()
            (3.0 * value).backward()
        for (name, p), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p.grad, other.grad, msg=name)
        with torch.no_grad():
            for p in (*ours.parameters(), *theirs.parameters()):
                p.mul_(0.9)
    assert len(recorded) == 1


def test_a_returned_loss_is_not_changed_by_the_next(recorded):
    model, _ = pair()
    loss, result = model.loss(inputs(model)[0])
    value, masks = loss.item(), result.masks.clone()
    model.loss(inputs(model)[0])
    assert loss.item() == value
    torch.testing.assert_close(result.masks, masks, rtol=0, atol=0)


def test_each_shape_and_precision_is_recorded_once(recorded):
    model, _ = pair()
    for count in (2, 1, 2):
        model.loss(inputs(model, count)[0])
    assert len(recorded) == 2
    model.float()  # its parameters move
    model.loss(torch.rand(2, 3, 8, 10))
    assert len(recorded) == 3
    with torch.autocast("cpu", torch.bfloat16):
        model.loss(torch.rand(2, 3, 8, 10))
    assert len(recorded) == 4


def test_a_gradient_that_the_next_loss_has_written_over_is_refused(recorded):
    model, _ = pair()
    first, _ = model.loss(inputs(model)[0])
    model.loss(inputs(model)[0])
    with pytest.raises(RuntimeError, match=r"another has been computed since this one: call backward\(\) first"):
        first.backward()


def test_a_frozen_part_gets_no_gradient(recorded):
    ours, theirs = pair()
    for each in (ours, theirs):
        each.decoder.requires_grad_(False)
    images, noise = inputs(ours)
    for each in (ours, theirs):
        each.loss(images, noise=noise)[0].backward()
    assert all(p.grad is None for p in ours.decoder.parameters())
    torch.testing.assert_close(ours.initial_posterior.grad, theirs.initial_posterior.grad)


def test_training_equals_that_without_graphs(recorded, tmp_path):
    weights = []
    for cuda_graphs in (True, False):
        pl.seed_everything(0)
        model = small(cuda_graphs=cuda_graphs).double()
        fit(model, torch.rand(8, 3, 8, 8), tmp_path)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert recorded
    torch.testing.assert_close(*weights)


def test_a_copy_of_a_model_has_no_recording(recorded):
    model, _ = pair()
    model.loss(inputs(model)[0])
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other.loss(inputs(other)[0])
    assert len(recorded) == 3


def test_another_device_computes_without_graphs():
    ours, theirs = pair()
    images, noise = inputs(ours)
    torch.testing.assert_close(ours.loss(images, noise=noise)[0], theirs.loss(images, noise=noise)[0], rtol=0, atol=0)


def test_refused_where_the_scale_changes():
    with pytest.raises(ValueError, match="cuda_graphs records one pixel scale"):
        IODINE(**SMALL, cuda_graphs=True, pixel_scale={0: 0.3, 10: 0.1})
