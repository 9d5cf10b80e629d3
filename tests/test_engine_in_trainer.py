"""The ways to differentiate keep their numbers in micro-batches, in bfloat16 and through the compiler."""

import shutil

import pytest
import pytorch_lightning as pl
import torch
from helpers import SMALL
from torch.utils.data import DataLoader
from train_in_double import MODES, make_model

from iodine_pl import IODINE


def scenes(count):
    """Returns images of a colored square on gray, ``(count, 3, 12, 12)``."""
    random = torch.Generator().manual_seed(1)
    image = torch.full((count, 3, 12, 12), 0.5)
    for each in image:
        y, x = torch.randint(1, 6, (2,), generator=random).tolist()
        each[:, y : y + 5, x : x + 5] = torch.rand(3, 1, 1, generator=random)
    return image


class Gradients(pl.Callback):
    """Keeps those of the first update."""

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if trainer.global_step == 0:
            self.first = {name: p.grad.clone() for name, p in module.named_parameters()}


@pytest.mark.parametrize("mode", MODES)
def test_micro_batches_give_the_gradient_of_the_joined_batch(mode):
    image = scenes(8)
    data = [{"image": image[i], "index": i} for i in range(8)]
    gradients = {}
    for size in (2, 8):
        gradients[size] = Gradients()
        trainer = pl.Trainer(
            accelerator="cpu",
            max_steps=1,
            limit_val_batches=0,
            accumulate_grad_batches=8 // size,
            callbacks=[gradients[size]],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(make_model(mode), DataLoader(data, size), DataLoader(data, size))
    for name, joined in gradients[8].first.items():
        error = (gradients[2].first[name] - joined).norm() / joined.norm()
        assert error < 1e-12, name


LIKELIHOODS = {"mixture": {"pixel_scale": 0.1}}
LIKELIHOODS["mean"] = LIKELIHOODS["mixture"] | {"pixel_likelihood": "mean", "bounded_means": True}


@pytest.fixture(scope="module", params=LIKELIHOODS)
def trained(request):
    """Returns settings and weights of a model after 60 updates on sixteen images, and these."""
    torch.manual_seed(0)
    settings = SMALL | LIKELIHOODS[request.param]
    model = IODINE(**settings, learning_rate=1e-2)
    images = scenes(16)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    first = None
    for _ in range(60):
        loss, _ = model.loss(images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first = first or float(loss.detach())
    assert float(loss.detach()) < first - 400, "has not learned"
    return settings, model.state_dict(), images


@pytest.mark.parametrize("mode", MODES)
def test_bfloat16(trained, mode):
    """Convolutions in bfloat16 change the ELBO by less than half a percent, and hardly the gradient's direction."""
    settings, state, images = trained
    model = IODINE(**settings | MODES[mode])
    model.load_state_dict(state)
    noise = torch.randn(model.noise_shape(len(images)))
    elbo, gradient = {}, {}
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled):
            loss, result = model.loss(images, noise=noise)
            model.zero_grad()
            loss.backward()
        assert result.nll.dtype == result.masks.dtype == result.means.dtype == torch.float32
        elbo[enabled] = float(result.elbo.mean())
        gradient[enabled] = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert abs(elbo[True] - elbo[False]) < 0.005 * abs(elbo[False])
    assert not torch.equal(gradient[True], gradient[False])
    assert torch.cosine_similarity(gradient[True], gradient[False], dim=0) > 0.95


@pytest.fixture
def compiler():
    """Lets the compiler write plain loops, which takes it less time, and refuse to compile a network four times."""
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("torch.compile needs a C++ compiler")
    with (
        torch._inductor.config.patch({"cpp.vec_isa_ok": False}),
        # Once with gradients, without, and with inputs that have none; more would be in vain.
        torch._dynamo.config.patch(recompile_limit=3, fail_on_recompile_limit_hit=True),
    ):
        yield


def assert_same_gradients(ours, theirs, images, noise):
    (expected, _), (loss, _) = theirs.loss(images, noise=noise), ours.loss(images, noise=noise)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for model, value in ((ours, loss), (theirs, expected)):
        model.zero_grad()
        value.backward()
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (p.grad - q.grad).norm() < 1e-9 * q.grad.norm(), name


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # the compiler warns of itself
def test_compiled_networks_in_every_mode(compiler):
    settings = SMALL | {"decoder_channels": (4,), "encoder_channels": (4,)}  # each layer takes the compiler seconds
    model = IODINE(**settings).double()
    compiled = IODINE(**settings, compile_networks=True).double()
    compiled.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 12, 12, dtype=torch.float64)
    noise = torch.randn(model.noise_shape(2), dtype=torch.float64)
    for mode in MODES.values():
        for each in (model, compiled):  # the networks, and what is compiled of them, are the same in all modes
            each.input_gradients = mode.get("input_gradients", "full")
            each.recompute = mode.get("recompute", False)
        assert_same_gradients(compiled, model, images, noise)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(images, noise=noise).masks, model(images, noise=noise).masks)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_compiling_the_whole_model_changes_nothing(compiler):
    settings = SMALL | MODES["stopped, recompute"]  # what is compiled is outside of the refinement, in all modes
    model = IODINE(**settings).double()
    compiled = IODINE(**settings).double()
    compiled.load_state_dict(model.state_dict())
    compiled.loss = torch.compile(compiled.loss)
    images = torch.rand(2, 3, 12, 12, dtype=torch.float64)
    assert_same_gradients(compiled, model, images, torch.randn(model.noise_shape(2), dtype=torch.float64))
