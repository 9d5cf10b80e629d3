import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from command import start
from helpers import SMALL, trainer
from PIL import Image
from records import example, scenes, write
from reference import DATA
from scene_files import stored_singly

from iodine_pl import IODINE
from iodine_pl.datamodules import (
    ClevrDataModule,
    MultiDSpritesDataModule,
    SceneDataModule,
    SceneFileError,
    TetrominoesDataModule,
)
from iodine_pl.datamodules.loader import SceneLoader

SIZES = {"num_train": 80, "num_val": 9, "num_test": 7, "batch_size": 8}


def made(tmp_path, **arguments):
    datamodule = TetrominoesDataModule(data_dir=tmp_path, **(SIZES | arguments))
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


def indices(loader):
    return [index for batch in loader for index in batch["index"].tolist()]


def test_a_set_is_generated_once_and_this_is_logged(tmp_path, caplog, monkeypatch):
    import logging

    caplog.set_level(logging.INFO)
    datamodule = made(tmp_path)
    assert "80 scenes" not in caplog.text
    assert "96 scenes are generated" in caplog.text
    assert "--data.path tetrominoes_train.tfrecords" in caplog.text
    (file,) = datamodule.files
    changed = file.stat().st_mtime_ns
    made(tmp_path)
    assert file.stat().st_mtime_ns == changed
    assert list(tmp_path.rglob("*.h5")) == [file]


def test_splits_follow_one_another(tmp_path):
    datamodule = made(tmp_path)
    assert sorted(indices(datamodule.train_dataloader())) == list(range(80))
    assert indices(datamodule.val_dataloader()) == list(range(80, 89))
    assert indices(datamodule.test_dataloader()) == indices(datamodule.predict_dataloader()) == list(range(89, 96))
    for kind, train in ((TetrominoesDataModule, 60_000), (MultiDSpritesDataModule, 60_000), (ClevrDataModule, 70_000)):
        assert (kind().num_train, kind().num_val, kind().num_test) == (train, 320, 320)


def test_images_are_bytes_until_they_are_on_the_device(tmp_path):
    datamodule = made(tmp_path)
    batch = next(iter(datamodule.val_dataloader()))
    assert batch["image"].dtype == torch.uint8
    moved = datamodule.on_after_batch_transfer(batch, 0)
    assert moved["image"].dtype == torch.float32
    assert 0.9 < float(moved["image"].max()) <= 1.0
    torch.testing.assert_close(moved["image"], batch["image"] / 255)
    assert moved["label"].dtype == torch.uint8


def test_scenes_are_as_the_model_gets_them(tmp_path):
    datamodule = made(tmp_path, pixel_stride=2)
    batch = datamodule.on_after_batch_transfer(next(iter(datamodule.val_dataloader())), 0)
    scenes = datamodule.scenes(range(80, 88))
    assert scenes.keys() == batch.keys()
    assert scenes["factors"].keys() == batch["factors"].keys()
    for name in ("image", "label", "num_objects", "index"):
        torch.testing.assert_close(scenes[name], batch[name], rtol=0, atol=0)


def test_a_stride_leaves_out_pixels_of_images_and_labels(tmp_path):
    whole, some = made(tmp_path), made(tmp_path, pixel_stride=2)
    batch = next(iter(some.val_dataloader()))
    every, second = (data.on_after_batch_transfer(batch, 0) for data in (whole, some))
    assert second["image"].shape[1:] == (3, 18, 18)
    assert second["label"].shape[1:] == (18, 18)
    for i in (0, 5, 17):
        assert torch.equal(second["image"][:, :, i, 3], every["image"][:, :, 2 * i, 6])
        assert torch.equal(second["label"][:, i, 3], every["label"][:, 2 * i, 6])
    with pytest.raises(ValueError, match="pixel_stride must be at least 1, got 0"):
        made(tmp_path, pixel_stride=0)


@pytest.mark.parametrize(("context", "workers"), [("fork", 2), ("spawn", 1), ("forkserver", 1)])
def test_workers_change_nothing(tmp_path, context, workers):
    """Only forked workers are fast enough here: others import torch first."""
    alone = [batch["index"].tolist() for batch in made(tmp_path).train_dataloader()]
    loader = made(tmp_path, num_workers=workers, multiprocessing_context=context).train_dataloader()
    assert [batch["index"].tolist() for batch in loader] == alone


def test_workers_bring_the_same_batches(tmp_path):
    alone, helped = (list(made(tmp_path, num_workers=workers).val_dataloader()) for workers in (0, 2))
    for one, other in zip(alone, helped, strict=True):
        assert one.keys() == other.keys()
        assert one["factors"].keys() == other["factors"].keys()
        for name in ("image", "label", "num_objects", "index"):
            torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)
            assert one[name].stride() == other[name].stride()
        for name, values in one["factors"].items():
            torch.testing.assert_close(values, other["factors"][name], rtol=0, atol=0)


KILLED = """
import multiprocessing, os, signal
from pathlib import Path
from iodine_pl.datamodules import TetrominoesDataModule

data = TetrominoesDataModule(num_train=512, num_val=1, num_test=1, batch_size=64, num_workers=2, data_dir="data")
data.prepare_data()
data.setup("fit")
batches = iter(data.train_dataloader())
next(batches)
Path("workers").write_text(" ".join(str(child.pid) for child in multiprocessing.active_children()))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the state of a process where Linux tells it")
def test_workers_end_when_their_process_is_killed(tmp_path):
    """They have read more than a pipe holds, and nobody takes it any more."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    killed = start(folder=tmp_path, script=script)
    assert killed.wait(120) == -signal.SIGKILL, killed.communicate()[0]
    workers = [Path("/proc", pid) for pid in (tmp_path / "workers").read_text().split()]
    assert len(workers) == 2

    def runs(process):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return (process / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        return False

    deadline = time.monotonic() + 30
    try:
        while any(map(runs, workers)):
            assert time.monotonic() < deadline, "workers are left"
            time.sleep(0.05)
    finally:
        for process in filter(runs, workers):
            os.kill(int(process.name), signal.SIGKILL)


def test_a_worker_that_stops_answering_is_an_error(tmp_path, monkeypatch):
    data = made(tmp_path, num_workers=1, worker_timeout=1.0, multiprocessing_context="fork")
    monkeypatch.setattr(type(data.dataset), "__getitem__", lambda *_: time.sleep(600))
    with pytest.raises(RuntimeError, match=r"timed out after 1\.0 seconds"):
        next(iter(data.val_dataloader()))


def test_a_tfrecord_file_is_converted_once(tmp_path):
    source = write(tmp_path / "scenes.tfrecords", [example(scene) for scene in scenes(100)])
    datamodule = made(tmp_path, path=source)
    (file,) = datamodule.files
    assert file.name == "scenes.tfrecords.h5"
    assert len(datamodule.dataset) == 96
    converted = file.stat().st_mtime_ns
    assert len(made(tmp_path, path=source, num_val=3).dataset) == 96  # fewer are there already
    assert file.stat().st_mtime_ns == converted
    assert len(made(tmp_path, path=source, num_val=10).dataset) == 97
    assert file.stat().st_mtime_ns > converted
    source.unlink()
    assert indices(made(tmp_path, path=source).val_dataloader()) == list(range(80, 89))
    assert indices(made(tmp_path, path=file).val_dataloader()) == list(range(80, 89))
    with pytest.raises(SceneFileError, match=r"there is no file .*scenes.tfrecords. Leave path out"):
        made(tmp_path, path=source, num_val=20)


def test_a_tfrecord_file_that_was_completed_is_converted_anew(tmp_path):
    records = [example(scene) for scene in scenes(96)]
    source = write(tmp_path / "scenes.tfrecords", records[:50], compress=False)
    for _ in range(2):
        with pytest.raises(SceneFileError, match=r"has 50 images, but .* need 96"):
            made(tmp_path, path=source)
    (file,) = TetrominoesDataModule(source).files
    converted = file.stat().st_mtime_ns
    with pytest.raises(SceneFileError, match="has 50 images"):
        made(tmp_path, path=source)
    assert file.stat().st_mtime_ns == converted  # that is all the source has
    write(source, records, compress=False)
    assert indices(made(tmp_path, path=source).val_dataloader()) == list(range(80, 89))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scenes.tfrecords", "scenes.tfrecords.h5"]


def test_splits_follow_the_numbers_and_the_factors(tmp_path):
    """Training leaves out a combination of factors, and the test has only scenes with it."""
    arguments = {"exclude": {"shape": 19, "color": [1, 0, 0]}, "num_val": 2, "num_test": 1}
    datamodule = made(tmp_path, **arguments)

    def has_it(loader):
        return [
            bool(((batch["factors"]["shape"][i] == 19) & (batch["factors"]["color"][i] == red).all(-1)).any())
            for batch in loader
            for i in range(len(batch["index"]))
        ]

    red = torch.tensor([1.0, 0.0, 0.0])
    assert not any(has_it(datamodule.train_dataloader()) + has_it(datamodule.val_dataloader()))
    seen = SIZES | {"num_train": 400, "num_val": 50, "num_test": 50}
    everything = made(tmp_path, **seen)
    expected = sum(has_it(everything.train_dataloader()))
    fewer = made(
        tmp_path,
        **(seen | {"num_val": 2, "num_test": 1, "path": everything.files[0]} | {"exclude": arguments["exclude"]}),
    )
    assert len(fewer.splits["train"]) == 400 - expected
    held_out = made(
        tmp_path,
        **(seen | {"num_train": 200, "num_val": 2, "num_test": 1, "path": everything.files[0]}),
        exclude=arguments["exclude"],
        test_split="excluded",
    )
    assert has_it(held_out.test_dataloader()) == [True]


def test_a_pattern_and_a_folder_of_shards(tmp_path):
    for i in range(3):
        stored_singly(tmp_path / f"mine-{i}.h5", 8, seed=i)
    for path in (tmp_path / "mine-*.h5", tmp_path):
        datamodule = SceneDataModule(path, num_val=3, num_test=2, batch_size=4)
        datamodule.prepare_data()
        datamodule.setup("fit")
        assert {name: len(at) for name, at in datamodule.splits.items()} == {"train": 19, "val": 3, "test": 2}
        assert len(set(indices(datamodule.train_dataloader()))) == 16


def test_ranks_and_workers_share_an_epoch(tmp_path):
    """Every image is seen once for any number of processes and workers, and workers do not change the batches."""
    stored_singly(tmp_path / "a.h5", 64)
    parts = {}
    for workers in (0, 2):
        for rank in range(2):
            datamodule = SceneDataModule(tmp_path / "a.h5", num_val=2, num_test=2, batch_size=5, num_workers=workers)
            datamodule.setup("fit")
            sampler = datamodule._sampler("train", shuffle=True)
            sampler.num_replicas, sampler.rank = 2, rank
            parts[workers, rank] = indices(datamodule._loader(SceneLoader, sampler))
    assert parts[0, 0] == parts[2, 0]
    assert parts[0, 1] == parts[2, 1]
    assert len(set(parts[0, 0] + parts[0, 1])) == 60


@pytest.mark.parametrize("batches", [2, 0.5])
def test_overfitting_sees_the_same_batches_in_every_epoch(tmp_path, batches):
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.append(batch["index"].tolist())

    data = TetrominoesDataModule(data_dir=tmp_path, **SIZES | {"num_train": 32})
    made = trainer(tmp_path, Watch(), overfit_batches=batches, max_epochs=3)
    made.fit(IODINE(**SMALL), data)
    assert seen == 3 * [list(range(8)), list(range(8, 16))]


def test_images_with_other_channels_than_the_model_are_refused(tmp_path):
    datamodule = MultiDSpritesDataModule(data_dir=tmp_path, variant="binarized", **SIZES)
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, logger=False, default_root_dir=tmp_path)
    with pytest.raises(SceneFileError, match=r"images of 1 channel.* made for 3: give --model.image_channels 1"):
        trainer.fit(IODINE(**SMALL), datamodule)


def test_missing_files_and_scenes_are_named(tmp_path):
    with pytest.raises(SceneFileError, match=r"there is no file .*nowhere.h5. Leave path out"):
        made(tmp_path, path=tmp_path / "nowhere.h5")
    datamodule = made(tmp_path)
    with pytest.raises(
        SceneFileError, match=r"has 96 images, but num_train=80, num_val=9, num_test=8 need 97. Ask for fewer"
    ):
        made(tmp_path, path=datamodule.files[0], num_test=8)
    with pytest.raises(SceneFileError, match=r"80 training images do not make one batch of 81 on each of 1 process"):
        made(tmp_path, batch_size=81).train_dataloader()
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        made(tmp_path, batch_size=0)


def test_fewer_images_than_processes_are_refused(tmp_path):
    """A process without a batch would keep the others waiting."""
    datamodule = made(tmp_path, num_val=1)
    datamodule.trainer = SimpleNamespace(global_rank=1, world_size=2)
    with pytest.raises(SceneFileError, match=r"1 image\(s\) for val are too few for 2 processes.* raise num_val"):
        datamodule.val_dataloader()
    assert len(datamodule.test_dataloader()) == 1


def test_the_ten_real_records_train(tmp_path):
    source = tmp_path / "tetrominoes_train.tfrecords"
    source.write_bytes((DATA / "tetrominoes_mini.tfrecords").read_bytes())
    datamodule = TetrominoesDataModule(source, num_train=6, num_val=2, num_test=2, batch_size=3)
    model = IODINE(**SMALL, batch_size=3, learning_rate=0.03)
    losses = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            losses.append(float(trainer.callback_metrics["train/loss"]))

    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=15,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[Watch()],
        default_root_dir=tmp_path,
    )
    trainer.fit(model, datamodule)
    assert len(losses) == 30
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    assert trainer.test(model, datamodule)[0]["test/nll"] < losses[0]


@pytest.mark.parametrize("count", [1, 5])
def test_all_images_of_a_folder_are_predicted(tmp_path, count):
    for i in range(count):
        Image.fromarray(np.full((6, 8, 3), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    datamodule = ClevrDataModule(tmp_path, batch_size=2, max_objects=6)  # images alone do not say how many objects
    datamodule.prepare_data()
    datamodule.setup("predict")
    assert indices(datamodule.predict_dataloader()) == list(range(count))
    assert datamodule.image_size() == (6, 8)
    with pytest.raises(SceneFileError, match="does not say how many objects"):
        datamodule.setup("test")
    with pytest.raises(SceneFileError, match=f"has {count} scenes, and num_val=320 and num_test=320 leave"):
        SceneDataModule(tmp_path).setup("fit")


def test_the_size_of_images_is_known_before_they_are_made(tmp_path):
    assert ClevrDataModule(size=24, data_dir=tmp_path).image_size() == (24, 24)
    assert TetrominoesDataModule(pixel_stride=2, data_dir=tmp_path).image_size() == (18, 18)
    assert not list(tmp_path.iterdir())
    with pytest.raises(SceneFileError, match="there is no data file"):
        SceneDataModule(tmp_path / "gone.h5").image_size()
