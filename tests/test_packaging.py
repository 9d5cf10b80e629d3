"""The wheel works in another project."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from command import ROOT, environment

from iodine_pl.pretrained import available

SCRIPT = '''
"""A pipeline of somebody's: a datamodule, a folder and a script of their own."""
import sys

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

import callbacks
from iodine_pl import IODINE, Decomposition
from iodine_pl.callbacks import AdjustedRandIndex, SlotPanels

import iodine_pl
assert iodine_pl.__file__.startswith(sys.argv[1]), iodine_pl.__file__


class Squares(pl.LightningDataModule):
    def loader(self):
        images = torch.zeros(6, 3, 12, 12)
        labels = torch.zeros(6, 12, 12, dtype=torch.long)
        for i in range(6):
            images[i, i % 3, i : i + 4, 2:6] = 1.0
            labels[i, i : i + 4, 2:6] = 1
        return DataLoader([{"image": x, "label": y} for x, y in zip(images, labels)], batch_size=2)

    train_dataloader = val_dataloader = predict_dataloader = loader


model = IODINE(num_slots=2, num_iterations=1, latent_size=4, decoder_channels=(4,), encoder_channels=(4,), batch_size=2)
trainer = pl.Trainer(
    accelerator="cpu", max_epochs=1, logger=False, callbacks=[AdjustedRandIndex(), SlotPanels(), callbacks.Mine()]
)
trainer.fit(model, Squares())
print("ARI", float(trainer.callback_metrics["val/ari_fg"]))
results = trainer.predict(model, Squares())
assert isinstance(results[0], Decomposition)
assert results[0].masks.shape == (2, 2, 12, 12)
'''


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))


def modules():
    """Returns the name of every module in the repository, as it is imported."""
    places = {"iodine_pl": "src/iodine_pl"} | {
        f"iodine_pl.{folder}": folder for folder in ("datamodules", "callbacks", "configs", "pretrained")
    }
    names = []
    for package, folder in places.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            names.append(".".join([package, *(part for part in parts if part != "__init__")]))
    return names


def test_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
    assert {Path(file).parts[0].split("-")[0] for file in files} == {"iodine_pl"} | {wheel.name.split("-")[0]}
    assert "iodine_pl/py.typed" in files
    assert sum(file.endswith(".py") for file in files) == len(modules())
    weights = {f"iodine_pl/pretrained/{name}.{kind}" for name in available() for kind in ("ckpt", "yaml")}
    assert weights
    assert weights <= set(files)
    configurations = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert configurations
    assert {f"iodine_pl/{name}" for name in configurations} <= set(files)


def test_works_in_a_foreign_project(wheel, tmp_path):
    site, project = tmp_path / "site", tmp_path / "project"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (project / "callbacks").mkdir(parents=True)
    (project / "callbacks" / "__init__.py").write_text(
        "import pytorch_lightning as pl\n\n\nclass Mine(pl.Callback):\n    pass\n"
    )
    imports = "\n".join(f"import {name}" for name in modules() if not name.endswith("__main__"))
    (project / "pipeline.py").write_text(SCRIPT + imports)
    ran = subprocess.run(
        [sys.executable, "pipeline.py", str(site)],
        cwd=project,
        env=environment() | {"PYTHONPATH": str(site)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert "ARI" in ran.stdout
    assert (project / "panels" / "slots_0000003.png").is_file()
