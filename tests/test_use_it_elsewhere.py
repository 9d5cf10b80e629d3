"""The code in docs/use_it_elsewhere.md runs, and its claims are true."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from command import ROOT, environment
from helpers import small
from hub_server import hub  # noqa: F401, a fixture

from iodine_pl.pretrained import FOLDER

PAGE = (ROOT / "docs" / "use_it_elsewhere.md").read_text()
PARTS = PAGE.split("\n## ")[1:]
SECTIONS = {part.split("\n")[0]: re.findall(r"```python\n(.*?)```", part, flags=re.DOTALL) for part in PARTS}


def run_section(title, blocks=None):
    """Runs the (first) blocks of a section and returns their names; skips where a package is not installed."""
    names = {"__name__": "page"}
    for number, block in enumerate(SECTIONS[title][:blocks]):
        for package in " ".join(re.findall(r"# pip install (.*)", block)).split():
            pytest.importorskip(package, reason=f"block {number} of {title!r} needs {package}")
        exec(compile(block, f"docs/use_it_elsewhere.md, {title}, block {number}", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_lightning_pytorch():
    names = run_section("In lightning.pytorch")
    logged = names["trainer"].callback_metrics
    assert names["trainer"].global_step == 4
    assert {"train/loss", "val/ari_fg", "val/ari", "val/miou", "val/mbo"} <= set(logged)
    assert 0.0 <= float(logged["val/miou"]) <= float(logged["val/mbo"]) <= 1.0
    with pytest.raises(TypeError, match=r"must be a `LightningModule`.*got `IODINE`"):
        names["trainer"].fit(names["module"].model, names["data"].train_dataloader())


def test_fabric():
    names = run_section("In Lightning Fabric")
    assert names["epoch"] == 1
    assert torch.isfinite(names["loss"])
    (group,) = names["optimizer"].param_groups
    assert group["lr"] == pytest.approx(3e-4 * (4 / 256) ** 0.5)


def test_a_loss_of_your_own():
    names = run_section("A loss of your own")
    (of_entropy,) = torch.autograd.grad(
        -(names["model"](names["images"], graph=True).masks.log()).mean(), names["model"].initial_posterior
    )
    assert of_entropy.abs().sum() > 0
    assert all(p.grad is not None for p in names["model"].parameters())


def test_weights(hub):  # noqa: F811
    hub.files["tetrominoes.ckpt"] = (FOLDER / "tetrominoes.ckpt").read_bytes()
    assert run_section("Trained weights from anywhere")["model"].num_slots == 3


def test_export_of_the_decoder():
    names = run_section("Export of the decoder", blocks=1)
    for latents in (names["latents"], torch.randn(5, 3, names["model"].latent_size)):
        expected = names["decode"](latents)
        for found, right in zip(names["program"].module()(latents), expected, strict=True):
            torch.testing.assert_close(found, right)
    assert names["masks"].shape == (5, 3, 35, 35)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_image_in_onnx():
    names = run_section("Export of the decoder")
    expected = names["draw"](names["latents"]).detach().numpy()
    np.testing.assert_allclose(names["image"], expected, atol=1e-4)


@pytest.mark.parametrize(
    "record",
    [
        lambda model, images: torch.export.export(model, (images,), strict=False),
        lambda model, images: torch.export.export(model, (images,), strict=True),
        lambda model, images: torch.jit.trace(lambda x: model(x).masks, images),
        lambda model, images: torch.onnx.export(model, (images,), "model.onnx", dynamo=False),
    ],
    ids=["export", "strict export", "trace", "onnx"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_model_itself_says_that_it_cannot_be_exported(record):
    with pytest.raises(Exception, match=r"IODINE can be neither exported nor traced: .* Export the decoder alone"):
        record(small().eval(), torch.rand(1, 3, 8, 8))


def test_without_pytorch_lightning_the_first_import_says_what_to_install():
    script = "import sys; sys.modules['pytorch_lightning'] = None; import iodine_pl.datamodules"
    ended = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True)
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: iodine-pl needs pytorch_lightning, which")
    assert 'pip install "pytorch-lightning>=2.6.6"' in last
