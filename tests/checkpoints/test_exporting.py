"""Weights that come with the package, and how they are made."""

import pytest
import pytorch_lightning as pl
import torch

from iodine_pl import IODINE, datamodules
from iodine_pl.callbacks import AdjustedRandIndex
from iodine_pl.checkpoints.finding import find_weights
from iodine_pl.cli import run_command
from iodine_pl.cli import run_command as train
from iodine_pl.pretrained import available, read_card


def main(arguments):
    run_command(["export", *map(str, arguments)])


SMALL = [
    "--model.latent_size=4",
    "--model.decoder_channels=[4]",
    "--model.encoder_channels=[4]",
    "--model.mlp_sizes=[4]",
]
DATA = ["--data.size=20", "--data.objects=1", "--data.num_train=8", "--data.num_val=4", "--data.num_test=4"]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scales = ["--model.pixel_distribution=gaussian", "--model.pixel_scale={0: 0.3, 1: 0.5}"]
    train(["fit", "--name=run", "--trainer.max_steps=2", "--data.batch_size=4", *SMALL, *DATA, *QUIET, *scales])
    return tmp_path / "runs/run/version_0/checkpoints/last.ckpt"


def test_weights_are_the_model_and_nothing_else(checkpoint, capsys):
    main([str(checkpoint), "--out", "mine.ckpt"])
    assert "after 2 updates" in capsys.readouterr().out
    whole, weights = (torch.load(path, weights_only=True) for path in (checkpoint, "mine.ckpt"))
    assert "optimizer_states" in whole
    assert set(weights) <= {
        "state_dict",
        "hyper_parameters",
        "hparams_name",
        "pytorch-lightning_version",
        "global_step",
        "epoch",
        "class_path",
        "data",
        "image_size",
    }
    assert weights["image_size"] == (20, 20)
    of_machine = {"data_dir", "num_workers", "worker_timeout"}
    of_run = whole["data"]["init_args"]
    assert of_machine <= of_run.keys()
    assert weights["data"] == whole["data"] | {"init_args": {k: v for k, v in of_run.items() if k not in of_machine}}
    assert weights["data"]["init_args"]["size"] == 20

    expected, model = IODINE.load_from_checkpoint(checkpoint), IODINE.from_pretrained("mine.ckpt")
    assert not model.training
    assert model.distribution.scale == 0.5
    images, noise = torch.rand(2, 3, 20, 20), torch.randn(model.noise_shape(2))
    with torch.no_grad():
        torch.testing.assert_close(model(images, noise=noise).masks, expected.eval()(images, noise=noise).masks)
    assert IODINE.from_pretrained("mine.ckpt", num_slots=7).num_slots == 7


def test_the_command_line_takes_weights(checkpoint):
    main(["last", "--out", "mine.ckpt"])
    of_run = train(["test", "--ckpt_path=last", *QUIET]).trainer.callback_metrics["test/elbo"]
    of_weights = train(["test", "--ckpt_path=mine.ckpt", *QUIET]).trainer.callback_metrics["test/elbo"]
    assert float(of_weights) == pytest.approx(float(of_run), rel=1e-6)


def test_training_begins_with_weights(checkpoint, capsys):
    main([str(checkpoint), "--out", "mine.ckpt"])
    first = IODINE.from_pretrained("mine.ckpt").state_dict()
    still = ["--model.learning_rate=0", "--trainer.max_steps=2"]
    cli = train(["fit", "--ckpt_path=mine.ckpt", "--name=tuned", *still, "--data.batch_size=4", *DATA, *QUIET])
    assert cli.trainer.global_step == 2
    assert cli.model.distribution.scale == 0.5
    torch.testing.assert_close(cli.model.state_dict(), first)
    assert "runs/tuned/version_0/checkpoints/last.ckpt" in capsys.readouterr().out


def test_what_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "numbers.ckpt"
    torch.save({"step": 3}, path)
    with pytest.raises(SystemExit, match="it has no state_dict and no hyper_parameters"):
        main([str(path), "--out", str(tmp_path / "out.ckpt")])
    with pytest.raises(SystemExit, match="is there already"):
        main([str(path), "--out", str(path)])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Keeps generated scenes for several weights: CLEVR takes its time."""
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize("name", available())
def test_weights_reach_what_their_card_says(name, data_dir):
    card = read_card(name)
    assert {"data", "command", "updates", "images", "hardware", "seconds", "seed", "test", "check"} <= set(card)
    assert find_weights(name).stat().st_size < 5e6
    check = card["check"]
    sizes = {"num_train": 16, "num_val": 16, "num_test": 64, "batch_size": 16, "data_dir": data_dir}
    data = getattr(datamodules, check["datamodule"])(**sizes | check["arguments"])
    trainer = pl.Trainer(
        accelerator="cpu",
        callbacks=[AdjustedRandIndex()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.test(IODINE.from_pretrained(name), data)
    assert float(trainer.callback_metrics["test/ari_fg"]) == pytest.approx(check["ari_fg"], abs=0.01)


def test_unknown_weights_are_named():
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint clevr7: give a path, .*, tetrominoes"):
        IODINE.from_pretrained("clevr7")
    with pytest.raises(FileNotFoundError, match=r"there are no weights 'clevr7': give one of .*, tetrominoes"):
        read_card("clevr7")
