"""The baselines: same interface, and what their own papers say."""

import math
from itertools import pairwise

import pytest
import torch
from command import BAR, ROOT
from torch.nn import functional as F

from iodine_pl import Decomposition
from iodine_pl.baselines import RNEM, VAE
from iodine_pl.cli import run_command as main


def vae(**arguments):
    small = {
        "image_size": 11,
        "latent_size": 3,
        "decoder_channels": (4,),
        "encoder_channels": (4, 4),
        "mlp_sizes": (8,),
    }
    return VAE(**(small | arguments)).double()


def rnem(**arguments):
    return RNEM(**({"image_size": 16, "num_slots": 3, "num_iterations": 4, "state_size": 10} | arguments)).double()


def binary(count=2, size=16):
    return (torch.rand(count, 1, size, size) < 0.3).double()


CASES = {"vae": (vae, lambda: torch.rand(2, 3, 11, 11).double(), 1, 0), "rnem": (rnem, binary, 3, 4)}


@pytest.mark.parametrize("name", CASES)
def test_a_baseline_returns_a_decomposition(name):
    make, images, slots, iterations = CASES[name]
    model, x = make(), images()
    result = model(x, return_steps=True)
    assert isinstance(result, Decomposition)
    assert len(result.steps) == iterations + 1
    batch, channels, height, width = x.shape
    assert result.masks.shape == (batch, slots, height, width)
    torch.testing.assert_close(result.masks.sum(dim=1), torch.ones(batch, height, width).double())
    assert result.means.shape == (batch, slots, channels, height, width)
    torch.testing.assert_close(result.reconstruction, torch.einsum("bkhw,bkchw->bchw", result.masks, result.means))
    assert result.mean.shape == result.latents.shape == result.std.shape
    assert result.trace.nll.shape == result.trace.mse.shape == (iterations + 1, batch)
    assert result.trace.kl.shape == (iterations + 1, batch, slots)
    torch.testing.assert_close(result.trace.nll[-1], result.nll)
    torch.testing.assert_close(result.trace.mse[-1], (result.reconstruction - x).square().mean(dim=(1, 2, 3)))


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_learns(name):
    make, images, *_ = CASES[name]
    model = make()
    loss, result = model.loss(images())
    loss.backward()
    for parameter, value in model.named_parameters():
        assert value.grad is not None, parameter
        assert value.grad.abs().sum() > 0, parameter
    assert not result.nll.requires_grad


@pytest.mark.parametrize("name", CASES)
def test_evaluation_does_not_depend_on_the_batching(name):
    make, images, *_ = CASES[name]
    model, x = make().eval(), images()
    together = model.decompose({"image": x, "index": torch.tensor([4, 9])})
    alone = model.decompose({"image": x[1:], "index": torch.tensor([9])})
    torch.testing.assert_close(together.masks[1:], alone.masks)
    again = model.decompose({"image": x[1:], "index": torch.tensor([9])}, run=1)
    assert not torch.equal(again.nll, alone.nll)


def test_the_vae_is_one_slot_of_the_mixture():
    """Its ELBO, written out from the definition."""
    model, x, noise = (
        vae(pixel_distribution="gaussian", pixel_scale=0.2),
        torch.rand(2, 3, 11, 11),
        torch.randn(1, 2, 1, 3),
    )
    result = model(x, noise=noise)
    normal = torch.distributions.Normal
    torch.testing.assert_close(result.latents, result.mean + result.std * noise[0])
    likelihood = normal(result.means[:, 0], 0.2).log_prob(x.double()).sum(dim=(1, 2, 3))
    prior = normal(torch.zeros(()).double(), math.sqrt(math.log(2.0)))
    kl = torch.distributions.kl_divergence(normal(result.mean, result.std), prior).sum(dim=(1, 2))
    torch.testing.assert_close(result.nll, -likelihood)
    torch.testing.assert_close(result.elbo, likelihood - kl)
    torch.testing.assert_close(model.loss(x, noise=noise)[0], (kl - likelihood).mean())
    masks, means = model.decode(result.latents, 11, 11)
    torch.testing.assert_close(means, result.means)
    assert torch.equal(masks, torch.ones(2, 1, 11, 11).double())


@pytest.mark.parametrize(
    ("make", "arguments", "line"),
    [
        (vae, {}, "K=1, T=0, D=3, image_size=11, likelihood=PixelMixture of Logistic(scale=0.03)"),
        (
            vae,
            {"pixel_distribution": "gaussian", "pixel_likelihood": "mean", "pixel_scale": 0.2},
            "K=1, T=0, D=3, image_size=11, likelihood=MeanImage of Gaussian(scale=0.2)",
        ),
        (
            rnem,
            {"relations": False},
            "K=3, T=4, state_size=10, image_size=16, relations=False, bit_flips=0.2, "
            "likelihood=equal mixture of Bernoulli()",
        ),
    ],
)
def test_a_baseline_describes_itself_in_one_line(make, arguments, line):
    assert repr(make(**arguments)).splitlines()[1].strip() == line


@pytest.mark.parametrize(("slots", "iterations"), [(2, None), (None, 3)])
def test_a_vae_does_not_refine(slots, iterations):
    with pytest.raises(ValueError, match="1 slot and 0 iterations"):
        vae()(torch.rand(1, 3, 11, 11), num_slots=slots, num_iterations=iterations)


def test_a_vae_has_one_size():
    with pytest.raises(ValueError, match=r"VAE takes images .*, got \(1, 3, 12, 12\)"):
        vae()(torch.rand(1, 3, 12, 12))


def test_responsibilities_and_loss_of_rnem():
    """Each step again, from the predictions that it made."""
    model, x = rnem().eval(), binary()
    result = model(x, return_steps=True, noise=(noise := torch.randn(model.noise_shape(2)).double()))
    torch.testing.assert_close(result.steps[0].masks, noise[0].abs() / noise[0].abs().sum(dim=1, keepdim=True))
    loss = 0.0
    for step in result.steps[1:]:
        prediction = step.means[:, :, 0]
        likelihood = torch.where(x > 0, prediction, 1 - prediction) + 1e-6
        torch.testing.assert_close(step.masks, likelihood / likelihood.sum(dim=1, keepdim=True))
        own = F.binary_cross_entropy(prediction, x.expand_as(prediction), reduction="none")
        nothing = -torch.log(1 - prediction)
        loss += (step.masks * own + (1 - step.masks) * nothing).sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(model.loss(x, noise=noise)[0], loss)


def test_no_gradient_goes_through_the_responsibilities():
    """With the responsibilities of a run held fixed, the loss has the gradient that training takes."""
    model, x = rnem(bit_flips=0.0), binary()
    noise = torch.randn(model.noise_shape(2)).double()
    loss, _ = model.loss(x, noise=noise)
    wanted = torch.autograd.grad(loss, list(model.parameters()))
    gammas = [step.masks.detach() for step in model(x, noise=noise, return_steps=True).steps]
    prediction, state, total = torch.zeros_like(gammas[0]), torch.zeros(2, 3, 10).double(), 0.0
    for before, after in pairwise(gammas):
        encoded = model.encoder((before * (x - prediction)).reshape(6, 1, 16, 16)).view(2, 3, -1)
        state = model.recurrence(encoded, state)
        prediction = model.decoder(state.view(6, -1)).view(2, 3, 16, 16).sigmoid()
        own = F.binary_cross_entropy(prediction, x.expand_as(prediction), reduction="none")
        total = total + (after * own - (1 - after) * torch.log(1 - prediction)).sum() / 2
    for a, b in zip(torch.autograd.grad(total, list(model.parameters())), wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_without_relations_slots_do_not_influence_each_other():
    """The state of a slot depends on that of another only with relations."""
    for relations in (True, False):
        recurrence = rnem(relations=relations).recurrence
        inputs, state = torch.randn(1, 3, 512).double(), torch.randn(1, 3, 10).double()
        changed = state.clone()
        changed[:, 1] += 1.0
        same = torch.allclose(recurrence(inputs, state)[:, 0], recurrence(inputs, changed)[:, 0])
        assert same is not relations


def test_slots_of_rnem_can_be_permuted():
    """Permuting the slots' states and inputs permutes the result."""
    recurrence = rnem().recurrence
    inputs, state = torch.randn(2, 3, 512).double(), torch.randn(2, 3, 10).double()
    order = [2, 0, 1]
    torch.testing.assert_close(recurrence(inputs[:, order], state[:, order]), recurrence(inputs, state)[:, order])


def test_bits_are_flipped_only_in_training():
    model, x = rnem(bit_flips=0.3), binary()
    seen = []
    model.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    noise = torch.randn(model.noise_shape(2)).double()
    gamma = noise[0].abs() / noise[0].abs().sum(dim=1, keepdim=True)
    for mode in (True, False):
        seen.clear()
        model.train(mode)(x, noise=noise)
        shown = (seen[0].view(2, 3, 16, 16) / gamma)[:, 0]  # the first prediction is 0
        share = ((shown > 0.5) != (x[:, 0] > 0.5)).double().mean()
        assert (0.2 < share < 0.4) if mode else share == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"image_size": 12}, "multiple of 8"), ({"bit_flips": 0.5}, "bit_flips"), ({"num_slots": 0}, "num_slots")],
)
def test_rnem_refuses_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        rnem(**arguments)


def test_rnem_refuses_images_of_another_size():
    with pytest.raises(ValueError, match=r"R-NEM takes images \(B, C, 16, 16\)"):
        rnem()(torch.zeros(1, 1, 24, 24))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("multi_dsprites_binarized_rnem", ["--model.num_iterations=2", "--model.state_size=10"]),
        ("tetrominoes_vae", ["--model.encoder_channels=[4,4,4]", "--model.decoder_channels=[4]"]),
    ],
)
def test_a_baseline_trains_and_tests_from_its_configuration(name, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ["--data.num_train=8", "--data.num_val=2", "--data.num_test=3", "--data.batch_size=4"]
    trainer = ["--trainer.accelerator=cpu", "--trainer.max_steps=2", "--trainer.enable_model_summary=false", BAR]
    main([f"--config={ROOT}/configs/{name}.yaml", *data, *options, *trainer])
    cli = main(["test", "--ckpt_path=last", f"--config={ROOT}/configs/experiments/segmentation.yaml", BAR])
    assert cli.model.batch_size == 4
    assert -1.0 <= float(cli.trainer.callback_metrics["test/ari_fg"]) <= 1.0
    assert (tmp_path / "runs" / name / "version_0" / "experiments" / "segmentation.png").is_file()
