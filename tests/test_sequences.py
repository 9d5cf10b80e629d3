"""Sequences: step t looks at frame t."""

import json

import numpy as np
import pytest
import torch
from command import BAR, ROOT
from PIL import Image
from plain import PlainIODINE

from iodine_pl import IODINE
from iodine_pl.baselines import VAE
from iodine_pl.cli import run_command as main
from iodine_pl.datamodules import MovingSpritesDataModule, SceneFileError
from iodine_pl.datamodules.loader import to_tensors
from iodine_pl.datamodules.synthetic.moving_sprites import MovingSprites
from iodine_pl.refinement import PredictorCorrectorHead
from iodine_pl.report import write_report

SMALL = {"num_slots": 3, "num_iterations": 2, "latent_size": 4, "decoder_channels": (6,), "encoder_channels": (5,)}
SMALL |= {"mlp_sizes": (7,), "head": "predictor_corrector", "lstm_size": 6, "pixel_scale": 0.3}


def gradients(model, frames, noise):
    model.zero_grad()
    loss, _ = model.loss(frames, noise=noise)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("pixel_likelihood", ["mixture", "mean"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("input_gradients", ["full", "stopped"])
def test_all_engine_modes_agree_with_the_definition(input_gradients, recompute, pixel_likelihood):
    frames, noise = torch.rand(2, 3, 3, 9, 8).double(), torch.randn(3, 2, 3, 4).double()
    settings = SMALL | {"input_gradients": input_gradients, "pixel_likelihood": pixel_likelihood}
    model = IODINE(**settings, recompute=recompute).double()
    plain = PlainIODINE(**settings).double()
    plain.load_state_dict(model.state_dict())
    loss, mine = gradients(model, frames, noise)
    expected, its = gradients(plain, frames, noise)
    torch.testing.assert_close(loss, expected)
    for name, value in its.items():
        torch.testing.assert_close(mine[name], value, msg=name)


def test_a_sequence_of_equal_frames_equals_an_image():
    model = IODINE(**SMALL).double().eval()
    image, noise = torch.rand(2, 3, 9, 8).double(), torch.randn(3, 2, 3, 4).double()
    one = model(image, noise=noise)
    same = model(image.unsqueeze(1).expand(-1, 3, -1, -1, -1), noise=noise)
    torch.testing.assert_close(same.masks, one.masks)
    torch.testing.assert_close(same.trace.nll, one.trace.nll)


def test_each_step_sees_its_own_frame():
    """Another frame 1 changes the likelihood at step 1 and later, not before."""
    model = IODINE(**SMALL).double().eval()
    frames, noise = torch.rand(1, 3, 3, 9, 8).double(), torch.randn(3, 1, 3, 4).double()
    changed = frames.clone()
    changed[:, 1] = 1.0 - changed[:, 1]
    before, after = (model(x, noise=noise).trace.nll for x in (frames, changed))
    assert (before == after)[:, 0].tolist() == [True, False, False]


def test_refuses_other_numbers_of_frames():
    model = IODINE(**SMALL)
    with pytest.raises(ValueError, match="give num_iterations=4"):
        model(torch.rand(1, 5, 3, 9, 8))
    assert model(torch.rand(1, 5, 3, 9, 8), num_iterations=4).trace.nll.shape == (5, 1)
    with pytest.raises(ValueError, match="takes images"):
        VAE(image_size=9)(torch.rand(1, 5, 3, 9, 9))
    with pytest.raises(ValueError, match="head must be"):
        IODINE(head="linear")


def test_the_predictor_corrector():
    head = PredictorCorrectorHead(5, 4).double()
    features, parameters = torch.randn(3, 5).double(), torch.randn(3, 4).double()
    weights, bias = head.correction.weight, head.correction.bias
    seen, gate = features @ weights[:4].T + bias[:4], torch.sigmoid(features @ weights[4:].T + bias[4:])
    corrected = (1 - gate) * parameters + gate * seen
    expected = head.prediction(parameters)
    trust = torch.sigmoid(expected[:, 4:])
    torch.testing.assert_close(
        parameters + head(features, parameters), (1 - trust) * corrected + trust * expected[:, :4]
    )
    assert [layer.out_features for layer in head.prediction if hasattr(layer, "out_features")] == [64, 8]


def test_sprites_move_evenly():
    data = MovingSprites(20, frames=6, seed=1)
    batch = to_tensors(data[list(range(20))])
    assert batch["image"].shape == (20, 6, 3, 64, 64)
    assert batch["label"].shape == (20, 6, 64, 64)
    x, turned = batch["factors"]["x"].double(), 0
    for sequence in range(20):
        objects = int(batch["num_objects"][sequence])
        assert int(batch["label"][sequence].max()) <= objects
        for sprite in range(1, objects + 1):
            steps = np.diff(x[sequence, :, sprite])
            speed = np.abs(steps)
            even = np.isclose(speed, speed.max(), atol=1e-6)
            assert even.sum() >= 4  # all but where it turned back
            turned += int(not even.all())
    assert turned > 0
    assert 0.0 <= float(x.min()) <= float(x.max()) <= 1.0
    color = (batch["factors"]["color"] * 255).round().to(torch.uint8)
    label = batch["label"].long()
    painted = torch.stack([color[i][label[i]] for i in range(20)])  # (B, S, H, W, 3)
    assert torch.equal(painted.movedim(-1, -3), batch["image"])
    assert (batch["image"][:, 0] != batch["image"][:, 1]).flatten(1).any(dim=1).all()


def test_a_sequence_depends_on_its_number_alone():
    one, many = to_tensors(MovingSprites(5, 3, seed=2)[[4]]), to_tensors(MovingSprites(9, 3, seed=2)[[1, 4]])
    assert torch.equal(one["image"][0], many["image"][1])
    assert not torch.equal(many["image"][0], many["image"][1])
    with pytest.raises(ValueError, match="min_sprites"):
        MovingSprites(5, 3, min_sprites=3, max_sprites=2)
    with pytest.raises(SceneFileError, match="makes its sequences"):
        MovingSpritesDataModule(path="file.h5")


def test_workers_give_the_same():
    batches = []
    for workers in (0, 1):
        data = MovingSpritesDataModule(frames=2, batch_size=2, num_train=4, num_val=2, num_test=3, num_workers=workers)
        data.setup("test")
        batches.append(list(data.test_dataloader()))
    assert [len(batch["index"]) for batch in batches[0]] == [2, 1]
    for one, two in zip(*batches, strict=True):
        assert torch.equal(one["image"], two["image"])
        assert torch.equal(one["factors"]["x"], two["factors"]["x"])


def test_trains_and_is_scored_over_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = ["--data.num_train=4", "--data.num_val=2", "--data.num_test=3", "--data.batch_size=2", "--data.frames=3"]
    small = ["--model.num_iterations=2", "--model.decoder_channels=[4]", "--model.encoder_channels=[4,4]"]
    trainer = ["--trainer.accelerator=cpu", "--trainer.max_steps=2", "--trainer.enable_model_summary=false", BAR]
    main([f"--config={ROOT}/configs/moving_sprites.yaml", *sizes, *small, *trainer])
    run = tmp_path / "runs" / "moving_sprites" / "version_0"
    with Image.open(run / "panels" / "refinement_0000002.png") as picture:
        assert picture.size[1] // (64 * 2 + 6) == 3 + 1  # and the posterior's mean
    cli = main(["test", "--ckpt_path=last", f"--config={ROOT}/configs/experiments/segmentation.yaml", BAR])
    found = json.loads((run / "experiments" / "segmentation.json").read_text())
    assert len(found["steps"]["ari_fg"]["median"]) == 3
    assert found["table"][0]["mean"] == pytest.approx(float(cli.trainer.callback_metrics["test/ari_fg"]), abs=1e-5)
    assert "data-steps" in write_report(run, num_images=1).read_text()
