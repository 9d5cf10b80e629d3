import re

import pytest
import pytorch_lightning as pl
import torch
from helpers import fit, small

from iodine_pl.optim.guard import NonFiniteError, NonFiniteGuard, poison_if_nonfinite


def with_bad(*bad):
    images = torch.rand(12, 3, 8, 8)
    images[list(bad)] = torch.nan
    return images


def test_a_bad_batch_is_skipped_and_counted(tmp_path):
    model = small(learning_rate=1e-2)
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            seen.append((module.guard.skipped, module.initial_posterior.detach().clone()))

    with pytest.warns(
        UserWarning, match=r"Skipped an update \(1 so far, 1 in a row\): the NLL at refinement step 0 \(image 1"
    ):
        fit(model, with_bad(5), tmp_path, Watch())
    assert [count for count, _ in seen] == [0, 0, 1, 1, 1, 1]
    assert torch.equal(seen[1][1], seen[2][1])  # the third update did nothing
    assert not torch.equal(seen[2][1], seen[3][1])
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_too_many_in_a_row_stop_training_and_name_the_term(tmp_path):
    model = small(max_skipped_updates=1)
    with (
        pytest.warns(UserWarning, match="Skipped an update"),
        pytest.raises(NonFiniteError, match=r"2 updates in a row .* the NLL at refinement step 0 \(image 0"),
    ):
        fit(model, with_bad(2, 4, 6), tmp_path)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_skips_between_good_updates_do_not_stop_training(tmp_path):
    model = small(max_skipped_updates=1)
    with pytest.warns(UserWarning, match="Skipped an update"):
        trainer = fit(model, with_bad(2, 6, 10), tmp_path)
    assert model.guard.skipped == 3
    checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    other = small()
    other.on_load_checkpoint(checkpoint)
    assert other.guard.skipped == 3


def test_a_gradient_that_is_not_finite_is_named():
    module = torch.nn.Linear(2, 2)
    module.weight.grad = torch.zeros(2, 2)
    module.bias.grad = torch.tensor([0.0, torch.inf])
    with pytest.raises(NonFiniteError, match="the gradient of bias"):
        NonFiniteGuard(0).must_skip(torch.tensor(torch.inf), module)


def test_infinite_loss_with_finite_gradients_poisons_them():
    """Without this the other processes would take the update that this one skips."""
    for offset, finite in ((0.0, True), (torch.inf, False)):
        w = torch.ones(3, requires_grad=True)
        poison_if_nonfinite(w.sum() + offset).backward()
        assert w.grad.isnan().all() == (not finite)
        assert (w.grad == 1).all() == finite


def test_far_off_image_values_train_without_a_skip(tmp_path):
    """A float image in 0..255 is wrong input and far from every slot, but training continues."""
    model = small()
    with pytest.warns(UserWarning, match=r"IODINE takes float images in \[0, 1\], but the first are in \[.*, 25.*\]: "):
        fit(model, torch.rand(4, 3, 8, 8) * 255, tmp_path)
    assert model.guard.skipped == 0


@pytest.mark.parametrize(
    ("arguments", "images", "words"),
    [
        ({}, torch.tensor([-1.0, 1.0]), r"but the first are in \[-1, 1\]"),
        ({}, torch.tensor([0.0, 0.5, 1.0]), None),
        ({"pixel_distribution": "bernoulli"}, torch.tensor([0.0, 0.5, 1.0]), "the first images have values between"),
        ({"pixel_distribution": "bernoulli"}, torch.tensor([0.0, 1.0]), None),
    ],
)
def test_odd_images_are_named_once(arguments, images, words, recwarn):
    model, images = small(**arguments), images.repeat(96)[: 3 * 64].view(1, 3, 8, 8)
    for _ in range(2):
        model(images)
    said = [str(warning.message) for warning in recwarn]
    assert len(said) == (words is not None)
    assert not said or re.search(words, said[0])
