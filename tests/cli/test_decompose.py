"""Slots of one's own pictures, by the command and in Python."""

import logging
import sys

import numpy as np
import pytest
import torch
from helpers import Images, fit, small
from PIL import Image

import iodine_pl
from iodine_pl import showing
from iodine_pl.checkpoints.exporting import export_weights
from iodine_pl.cli import main
from iodine_pl.cli.decompose import decompose
from iodine_pl.evaluation.panels import slot_panel, slot_rows
from iodine_pl.files.pictures import PictureError


def pixels(height, width, *channels, seed=0):
    return np.random.default_rng(seed).integers(256, size=(height, width, *channels), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels(40, 60, 3)).save("wide.png")
    Image.fromarray(pixels(35, 35, 3)).save("square.png")
    Image.fromarray(pixels(50, 30)).save("gray.png")
    Image.fromarray(pixels(20, 20).astype(np.uint16) * 256).save("deep.png")
    (tmp_path / "notes.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes((tmp_path / "wide.png").read_bytes()[:2000])
    return tmp_path


def typed(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["iodine", *arguments])
    monkeypatch.setattr("iodine_pl.cli.entry.prepare_process", lambda: None)  # it changes the whole process
    return main("decompose")


def test_decompose_writes_a_panel(folder, monkeypatch, capsys):
    assert typed(monkeypatch, "wide.png", "square.png", "--weights", "tetrominoes", "--num_iterations", "1") == 0
    assert capsys.readouterr().out == "slots: slots.png\n"
    with Image.open("slots.png") as panel:
        assert panel.size[1] // 111 == 2  # 35 pixels enlarged to 105, in frames
        assert panel.size[0] // 111 == 6  # three slots


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["deep.png"], "deep.png has more than 8 bits per channel: convert it to 8 bits first"),
        (["notes.png"], "notes.png is no picture that can be read: give a PNG, JPEG, BMP or WebP file"),
        (["cut.png"], "cut.png cannot be read as a picture"),
        (["none.png"], "there is no picture none.png"),
        (["."], ". is a folder: give its pictures"),
        (["wide.png", "--out", "wide.png"], "wide.png is one of the images: name another file by --out"),
        (["wide.png", "--out", "slots.jpg"], "slots.jpg is not the name of a PNG file"),
        (["wide.png", "--weights", "clevr7"], "there is no checkpoint clevr7"),
        (["wide.png", "--crop", "[0,0,41]"], "wide.png has 40 rows and 60 columns: the crop [0, 0, 41] is not in it"),
        (["wide.png", "--num_slots", "0"], "error: num_slots must be at least 1 and num_iterations at least 0, got 0"),
        (["wide.png", "--size", "0"], "the size must be at least 1 pixel, got 0"),
    ],
)
def test_an_error_is_one_line(folder, monkeypatch, capsys, arguments, words):
    assert typed(monkeypatch, *arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert words in shown.err
    assert shown.err.count("\n") == 1
    assert not (folder / "slots.png").exists()
    assert not list(folder.glob("*.partial"))


def test_an_error_leaves_the_picture_that_was_there(folder):
    (folder / "slots.png").write_text("old")
    with pytest.raises(PictureError, match="8 bits"):
        decompose([folder / "deep.png"])
    assert (folder / "slots.png").read_text() == "old"


def test_a_color_picture_with_16_bits_is_refused(folder):
    import struct
    import zlib

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(range(24))) * 4)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (folder / "color.png").write_bytes(file)
    with pytest.raises(PictureError, match=r"color.png has more than 8 bits"):
        iodine_pl.show(small(), "color.png", size=8)


@pytest.fixture
def shown(monkeypatch):
    """The images (B, C, H, W) of every panel that is drawn."""
    images = []
    monkeypatch.setattr(showing, "slot_rows", lambda *row: images.append(row[0]) or slot_rows(*row))
    return images


def test_the_size_is_that_of_training(folder, shown, caplog):
    """If the weights do not hold it, it is taken from their data."""
    caplog.set_level(logging.INFO)
    for name, side in {"tetrominoes": 35, "multi_dsprites_32px": 32}.items():
        caplog.clear()
        for model in (name, iodine_pl.IODINE.from_pretrained(name)):
            iodine_pl.show(model, "wide.png", num_iterations=0)
            assert shown.pop().shape[2:] == (side, side)
        said = f"The images are resized to {side}x{side} pixels, the size of the training images"
        assert caplog.text.count(said) == 2
    iodine_pl.show(model, "wide.png", size=20, num_iterations=0)
    assert shown.pop().shape[2:] == (20, 20)


def test_a_model_remembers_the_size_that_it_was_trained_on(folder, shown, caplog):
    caplog.set_level(logging.INFO)
    model = small(num_iterations=1)
    fit(model, Images(), folder, max_steps=1).save_checkpoint("whole.ckpt")
    export_weights("whole.ckpt", folder / "mine.ckpt")
    loaded = [iodine_pl.IODINE.load_from_checkpoint("whole.ckpt"), iodine_pl.IODINE.from_pretrained("mine.ckpt")]
    for source in (model, *loaded, "whole.ckpt", "mine.ckpt"):
        iodine_pl.show(source, "wide.png")
        assert shown.pop().shape[2:] == (8, 8)
    caplog.clear()
    iodine_pl.show(model, pixels(8, 8, 3))
    iodine_pl.show(model, "wide.png", size=9)
    iodine_pl.show(small(), "wide.png")
    assert [images.shape[2:] for images in shown] == [(8, 8), (9, 9), (40, 60)]
    assert "The images are made" not in caplog.text


def test_images_that_were_not_square_in_the_training(folder, shown):
    model = small(num_iterations=1)
    model.trained_size = (40, 60)
    iodine_pl.show(model, "wide.png")
    assert shown.pop().shape[2:] == (40, 60)
    iodine_pl.show(model, "wide.png", crop=(2, 1, 8), size=8)
    assert shown.pop().shape[2:] == (8, 8)
    for image, crop in (("square.png", None), ("wide.png", (2, 1, 8))):
        with pytest.raises(PictureError, match=r"trained on images of 40x60 pixels .*: give the size, the side"):
            iodine_pl.show(model, image, crop=crop)


def test_the_size_is_in_the_data_that_a_checkpoint_names(folder, monkeypatch, shown, capsys):
    weights = torch.load(iodine_pl.pretrained.FOLDER / "tetrominoes.ckpt", weights_only=True)
    data = {"class_path": "iodine_pl.datamodules.ClevrDataModule", "init_args": {"size": 24, "pixel_stride": 2}}
    torch.save(weights | {"data": data}, "mine.ckpt")
    iodine_pl.show("mine.ckpt", "wide.png", num_iterations=0)
    assert shown.pop().shape[2:] == (12, 12)
    gone = {"class_path": "iodine_pl.datamodules.SceneDataModule", "init_args": {"path": "gone.h5"}}
    for known in ({"data": gone}, {}):
        torch.save({name: weights[name] for name in weights if name != "data"} | known, "mine.ckpt")
        assert typed(monkeypatch, "wide.png", "--weights", "mine.ckpt") == 2
        said = capsys.readouterr().err
        assert "the size of the images that mine.ckpt was trained on is not known: give --size, the side in pix" in said
        assert typed(monkeypatch, "wide.png", "--weights", "mine.ckpt", "--size", "16", "--num_iterations", "0") == 0


def test_the_panel_is_that_of_evaluation():
    model = small(num_iterations=1).train()
    images = torch.from_numpy(pixels(12, 12, 3, seed=1)).permute(2, 0, 1)[None]
    shown = iodine_pl.show(model, images, num_slots=2, num_iterations=3)
    assert model.training
    model.eval()
    with torch.no_grad():
        result = model.decompose({"image": images, "index": torch.arange(1)}, num_slots=2, num_iterations=3)
    np.testing.assert_array_equal(np.asarray(shown), slot_panel(images / 255, result))


def test_all_kinds_of_images_in_one_picture(folder):
    values = pixels(35, 35, 3)
    tensor = torch.from_numpy(values).permute(2, 0, 1)
    kinds = ["square.png", Image.fromarray(values), values, values / 255, tensor, tensor[None] / 255]
    model = small(batch_size=1)
    panels = [np.asarray(iodine_pl.show(model, kind)) for kind in kinds]
    for panel in panels[1:]:
        np.testing.assert_array_equal(panel, panels[0])
    assert np.asarray(iodine_pl.show(model, [*kinds, "wide.png", pixels(9, 7)], size=10)).shape[0] == 8 * 106 + 28
    with pytest.raises(PictureError, match="differ in size: give size="):
        iodine_pl.show(model, ["square.png", "wide.png"])


def test_the_middle_or_the_crop(shown):
    values = pixels(12, 20, 3)
    iodine_pl.show(small(), values, size=12)
    iodine_pl.show(small(), values, crop=(2, 1, 8))
    for images, square in zip(shown, (values[:, 4:16], values[2:10, 1:9]), strict=True):
        np.testing.assert_array_equal((images[0].permute(1, 2, 0) * 255).round().numpy(), square)


def test_gray_and_color_are_converted_and_it_says_so(folder, caplog):
    caplog.set_level(logging.INFO)
    iodine_pl.show(small(), "gray.png", size=8)
    assert "gray.png is gray; the model takes colored images, so it is converted" in caplog.text
    iodine_pl.show(small(image_channels=1), pixels(8, 8, 3))
    assert "image 0 is colored; the model takes gray images, so it is converted" in caplog.text
    caplog.clear()
    iodine_pl.show(small(image_channels=1), "gray.png", size=8)
    assert "converted" not in caplog.text


def test_transparent_parts_are_white(folder):
    values = np.zeros((8, 8, 4), np.uint8)
    values[:, 4:, 3] = 255
    Image.fromarray(values).save("clear.png")
    panel = np.asarray(iodine_pl.show(small(), "clear.png"))
    tile = panel[-101:-5, 5:101]
    assert (tile[:, :48] == 255).all()
    assert (tile[:, 48:] == 0).all()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((8, 8, 4), np.uint8), r"image 0 has the shape \(8, 8, 4\)"),
        (np.zeros((8, 8), np.uint16), "image 0 is uint16: give uint8, or float"),
        (np.full((8, 8), 2.0), r"image 0 has values from 2 to 2: scale them to \[0, 1\]"),
        (Image.fromarray(np.zeros((8, 8), np.uint16)), "more than 8 bits per channel"),
        ([], "there are no pictures"),
    ],
)
def test_wrong_images_are_refused(image, words):
    with pytest.raises(PictureError, match=words):
        iodine_pl.show(small(), image)


def test_a_picture_that_makes_the_model_overflow_is_named():
    model = small()
    torch.nn.init.constant_(model.decoder.output.bias, torch.inf)
    with pytest.raises(PictureError, match=r"^image 0 is so unlike the images of the training .* take other weights"):
        iodine_pl.show(model, pixels(8, 8, 3))
