"""Late averaging leaves the weights alone until it begins, and continues after a stop."""

import pytest
import pytorch_lightning as pl
import torch
from helpers import Images, small, trainer
from torch.utils.data import DataLoader

from iodine_pl.callbacks import LateAveraging

UPDATES, START = 9, 5


class Watch(pl.Callback):
    """Notes the weights after each update and at each validation, and saves a checkpoint after each update."""

    def __init__(self, folder):
        self.folder, self.after, self.validated = folder, {}, {}

    def on_train_batch_end(self, trainer, module, *_):
        self.after[trainer.global_step] = weights(module)
        trainer.save_checkpoint(self.folder / f"after_{trainer.global_step}.ckpt")

    def on_validation_batch_start(self, trainer, module, *_):
        self.validated[trainer.global_step] = weights(module)


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def train(folder, updates, checkpoint=None):
    """Trains with a batch order that does not depend on where it begins: the same batch in every update."""
    torch.manual_seed(0)
    model, watch = small(), Watch(folder)
    settings = {"max_epochs": -1, "max_steps": updates, "num_sanity_val_steps": 0, "val_check_interval": 1}
    made = trainer(folder, LateAveraging(START, decay=0.5), watch, **settings)
    images = DataLoader(Images(count=3), batch_size=3)
    made.fit(model, images, images, ckpt_path=checkpoint)
    return model, watch


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_averaging_begins_at_the_chosen_update(tmp_path):
    model, watch = train(tmp_path, UPDATES)
    average = None
    for update in range(1, UPDATES + 1):
        now = watch.after[update]
        if update > START:
            average = now if average is None else (average + now) / 2
        expected = now if average is None else average
        torch.testing.assert_close(watch.validated[update], expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(weights(model), average, rtol=1e-6, atol=1e-7)


def test_training_that_ends_before_keeps_its_weights(tmp_path):
    model, watch = train(tmp_path, START - 2)
    torch.testing.assert_close(weights(model), watch.after[START - 2], rtol=0, atol=0)
    state = torch.load(tmp_path / f"after_{START - 2}.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(state[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize("stop", [START - 2, START, START + 2])
def test_averaging_continues_after_a_stop(tmp_path, stop):
    whole, _ = train(tmp_path, UPDATES)
    resumed, _ = train(tmp_path, UPDATES, tmp_path / f"after_{stop}.ckpt")
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=0)
