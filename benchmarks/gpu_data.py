"""Measures the speed of loading images onto a device, the time that training waits for them, and CLEVR's rendering."""

import time

import numpy as np
import torch
from gpu_recipes import RENDERING, SCORED, Settings
from measured import synchronize

from iodine_pl.datamodules import ClevrDataModule
from iodine_pl.datamodules.synthetic.clevr import ClevrGenerator

TRAINED = ("TF32, graphs", "bf16, graphs")  # the precision of a training is one of these
PUBLISHED = 70_000  # training scenes of CLEVR


def rendering(settings: Settings) -> dict:
    """Returns the speed of rendering CLEVR scenes on the device, and their difference from those of the CPU."""
    size, count = (8, 1) if settings.tiny else (128, 512)
    on_device, on_cpu = (ClevrGenerator(size=size, device=device) for device in (settings.device, "cpu"))
    first = next(on_device.scenes(0, min(count, 8)))  # a device is slow at first
    start = time.perf_counter()
    for _ in on_device.scenes(count, 2 * count):
        pass
    seconds = time.perf_counter() - start
    expected = next(on_cpu.scenes(0, len(first[0])))
    return {
        "scenes_per_second": count / seconds,
        "mean_levels_off": float(np.abs(first[0].astype(int) - expected[0]).mean()),
        "labels_that_differ": float((first[1] != expected[1]).mean()),
    }


def choices(settings: Settings, results: dict) -> dict:
    """Returns the choices that follow from the measurements, so that all slices of a training are the same.

    These are the precision of each network, which is bfloat16 if its errors are small enough and it is faster, and the
    number of CLEVR scenes that can be rendered in :data:`RENDERING` seconds.
    """
    made: dict = {}
    for network in ("tetrominoes", "multi_dsprites", "clevr6"):
        slow, fast = (results.get(f"engine/{network}/{way}", {}).get("rows", {}) for way in TRAINED)
        both = slow.get("stopped", {}), fast.get("stopped", {})
        timed = all(each.get("seconds") for each in both)
        holds = all(value["holds"] for name, value in both[1].items() if name.startswith("error of"))
        better = timed and holds and both[1]["seconds"] < both[0]["seconds"]
        made[network] = "bf16-mixed" if better else "32-true"
    rate = results.get("data/rendering", {}).get("scenes_per_second", 0.0)
    scenes = (int(rate * RENDERING) - 2 * SCORED * ClevrDataModule.spare) // 256 * 256
    return made | {"clevr scenes": min(max(scenes, 1024), PUBLISHED)}


def loading(network: str, settings: Settings, results: dict) -> dict:
    """Returns the images per second loaded onto the device, and the share of an update that waits for them."""
    start = time.perf_counter()
    data = settings.datamodule(network, results)
    preparing = time.perf_counter() - start
    device = torch.device(settings.device)
    limit = 0.2 if settings.tiny else 10.0
    images, spent = 0, 0.0
    batches = endless(data)
    _into(device, data, next(batches))
    start = time.perf_counter()
    while spent < limit:
        images += len(_into(device, data, next(batches))["image"])
        synchronize(device)
        spent = time.perf_counter() - start
    waited, updates, of_updates = _waiting(network, settings, data, batches, device, limit)
    return {
        "preparing_seconds": preparing,
        "images_per_second": images / spent,
        "updates_per_second": updates / of_updates,
        "share_waited": waited / of_updates,
    }


def _waiting(network, settings, data, batches, device, limit):
    """Returns the seconds waited for batches, the number of updates, and all seconds."""
    model = settings.model(network).to(device)
    optimizer = model.configure_optimizers()["optimizer"]
    waited, updates, spent, start = 0.0, 0, 0.0, time.perf_counter()
    while spent < limit:
        before = time.perf_counter()
        batch = _into(device, data, next(batches))
        waited += time.perf_counter() - before
        optimizer.zero_grad()
        model.loss(batch)[0].backward()
        optimizer.step()
        updates += 1
        if updates % 10 == 0:  # the host runs ahead, as it does in training
            synchronize(device)
        spent = time.perf_counter() - start
    synchronize(device)
    return waited, updates, time.perf_counter() - start


def endless(data):
    """Yields training batches, epoch after epoch."""
    loader, epoch = data.train_dataloader(), 0
    while True:
        loader.sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


def _into(device, data, batch):
    return data.on_after_batch_transfer(data.transfer_batch_to_device(batch, device, 0), 0)
