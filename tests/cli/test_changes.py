"""Training that continues with other settings reports the consequences."""

import shutil
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from command import BAR, TINY
from helpers import working_in

from iodine_pl.cli import run_command

LAST = Path("runs/tetrominoes/version_0/checkpoints/last.ckpt")


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """Trains for 7 of the 10 updates of an epoch."""
    made = tmp_path_factory.mktemp("once")
    with working_in(made):
        run_command([*TINY, BAR, "--trainer.max_steps=7"])
    return made


@pytest.fixture
def stopped(once, tmp_path, monkeypatch):
    """A copy of the folder with this run, as the working folder."""
    monkeypatch.chdir(shutil.copytree(once, tmp_path, dirs_exist_ok=True))


def go_on(*arguments, steps):
    """Returns the images of every batch."""
    seen = []

    class Look(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append((trainer.current_epoch, batch["index"].tolist()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iodine_pl.cli.entry.SlotUse", Look)
        run_command(["fit", "--ckpt_path=last", BAR, f"--trainer.max_steps={steps}", *arguments])
    return seen


def test_the_epoch_is_finished_with_another_batch_size(stopped, caplog):
    caplog.set_level("INFO")
    seen = go_on("--data.batch_size=2", steps=14)
    assert [epoch for epoch, _ in seen] == [0] * 6 + [1]
    rest = [i for epoch, batch in seen if epoch == 0 for i in batch]
    assert len(set(rest)) == 12  # of 40, 28 were taken
    assert "batch_size was 4 and is 2: the learning rate follows it" in caplog.text


def test_with_larger_batches_the_epoch_ends_where_it_would(stopped):
    """28 of 40 images were seen. In batches of 8 these are 3 of 5, so two batches remain in the epoch."""
    assert [epoch for epoch, _ in go_on("--data.batch_size=8", steps=10)] == [0, 0, 1]


def test_settings_of_reading_do_not_change_the_images(stopped, caplog):
    caplog.set_level("INFO")
    go_on("--data.worker_timeout=60", steps=8)
    assert "other images" not in caplog.text


def test_the_consequences_of_changed_settings_are_reported(stopped, caplog):
    caplog.set_level("INFO")
    go_on("--seed_everything=3", "--model.num_slots=2", "--data.num_train=60", "--model.optimizer=adam", steps=8)
    for words in (
        "seed was 0 and is 3: the order of the images and the noise",
        "num_slots was 4 and is 2: the weights continue",
        "optimizer was tf_adam and is adam: the moments",
        "data: num_train was 40 and is 60: training continues with other images",
    ):
        assert words in caplog.text
    caplog.clear()
    go_on(steps=9)
    assert " was " not in caplog.text
    assert torch.load(LAST, weights_only=True)["processes"] == 1


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--model.latent_size=5", r"initial_posterior is \(8,\) in the checkpoint and \(10,\) in the model, and"),
        (
            "--model.optimizer=muon",
            "optimizer muon cannot continue from the state of tf_adam: leave --model.optimizer out",
        ),
    ],
)
def test_a_change_that_prevents_resuming_is_an_error_of_one_line(stopped, argument, words):
    config = LAST.parents[1] / "config.yaml"
    before, settings = LAST.read_bytes(), config.read_text()
    with pytest.raises(SystemExit, match=f"^error: .*{words}"):
        run_command(["fit", "--ckpt_path=last", BAR, "--trainer.max_steps=8", argument])
    assert LAST.read_bytes() == before
    assert config.read_text() == settings
    run_command(["fit", "--ckpt_path=last", BAR, "--trainer.max_steps=8"])
    assert torch.load(LAST, weights_only=True)["global_step"] == 8
    assert "max_steps: 8\n" in config.read_text()


def test_settings_that_fail_in_the_first_batch_are_not_kept(stopped):
    config = LAST.parents[1] / "config.yaml"
    settings = config.read_text()

    class Refuses(pl.Callback):
        def on_train_batch_start(self, *arguments):
            raise OverflowError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iodine_pl.cli.entry.SlotUse", Refuses)
        with pytest.raises(OverflowError):
            run_command(["fit", "--ckpt_path=last", BAR, "--trainer.max_steps=8"])
    assert config.read_text() == settings
