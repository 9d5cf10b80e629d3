"""The losses of twenty updates of each shipped configuration, in float64. Run as a script, it writes them."""

import json
from functools import cache
from importlib import import_module

import torch
import yaml
from command import ROOT

from iodine_pl.posterior import keyed_normal

FILE = ROOT / "tests" / "data" / "golden_losses.json"
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
UPDATES, SHOWN = 20, (1, 10, 20)


def losses(config):
    """Returns the losses before the updates of SHOWN, of an image of noise that has few pixels."""
    made = yaml.safe_load(config.read_text())
    sequences = made["data"]["class_path"].endswith("MovingSpritesDataModule")
    return _losses_of(json.dumps(made["model"], sort_keys=True), sequences)


@cache  # of configurations that differ in their data alone
def _losses_of(settings, sequences):
    settings = json.loads(settings)
    package, _, name = settings["class_path"].rpartition(".")
    torch.manual_seed(0)
    arguments = settings.get("init_args", {}) | {"batch_size": 1}
    if name != "IODINE":
        arguments["image_size"] = 8
    model = getattr(import_module(package), name)(**arguments).double()
    frames = [model.num_iterations + 1] if sequences else []
    images = torch.rand(1, *frames, model.image_channels, 8, 8, dtype=torch.float64)
    if not model.takes_gray:
        images = images.round()
    optimizer = model.configure_optimizers()["optimizer"]
    found = []
    for update in range(1, UPDATES + 1):
        noise = keyed_normal(model.noise_shape(1), 0, update).double()
        loss, _ = model.loss(images, noise=noise)
        if update in SHOWN:
            found.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        if model.gradient_clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), model.gradient_clip_norm)
        optimizer.step()
    return found


if __name__ == "__main__":
    FILE.write_text(json.dumps({config.stem: losses(config) for config in CONFIGS}, indent=2) + "\n")
