import copy
import pickle

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from helpers import small
from torch.utils.data import DataLoader

from iodine_pl import IODINE, Decomposition


@pytest.mark.parametrize(
    ("network", "parameters"), [("tetrominoes", 199_568), ("multi_dsprites", 339_152), ("clevr6", 1_177_168)]
)
def test_official_networks_have_their_number_of_parameters(network, parameters):
    assert sum(p.numel() for p in getattr(IODINE, network)().parameters()) == parameters


@pytest.mark.parametrize("lstm", [None, 7])
@pytest.mark.parametrize(("coordinates", "pooling"), [("linear", "mean"), ("linear", "cosine"), ("cosine", "mean")])
@pytest.mark.parametrize(("name", "channels"), [("logistic", 3), ("gaussian", 3), ("bernoulli", 1)])
def test_every_parameter_gets_a_gradient(lstm, coordinates, pooling, name, channels):
    model = small(
        lstm_size=lstm, coordinates=coordinates, pooling=pooling, pixel_distribution=name, image_channels=channels
    )
    loss, _ = model.loss(torch.rand(2, channels, 9, 10).round())
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize(
    ("batch", "slots", "iterations", "size"), [(1, 1, 0, (5, 9)), (3, 5, 4, (20, 13)), (2, 2, 1, (8, 8))]
)
def test_runs_on_any_batch_size_image_size_slots_and_iterations(batch, slots, iterations, size):
    result = small()(torch.rand(batch, 3, *size), num_slots=slots, num_iterations=iterations, return_steps=True)
    assert result.mean.shape == result.std.shape == result.latents.shape == (batch, slots, 4)
    assert result.masks.shape == (batch, slots, *size)
    assert result.means.shape == (batch, slots, 3, *size)
    assert result.reconstruction.shape == (batch, 3, *size)
    assert result.nll.shape == result.elbo.shape == (batch,)
    assert result.kl.shape == (batch, slots)
    assert result.trace.nll.shape == result.trace.mse.shape == (iterations + 1, batch)
    assert result.trace.kl.shape == (iterations + 1, batch, slots)
    assert len(result.steps) == iterations + 1
    torch.testing.assert_close(result.masks.sum(1), torch.ones(batch, *size))
    torch.testing.assert_close(result.steps[-1].masks, result.masks)
    torch.testing.assert_close(torch.stack([step.nll for step in result.steps]), result.trace.nll)


def test_loss_weights_rise_linearly():
    model = small()
    loss, result = model.loss(torch.rand(2, 3, 8, 8))
    terms = (result.trace.nll + result.trace.kl.sum(2)).mean(1)
    torch.testing.assert_close(loss.detach(), 0.5 * terms[1] + terms[2])
    assert not result.masks.requires_grad
    assert loss.requires_grad


def test_noise_repeats_a_run():
    model, images = small(), torch.rand(2, 3, 8, 8)
    noise = torch.randn(3, 2, 3, 4)
    first, second = model(images, noise=noise), model(images, noise=noise)
    torch.testing.assert_close(first.masks, second.masks, rtol=0, atol=0)
    assert not torch.equal(model(images).masks, first.masks)
    with pytest.raises(ValueError, match=r"noise must be \(T\+1, B, K, D\) = \(3, 2, 3, 4\), got \(3, 1, 3, 4\)"):
        model(images, noise=noise[:, :1])


def test_images_of_every_kind():
    model = small()
    noise = torch.randn(3, 2, 3, 4)
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    expected = model(pixels.float() / 255, noise=noise)
    for batch in (pixels, {"image": pixels}, {"image": pixels.double() / 255, "label": None}):
        torch.testing.assert_close(model(batch, noise=noise).masks, expected.masks)
    assert model.double()(pixels, noise=noise).masks.dtype == torch.float64


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), TypeError, "got torch.int64"),
        ([torch.zeros(2, 3, 8, 8)], TypeError, "got list: let the dataset return {'image': image}"),
        ({"picture": 1, "label": 2}, TypeError, "under the key image, got a dict of picture, label: let the dataset"),
        (torch.zeros(2, 8, 8, 3), ValueError, r"\(B, 3, H, W\), got \(2, 8, 8, 3\)"),
        (torch.zeros(3, 8, 8), ValueError, r"got \(3, 8, 8\)"),
    ],
)
def test_wrong_images_are_refused(images, error, words):
    with pytest.raises(error, match=words):
        small()(images)
    with pytest.raises(error, match=words):
        small().training_step(images, 0)


@pytest.mark.parametrize("short", [torch.float16, torch.bfloat16])
def test_short_parameters_are_refused(short):
    with pytest.raises(TypeError, match=rf"IODINE has {short} parameters, too coarse .* call .float\(\)"):
        small().to(short).loss(torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_slots": 0},
        {"num_iterations": 0},
        {"evaluation_iterations": 0},
        {"latent_size": 0},
        {"prior_scale": 0.0},
        {"coordinates": "polar"},
        {"pooling": "max"},
        {"optimizer": "sgd"},
        {"seed": -1},
        {"max_skipped_updates": -1},
        {"pixel_scale": -1.0},
    ],
)
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        small(**wrong)


def test_cosine_pooling_is_the_mean_and_the_means_weighted_by_cosines():
    network = small(pooling="cosine", coordinate_frequencies=2).refinement
    x = torch.rand(3, 6, 4, 5)
    pooled = network._pool(x)
    assert pooled.shape == (3, network.mlp[0].in_features)
    rows, columns = (np.cos(np.pi * np.linspace(0, 1, count)) for count in (4, 5))
    by_row, by_column = rows[:, None] * np.ones(5), columns * np.ones((4, 1))
    for channel in range(6):
        image = x[:, channel].numpy()
        expected = [(image * weight).mean((1, 2)) for weight in (1, by_row, by_column, by_row * by_column)]
        ours = pooled[:, [channel, *(6 + 3 * channel + np.arange(3))]].numpy()
        np.testing.assert_allclose(ours, np.stack(expected, axis=1), rtol=1e-5, atol=1e-6)


def test_more_steps_in_evaluation():
    model = small(evaluation_iterations=5)
    images = torch.rand(2, 3, 8, 8)
    assert len(model(images, return_steps=True).steps) == 2 + 1
    assert model.noise_shape(2)[0] == 2 + 1
    model.eval()
    assert len(model(images, return_steps=True).steps) == 5 + 1
    assert model.noise_shape(2)[0] == 5 + 1
    assert len(model(images, num_iterations=3, return_steps=True).steps) == 3 + 1


@pytest.mark.parametrize("guard", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_evaluation_equals_training_and_leaves_nothing_behind(guard):
    model, images, noise = small(lstm_size=5), torch.rand(2, 3, 8, 8), torch.randn(3, 2, 3, 4)
    expected = model(images, noise=noise, return_steps=True)
    model.eval()
    with guard():
        result = model(images * 1, noise=noise * 1, return_steps=True)
    torch.testing.assert_close(result.detach(), expected.detach())
    assert result.masks.requires_grad == (guard is torch.enable_grad)
    assert all(p.grad is None for p in model.parameters())


def test_results_do_not_depend_on_the_other_images_when_the_batch_size_is_given():
    model, images = small(batch_size=16).double(), torch.rand(4, 3, 8, 8, dtype=torch.float64)
    noise = torch.randn(3, 4, 3, 4, dtype=torch.float64)
    together = model(images, noise=noise)
    alone = [model(images[i : i + 1], noise=noise[:, i : i + 1]).masks for i in range(4)]
    torch.testing.assert_close(torch.cat(alone), together.masks)
    free = small().double()
    free.load_state_dict(model.state_dict())
    assert not torch.allclose(free(images, noise=noise).masks, together.masks)


class Foreign(pl.LightningModule):
    """A module of a user that holds an IODINE."""

    def __init__(self):
        super().__init__()
        self.iodine = small()
        self.seen = []

    def validation_step(self, batch, batch_idx):
        self.seen.append(self.iodine(batch))
        return self.seen[-1]

    test_step = predict_step = validation_step


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
@pytest.mark.parametrize("make", [small, Foreign])
def test_a_plain_trainer_runs_every_command(command, make, tmp_path):
    model = make()
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    loader = DataLoader(torch.rand(4, 3, 8, 8), batch_size=2)
    results = getattr(trainer, command)(model, loader)
    results = model.seen if make is Foreign else results
    if command == "predict" or make is Foreign:
        assert all(isinstance(result, Decomposition) for result in results)
        assert [len(result.masks) for result in results] == [2, 2]
    else:
        prefix = "val" if command == "validate" else "test"
        assert results[0][f"{prefix}/elbo"] == pytest.approx(-results[0][f"{prefix}/nll"] - results[0][f"{prefix}/kl"])
    assert all(p.grad is None for p in model.parameters())


def test_save_load_copy(tmp_path):
    model, images, noise = small(lstm_size=5), torch.rand(1, 3, 8, 8), torch.randn(3, 1, 3, 4)
    expected = model(images, noise=noise).masks
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    loaded = IODINE.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=False)
    for other in (loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(other(images, noise=noise).masks, expected, rtol=0, atol=0)
    assert loaded.hparams["lstm_size"] == 5
