"""A GPU computes what the CPU computes, and nothing in an update or an evaluation waits for it.

Skipped where there is no GPU. TESTED_DEVICE=cpu runs the tests on the CPU where possible, to check the tests.
"""

import os

import pytest
import torch
from command import TINY
from helpers import SMALL, fit, small, update_of
from train_in_double import MODES

from iodine_pl import IODINE
from iodine_pl.callbacks import AdjustedRandIndex, SlotUse
from iodine_pl.cli import run_command
from iodine_pl.datamodules.synthetic.clevr import ClevrGenerator

DEVICE = torch.device(os.environ.get("TESTED_DEVICE", "cuda"))
ON_GPU = DEVICE.type == "cuda"
LIKELIHOODS = {"mixture": {}, "mean": {"pixel_likelihood": "mean", "bounded_means": True}}

pytestmark = [
    pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.filterwarnings("default"),  # about an unused GPU, and the mode in which waiting is an error
]
needs_gpu = pytest.mark.skipif(not ON_GPU, reason="asks a GPU")


@pytest.fixture
def waiting_refused():
    """Makes every wait for the GPU an error."""
    try:
        if ON_GPU:
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        if ON_GPU:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("mode", MODES)
def test_loss_and_gradients_are_those_of_the_cpu(mode, likelihood):
    arguments = SMALL | MODES[mode] | LIKELIHOODS[likelihood] | {"lstm_size": 5}
    on_cpu = IODINE(**arguments).double()
    images, noise = torch.rand(2, 3, 11, 14).double(), torch.randn(on_cpu.noise_shape(2)).double()
    on_device = IODINE(**arguments).double().to(DEVICE)
    on_device.load_state_dict(on_cpu.state_dict())
    expected, _ = on_cpu.loss(images, noise=noise)
    loss, _ = on_device.loss(images.to(DEVICE), noise=noise.to(DEVICE))
    torch.testing.assert_close(loss.cpu(), expected, rtol=1e-10, atol=0)
    expected.backward()
    loss.backward()
    for (name, theirs), ours in zip(on_cpu.named_parameters(), on_device.parameters(), strict=True):
        assert (ours.grad.cpu() - theirs.grad).norm() < 1e-8 * theirs.grad.norm().clamp(min=1e-6), name


@pytest.mark.parametrize(
    "arguments",
    [*MODES.values(), {"optimizer": "muon"}, pytest.param({"cuda_graphs": True}, marks=needs_gpu)],
    ids=[*MODES, "Muon", "CUDA graphs"],
)
def test_an_update_waits_for_nothing(arguments, monkeypatch, request):
    model = IODINE(**SMALL | arguments).to(DEVICE)
    update = update_of(model, monkeypatch)
    update()  # constants are made once, and the libraries make plans
    request.getfixturevalue("waiting_refused")
    update()


def test_an_evaluation_waits_for_nothing(request):
    model = IODINE(**SMALL).to(DEVICE).eval()
    batch = {
        "image": torch.zeros(2, 3, 12, 12, dtype=torch.uint8, device=DEVICE),
        "label": torch.zeros(2, 12, 12, dtype=torch.uint8, device=DEVICE),
        "index": torch.arange(2),
    }
    callbacks = (AdjustedRandIndex(), SlotUse())

    def evaluate():
        with torch.no_grad():
            result = model.validation_step(batch, 0)
            for callback in callbacks:
                callback.on_validation_batch_end(None, model, result, batch, 0)

    model.on_validation_epoch_start()
    for callback in callbacks:
        callback.on_validation_epoch_start(None, model)
    evaluate()
    request.getfixturevalue("waiting_refused")
    evaluate()


def test_training_by_the_command_goes_on_as_if_it_had_not_stopped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["fit", *(flag for flag in TINY if "accelerator" not in flag), "--trainer.devices=1"]
    arguments += [f"--trainer.accelerator={'gpu' if ON_GPU else 'cpu'}", "--trainer.enable_progress_bar=false"]
    arguments += ["--trainer.limit_val_batches=1"]
    whole = run_command([*arguments, "--name=whole", "--trainer.max_steps=4"])
    run_command([*arguments, "--name=halves", "--trainer.max_steps=2"])
    halves = run_command(["fit", "--ckpt_path=last", "--name=halves", "--trainer.max_steps=4"])
    assert halves.trainer.global_step == 4
    assert next(halves.model.parameters()).device.type == next(whole.model.parameters()).device.type
    ours, theirs = (torch.cat([p.flatten() for p in each.model.parameters()]) for each in (halves, whole))
    assert (ours - theirs).norm() < 1e-3 * theirs.norm()  # a GPU adds in any order


@pytest.mark.filterwarnings("ignore:Skipped an update")
def test_an_update_that_is_skipped_leaves_what_it_leaves_on_the_cpu(tmp_path):
    images = torch.rand(8, 3, 8, 8)
    images[5] = torch.nan
    states = {}
    for accelerator in ("cpu", "gpu" if ON_GPU else "cpu"):
        torch.manual_seed(0)
        model = small(learning_rate=1e-2).double()  # Adam turns gradients that are only rounding errors into full steps
        fit(model, images, tmp_path, accelerator=accelerator, devices=1)
        states[accelerator] = {name: value.cpu() for name, value in model.state_dict().items()}
        assert model.guard.skipped == 1
    first, *others = states.values()
    for other in others:
        torch.testing.assert_close(other, first, rtol=1e-6, atol=1e-9)


@needs_gpu
@pytest.mark.parametrize("mode", ["full", "stopped"])
@pytest.mark.parametrize("how", ["compile_networks", "cuda_graphs", "both"])
@pytest.mark.filterwarnings("ignore")  # the compiler's own warnings
def test_compiled_and_recorded(mode, how):
    torch._dynamo.reset()
    settings = SMALL | MODES[mode] | {"decoder_channels": (4,), "encoder_channels": (4,)}
    model = IODINE(**settings).double().to(DEVICE)
    settings |= {"compile_networks": how != "cuda_graphs", "cuda_graphs": how != "compile_networks"}
    other = IODINE(**settings).double().to(DEVICE)
    other.load_state_dict(model.state_dict())
    for _ in range(3):
        images = torch.rand(2, 3, 12, 12, dtype=torch.float64, device=DEVICE)
        noise = torch.randn(model.noise_shape(2), dtype=torch.float64, device=DEVICE)
        (expected, result), (loss, others) = (each.loss(images, noise=noise) for each in (model, other))
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
        torch.testing.assert_close(others.masks, result.masks)
        for each, value in ((model, expected), (other, loss)):
            each.zero_grad()
            value.backward()
        for (name, ours), theirs in zip(other.named_parameters(), model.parameters(), strict=True):
            assert (ours.grad - theirs.grad).norm() < 1e-8 * theirs.grad.norm(), name
        with torch.no_grad():  # the recording reads the current parameters
            for p in (*other.parameters(), *model.parameters()):
                p.mul_(0.9)


@needs_gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_recorded_is_training(precision, tmp_path):
    trained = {}
    for cuda_graphs in (False, True):
        torch.manual_seed(0)
        model = small(input_gradients="stopped", cuda_graphs=cuda_graphs)
        before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
        images = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        fit(model, images, tmp_path, accelerator="gpu", devices=1, precision=precision)
        trained[cuda_graphs] = torch.cat([p.detach().cpu().flatten() for p in model.parameters()]) - before
    assert trained[False].norm() > 0
    assert (trained[True] - trained[False]).norm() < 0.05 * trained[False].norm()  # Adam enlarges rounding errors


def test_clevr_is_rendered_as_on_the_cpu():
    ours, theirs = (
        next(ClevrGenerator(size=16, device=device.type).scenes(0, 2)) for device in (DEVICE, torch.device("cpu"))
    )
    assert abs(ours[0].astype(int) - theirs[0].astype(int)).mean() < 1.0
    assert (ours[1] != theirs[1]).mean() < 0.02
