"""An update and an evaluation leave no tensor on the CPU and read no number back from the device.

They run on ``meta``, where an operation with a tensor on the CPU raises, and where no number can be read.
What a GPU does later than the CPU is compared with what the CPU does at once.
"""

import copy

import pytest
import pytorch_lightning as pl
import torch
from helpers import SMALL, fit, small, update_of
from plain import PlainIODINE
from train_in_double import MODES

from iodine_pl import IODINE, autograd
from iodine_pl.callbacks import AdjustedRandIndex, SlotUse
from iodine_pl.datamodules import TetrominoesDataModule
from iodine_pl.device import Late
from iodine_pl.optim import module as of_optimization
from iodine_pl.optim.guard import NonFiniteError

LIKELIHOODS = {"mixture": {}, "mean": {"pixel_likelihood": "mean", "bounded_means": True}}
META = torch.device("meta")


@pytest.fixture
def on_its_way(monkeypatch):
    """Allows copies from ``meta`` to the host, which never arrive."""
    monkeypatch.setattr(Late, "__init__", lambda self, numbers: None)
    yield
    autograd._unread.clear()


@pytest.fixture
def late(monkeypatch):
    """Makes the CPU behave like a device whose numbers are read later."""
    for module in (autograd, of_optimization):
        monkeypatch.setattr(module, "reading_waits", lambda x: True)
    yield
    autograd._unread.clear()


def test_meta_notices_what_it_is_to_notice():
    with pytest.raises(RuntimeError, match="meta"):
        torch.ones(2, device=META) + torch.ones(2)
    with pytest.raises(RuntimeError, match="meta"):
        torch.ones((), device=META).item()


@pytest.mark.parametrize(
    "arguments",
    [*MODES.values(), LIKELIHOODS["mean"], {"optimizer": "muon"}],
    ids=[*MODES, "mean", "Muon"],
)
def test_an_update(arguments, on_its_way, monkeypatch):
    model = IODINE(**SMALL | {"num_iterations": 1, "lstm_size": 5} | arguments).to(META)
    update = update_of(model, monkeypatch)
    for _ in range(2):
        model.guard._unread = None  # it would read the update before
        update()
        autograd._unread.clear()  # likewise


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_an_evaluation(likelihood):
    model = IODINE(**SMALL | LIKELIHOODS[likelihood]).to(META).eval()
    batch = {
        "image": torch.zeros(2, 3, 12, 12, dtype=torch.uint8, device=META),
        "label": torch.zeros(2, 12, 12, dtype=torch.uint8, device=META),
        "index": torch.arange(2),  # a key of the noise
    }
    model.on_validation_epoch_start()
    callbacks = (AdjustedRandIndex(), SlotUse())
    with torch.no_grad():
        result = model.validation_step(batch, 0)
        for callback in callbacks:
            callback.on_validation_epoch_start(None, model)
            callback.on_validation_batch_end(None, model, result, batch, 0)
    assert result.masks.is_meta


def test_an_update_by_plain_autograd():
    loss, _ = PlainIODINE(**SMALL).to(META).loss(torch.rand(2, 3, 12, 12, device=META))
    loss.backward()


def test_the_index_stays_on_the_cpu_with_the_noise_that_it_keys():
    batch = {"image": torch.zeros(2, 3, 8, 8), "index": torch.arange(2)}
    moved = TetrominoesDataModule().transfer_batch_to_device(batch, META, 0)
    assert moved["image"].is_meta
    assert moved["index"] is batch["index"]


@pytest.mark.parametrize("optimizer", ["tf_adam", "adam", "muon"])
def test_updates_skipped_late_equal_those_skipped_at_once(tmp_path, optimizer, request):
    images = torch.rand(16, 3, 8, 8)
    images[[1, 6, 9]] = torch.nan  # in the first update, the fourth and the fifth
    runs = []
    for when in ("at once", "late"):
        if when == "late":
            request.getfixturevalue("late")
        torch.manual_seed(0)
        model = small(learning_rate=1e-2, optimizer=optimizer)
        with pytest.warns(UserWarning, match="Skipped an update") as said:
            made = fit(model, images, tmp_path)
        words = [str(x.message) for x in said if "Skipped an update" in str(x.message)]
        state = made._checkpoint_connector.dump_checkpoint(weights_only=False)
        runs.append((words, state["nonfinite_guard"], state["state_dict"], state["optimizer_states"][0]["state"]))
    at_once, later = runs
    assert at_once[:2] == later[:2]
    assert at_once[1] == {"skipped": 3, "in_a_row": 0}
    assert len(at_once[0]) == 3
    torch.testing.assert_close(later[2:], at_once[2:], rtol=0, atol=0)


def test_a_checkpoint_between_two_updates_has_none_that_was_skipped(tmp_path, late):
    images = torch.rand(8, 3, 8, 8)
    images[5] = torch.nan
    saved = []

    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            saved.append(copy.deepcopy(trainer._checkpoint_connector.dump_checkpoint(weights_only=False)))

    with pytest.warns(UserWarning, match=r"Skipped an update .* the NLL at refinement step 0 \(image 1"):
        fit(small(learning_rate=1e-2), images, tmp_path, Save())
    assert [x["nonfinite_guard"]["skipped"] for x in saved] == [0, 0, 1, 1]
    assert [float(x["optimizer_states"][0]["state"][0]["step"]) for x in saved] == [1, 2, 2, 3]
    torch.testing.assert_close(saved[2]["state_dict"], saved[1]["state_dict"], rtol=0, atol=0)


def test_too_many_in_a_row_stop_training_at_the_latest_at_its_end(tmp_path, late):
    images = torch.full((2, 3, 8, 8), torch.nan)
    with pytest.raises(NonFiniteError, match=r"1 updates in a row .* the NLL at refinement step 0 \(image 0"):
        fit(small(max_skipped_updates=0), images, tmp_path)


def test_other_weights_than_the_losss_spoil_the_gradients_and_are_named_next(late):
    model, images = IODINE(**SMALL, input_gradients="stopped"), torch.rand(2, 3, 9, 9)
    model(images).trace.nll.sum().backward()
    assert all(p.grad.isnan().any() for p in model.decoder.parameters())
    with pytest.raises(RuntimeError, match="the weights t/T of the refinement steps"):
        model(images)
    model.zero_grad()
    model.loss(images)[0].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    model(images)
