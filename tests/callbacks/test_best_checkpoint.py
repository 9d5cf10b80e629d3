"""``best.ckpt`` is the best of all validations of its run, also after the run was stopped, continued or moved."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers import Other, loader, trainer

from iodine_pl.callbacks import BestCheckpoint, LastCheckpoint
from iodine_pl.checkpoints.reading import CheckpointError
from iodine_pl.checkpoints.writing import AtomicCheckpointIO

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # training goes on


class Scored(Other):
    """Logs the given scores, one per validation, and then repeats the last one."""

    def __init__(self, *scores, name="val/ari_fg"):
        super().__init__()
        self.scores = list(scores)
        self.name = name

    def on_validation_epoch_end(self):
        self.log(self.name, self.scores.pop(0) if self.scores[1:] else self.scores[0])


def train(folder, module, epochs, checkpoint=None):
    """Trains to the end of an epoch, and validates after each of them."""
    settings = {"enable_checkpointing": True, "max_epochs": epochs, "plugins": [AtomicCheckpointIO()]}
    best = BestCheckpoint(dirpath=str(folder / "checkpoints"))
    made = trainer(folder, best, LastCheckpoint(), num_sanity_val_steps=0, **settings)
    made.fit(module, loader(), loader(), ckpt_path=checkpoint)
    return best


def kept(folder):
    content = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    return round(float(content["callbacks"]["BestCheckpoint"]["best_model_score"]), 4)


LAST = Path("checkpoints", "last.ckpt")


def test_best_is_not_replaced_by_a_worse_model_after_resuming(tmp_path):
    """last.ckpt was saved before the validation that found the best score."""
    train(tmp_path, Scored(0.1, 0.5), 2)
    best = train(tmp_path, Scored(0.2, 0.3), 4, tmp_path / LAST)
    assert kept(tmp_path) == 0.5
    assert float(best.best_model_score) == 0.5
    train(tmp_path, Scored(0.6), 5, tmp_path / LAST)
    assert kept(tmp_path) == 0.6


def test_a_run_that_was_moved_keeps_its_best(tmp_path):
    train(tmp_path / "one", Scored(0.5), 1)
    shutil.move(tmp_path / "one", tmp_path / "two")
    train(tmp_path / "two", Scored(0.2), 2, tmp_path / "two" / LAST)
    assert kept(tmp_path / "two") == 0.5


def test_a_new_folder_gets_a_best_of_its_own(tmp_path):
    train(tmp_path / "one", Scored(0.5), 1)
    train(tmp_path / "two", Scored(0.2), 2, tmp_path / "one" / LAST)
    assert (kept(tmp_path / "one"), kept(tmp_path / "two")) == (0.5, 0.2)


def test_a_score_is_compared_with_one_of_the_same_metric(tmp_path):
    train(tmp_path, Scored(-300.0, name="val/elbo"), 1)
    train(tmp_path, Scored(-400.0, name="val/elbo"), 2, tmp_path / LAST)
    assert kept(tmp_path) == -300.0
    train(tmp_path, Scored(0.2), 3, tmp_path / LAST)
    assert kept(tmp_path) == 0.2
    train(tmp_path, Scored(-500.0, name="val/elbo"), 4, tmp_path / LAST)
    assert kept(tmp_path) == -500.0


def test_a_damaged_best_is_not_replaced(tmp_path):
    train(tmp_path, Scored(0.5), 1)
    path = tmp_path / "checkpoints" / "best.ckpt"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=r"best\.ckpt is not a checkpoint: it is cut off"):
        train(tmp_path, Scored(0.6), 2, tmp_path / LAST)


def test_a_validation_outside_of_training_chooses_nothing(tmp_path, caplog):
    caplog.set_level("INFO")
    best = BestCheckpoint(dirpath=str(tmp_path))
    trainer(tmp_path, best, enable_checkpointing=True).validate(Scored(-300.0, name="val/elbo"), loader())
    assert "decides" not in caplog.text
    assert "is chosen by" not in caplog.text
    assert best.monitor == "val/ari_fg"
