"""Shared by the tests: a small model, images, a module that is not an IODINE, a Trainer, a working folder."""

import contextlib
import os

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from iodine_pl import IODINE, Decomposition, MeanAdjustedRandIndex

SMALL = {
    "num_slots": 3,
    "num_iterations": 2,
    "latent_size": 4,
    "decoder_channels": (6, 6),
    "encoder_channels": (6, 6),
    "mlp_sizes": (8,),
}


@contextlib.contextmanager
def working_in(folder):
    """Makes a folder the working folder, as ``contextlib.chdir`` does from Python 3.11 on."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def small(**arguments):
    return IODINE(**(SMALL | arguments))


def update_of(model, monkeypatch):
    """Returns a function that makes an update on two black images, on the model's device and outside of a training."""
    for name in ("log", "log_dict"):
        monkeypatch.setattr(model, name, lambda *_, **__: None)
    model._trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    optimizer = model.configure_optimizers()["optimizer"]
    batch = {"image": torch.zeros(2, 3, 12, 12, dtype=torch.uint8, device=model.device)}

    def closure():
        loss = model.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        model.configure_gradient_clipping(optimizer)

    def update():
        optimizer.step(closure)
        model.guard.settle()

    return update


class Images(torch.utils.data.Dataset):
    """Fixed random images with labels, some without foreground."""

    def __init__(self, count=7, labeled=True):
        generator = torch.Generator().manual_seed(1)
        self.images = torch.rand(count, 3, 8, 8, generator=generator)
        self.labels = torch.randint(0, 3, (count, 8, 8), generator=generator)
        self.labels[2] = 0
        self.labeled = labeled

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return {"image": self.images[i], "index": i} | ({"label": self.labels[i]} if self.labeled else {})


class Other(pl.LightningModule):
    """A module that is not an IODINE: its masks are the colors of the image, and its steps return nothing."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, batch) -> Decomposition:
        images = batch["image"] if isinstance(batch, dict) else batch
        masks = torch.softmax(9 * images * self.weight, dim=1)
        means = images.unsqueeze(1).expand(-1, 3, -1, -1, -1)
        latents = torch.zeros(len(images), 3, 2)
        return Decomposition(latents, latents, latents, masks, means, images, None, None, None)

    def training_step(self, batch, batch_idx):
        return self.weight.square()

    def validation_step(self, batch, batch_idx):
        pass

    test_step = validation_step

    def predict_step(self, batch, batch_idx):
        return self(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(tmp_path, *callbacks, **arguments):
    settings = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "max_epochs": 1}
    settings |= {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": tmp_path}
    return pl.Trainer(callbacks=list(callbacks), **(settings | arguments))


def loader(**arguments):
    return DataLoader(Images(**arguments), batch_size=3)


def fit(model, images, tmp_path, *callbacks, **arguments):
    made = trainer(tmp_path, *callbacks, limit_val_batches=0, **arguments)
    made.fit(model, DataLoader(images, batch_size=2), DataLoader(images))
    return made


def counted_masks(monkeypatch):
    """Returns a list to which every later update of an ARI adds the masks that it counts."""
    seen = []
    update = MeanAdjustedRandIndex.update

    def counts(metric, label, masks):
        seen.append(masks)
        update(metric, label, masks)

    monkeypatch.setattr(MeanAdjustedRandIndex, "update", counts)
    return seen
