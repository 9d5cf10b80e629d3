"""Folders of photographs and of clips."""

import numpy as np
import pytest
from helpers import SMALL
from PIL import Image

from iodine_pl import IODINE
from iodine_pl.cli import run_command
from iodine_pl.datamodules import SceneDataModule, SceneFileError


def photographs(folder):
    """Writes pictures of several sizes, whose middle square is white."""
    for i, (height, width) in enumerate(((30, 40), (50, 20), (16, 16), (21, 80), (33, 32), (17, 64))):
        picture = np.zeros((height, width, 3), np.uint8)
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        picture[top : top + side, left : left + side] = 255
        (folder / f"class {i % 2}" / "deeper").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"class {i % 2}" / ("deeper" if i > 3 else "") / f"{i}.png")


def test_photographs_of_any_size(tmp_path):
    photographs(tmp_path)
    Image.new("L", (40, 30), 255).save(tmp_path / "z gray.jpg")
    data = SceneDataModule(tmp_path, num_val=1, num_test=1, crop="center", resize=8)
    data.prepare_data()
    data.setup("fit")
    assert len(data.dataset) == 7
    assert data.image_size() == (8, 8)
    batch = data.dataset[list(range(7))]
    assert batch["image"].shape == (7, 8, 8, 3)
    assert int(batch["image"].min()) > 250  # only the middle


def test_a_part_in_the_middle_of_another_shape(tmp_path):
    photographs(tmp_path)
    data = SceneDataModule(tmp_path, num_val=1, num_test=1, crop="center", resize=(4, 8))
    data.setup("fit")
    assert data.dataset[[0, 5]]["image"].shape == (2, 4, 8, 3)


def test_one_number_is_the_shorter_side(tmp_path):
    for i in range(3):
        Image.new("RGB", (40, 20)).save(tmp_path / f"{i}.png")
    data = SceneDataModule(tmp_path, num_val=1, num_test=1, resize=10)
    assert data.image_size() == (10, 20)
    Image.new("RGB", (20, 20)).save(tmp_path / "3.png")
    data.setup("fit")
    with pytest.raises(SceneFileError, match=r"3.png is \(10, 10, 3\), but .* one size. Give --data.crop center"):
        data.dataset[[3]]


@pytest.mark.parametrize(("kind", "ending"), [(np.uint16, "png"), (np.float32, "tif")])
def test_pictures_of_more_than_8_bits_are_refused(tmp_path, kind, ending):
    Image.fromarray(np.zeros((4, 4), kind)).save(tmp_path / f"deep.{ending}")
    with pytest.raises(SceneFileError, match=rf"deep.{ending} has more than 8 bits per channel: convert it"):
        SceneDataModule(tmp_path, num_val=0, num_test=0).setup("fit")


def clips(folder, lengths=(7, 2, 9, 3)):
    """Writes frames whose brightness is 10 * clip + number of the frame; they sort by value, not by letter."""
    for clip, length in enumerate(lengths):
        (folder / f"clip{clip}").mkdir(parents=True)
        for number in range(length):
            frame = Image.new("RGB", (16, 8), (10 * clip + number,) * 3)
            frame.save(folder / f"clip{clip}" / f"frame_{number + 5}.png")
    return folder


def test_clips_become_sequences_of_frames_in_order(tmp_path):
    data = SceneDataModule(clips(tmp_path), num_val=1, num_test=1, frames=3, batch_size=2)
    data.prepare_data()
    data.setup("fit")
    assert data.image_size() == (8, 16)
    batch = data.scenes(range(len(data.dataset)))
    assert batch["image"].shape == (6, 3, 3, 8, 16)
    brightness = (batch["image"][:, :, 0, 0, 0] * 255).round().int().tolist()
    assert brightness == [[0, 1, 2], [3, 4, 5], [20, 21, 22], [23, 24, 25], [26, 27, 28], [30, 31, 32]]
    with pytest.raises(SceneFileError, match=r"at most 9 frames, but frames=10. Ask for fewer"):
        SceneDataModule(tmp_path, num_val=1, num_test=1, frames=10).setup("fit")
    with pytest.raises(SceneFileError, match=r"is a file, but frames=3 needs a folder"):
        SceneDataModule(next(tmp_path.rglob("*.png")), frames=3).setup("fit")


def test_a_model_learns_from_clips(tmp_path):
    data = SceneDataModule(clips(tmp_path), num_val=1, num_test=1, frames=3, crop="center", resize=6)
    data.setup("fit")
    batch = data.scenes([0, 1])
    model = IODINE(**SMALL | {"num_iterations": 2, "head": "predictor_corrector"})
    assert np.isfinite(float(model.loss(batch["image"])[0].detach()))


@pytest.mark.filterwarnings("ignore:The images have no labels")
def test_the_command_trains_on_photographs(tmp_path, monkeypatch):
    photographs(tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    options = ["--data", "SceneDataModule", "--data.path", "pictures", "--data.crop", "center", "--data.resize", "8"]
    options += ["--data.num_val", "1", "--data.num_test", "1", "--data.batch_size", "2", "--trainer.accelerator", "cpu"]
    options += ["--trainer.max_steps", "1", "--model.num_slots", "2", "--model.num_iterations", "1"]
    options += ["--model.latent_size", "4", "--model.decoder_channels", "[4]", "--model.encoder_channels", "[4]"]
    run_command(["fit", *options, "--model.mlp_sizes", "[4]", "--model.lstm_size", "4"])
    assert list(tmp_path.glob("runs/*/version_0/**/*.ckpt"))
