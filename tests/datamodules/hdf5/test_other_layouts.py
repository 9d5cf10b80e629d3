"""Files of other projects, read as they are."""

import h5py
import numpy as np
import pytest
import torch
from reference import DATA
from scene_files import efficientmorl, hhousen, noise, npz, object_centric_library, planes

from iodine_pl.datamodules import ClevrDataModule, SceneDataModule, SceneDataset, SceneFileError
from iodine_pl.datamodules.deepmind.conversion import convert
from iodine_pl.datamodules.deepmind.releases import CLEVR
from iodine_pl.files.tensorflow.tfrecord import parse_example, read_records


@pytest.mark.parametrize("storage", [{}, {"chunks": True, "compression": "gzip"}, {"chunks": True, "shuffle": True}])
def test_efficientmorl(tmp_path, storage):
    scenes = SceneDataset(efficientmorl(tmp_path / "a.h5", {"train": 80, "val": 3, "test": 4}, **storage))
    assert {name: (int(at[0]), len(at)) for name, at in scenes.splits.items()} == {
        "train": (0, 80),
        "val": (80, 3),
        "test": (83, 4),
    }
    for count, first, rows in ((80, 0, [0, 79, 64, 3]), (4, 83, [0, 3])):
        image, label, factors = noise(count, seed=count)
        batch = scenes[[first + row for row in rows]]
        np.testing.assert_array_equal(batch["image"], image[rows])
        np.testing.assert_array_equal(batch["label"], label[rows])
        np.testing.assert_array_equal(batch["factors"]["kind"], factors["kind"][rows])
        np.testing.assert_array_equal(batch["num_objects"], factors["visibility"][rows, 1:].sum(1))


def test_splits_of_several_files_are_joined(tmp_path):
    efficientmorl(tmp_path / "a.h5", {"train": 4, "val": 3})
    efficientmorl(tmp_path / "a_test.h5", {"train": 2, "test": 5})
    splits = SceneDataset(tmp_path / "a*.h5").splits
    expected = {"train": [0, 1, 2, 3, 7, 8], "val": [4, 5, 6], "test": [9, 10, 11, 12, 13]}
    assert {name: at.tolist() for name, at in splits.items()} == expected


def test_hhousen_clevr_is_cropped_and_resized_to_what_the_tfrecords_become(tmp_path):
    source = DATA / "clevr_synth.tfrecords"
    records = [parse_example(record, CLEVR.features) for record in read_records(source)]
    image, mask = (np.stack([record[name] for record in records]) for name in ("image", "mask"))
    label = mask[..., 0].argmax(axis=1).astype(np.uint8)
    factors = {name: np.stack([record[name] for record in records]) for name in ("visibility", "color", "pixel_coords")}
    path = hhousen(tmp_path / "clevr_with_masks.h5", image, label, factors, entities=11)
    data = ClevrDataModule(path, num_train=5, num_val=1, num_test=1, crop=(29, 64, 192, 192), resize=64)
    data.prepare_data()
    data.setup("fit")
    assert data.image_size() == (64, 64)
    convert(source, tmp_path / "ours.h5", CLEVR, size=64)
    at = list(range(len(records)))
    batch, ours = data.dataset[at], SceneDataset(tmp_path / "ours.h5")[at]
    for name in ("image", "label", "num_objects"):
        np.testing.assert_array_equal(batch[name], ours[name])
    for name in factors:
        np.testing.assert_array_equal(batch["factors"][name], ours["factors"][name])


def test_object_centric_library(tmp_path):
    image, label, factors = noise(6)
    batch = SceneDataset(object_centric_library(tmp_path / "a.hdf5"))[[4, 1]]
    np.testing.assert_array_equal(batch["image"], image[[4, 1]])
    np.testing.assert_array_equal(batch["label"], label[[4, 1]])
    np.testing.assert_array_equal(batch["num_objects"], factors["visibility"][[4, 1], 1:].sum(1))
    assert sorted(batch["factors"]) == ["kind", "num_actual_objects", "tint", "visibility"]
    np.testing.assert_array_equal(batch["factors"]["kind"], factors["kind"][[4, 1]])


def test_fields_that_are_no_factors_are_left_out(tmp_path):
    with h5py.File(object_centric_library(tmp_path / "a.hdf5"), "a") as file:
        file["background"] = np.zeros((6, 64, 64, 3), np.uint8)
        file["names"] = ["a", "b"]
        file["version"] = 3
    assert sorted(SceneDataset(tmp_path / "a.hdf5").factors) == ["kind", "num_actual_objects", "tint", "visibility"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_npz_pairs(tmp_path, save, dtype):
    image, label, _ = noise(100)
    scenes = SceneDataset(npz(tmp_path / "a.npz", 100, save, dtype))
    assert len(scenes) == 100
    assert scenes.image_shape == (6, 6, 3)
    batch = scenes[[99, 0, 64, 7]]
    np.testing.assert_array_equal(batch["image"], image[[99, 0, 64, 7]])
    np.testing.assert_array_equal(batch["label"], label[[99, 0, 64, 7]])


def test_npz_in_the_order_of_fortran_and_without_labels(tmp_path):
    image, _, _ = noise(9)
    np.savez(tmp_path / "a.npz", images=np.asfortranarray(np.moveaxis(image, 3, 1)), other=np.array([None]))
    batch = SceneDataset(tmp_path / "a.npz")[[8, 2]]
    np.testing.assert_array_equal(batch["image"], image[[8, 2]])
    assert "label" not in batch


@pytest.mark.parametrize(
    "masks",
    [
        lambda label: planes(label)[..., 0],
        lambda label: np.moveaxis(planes(label), 4, 2),
        lambda label: planes(label)[..., 0] > 0,
        lambda label: planes(label)[..., 0] / 255,
        lambda label: label[:, None],
        lambda label: label.astype(np.int16),
    ],
)
@pytest.mark.parametrize("scale", [1, np.float32(1 / 255)])
def test_mesh(tmp_path, masks, scale):
    image, label, _ = noise(9)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = np.moveaxis(image, 3, 1) * scale
        file["masks"] = masks(label)
    batch = SceneDataset(tmp_path / "a.h5")[[8, 2]]
    np.testing.assert_array_equal(batch["image"], image[[8, 2]])
    np.testing.assert_array_equal(batch["label"], label[[8, 2]])


def test_labels_are_resized_by_the_nearest_pixel(tmp_path):
    label = noise(3, size=12)[1]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = np.repeat(label[..., None] * np.uint8(80), 3, axis=3)
        file["mask"] = planes(label)
    data = SceneDataModule(tmp_path / "a.h5", num_val=1, num_test=1, crop=(2, 0, 9, 12), resize=(3, 4))
    data.setup("fit")
    batch = data.scenes([2, 0])
    np.testing.assert_array_equal(batch["label"], label[[2, 0], 2:11][:, 1::3, 1::3])
    assert batch["image"].shape == (2, 3, 3, 4)
    mean = label[0, 2:11].reshape(3, 3, 4, 3).mean(axis=(1, 3)) * 80 / 255
    assert float((batch["image"][1, 0] - torch.from_numpy(mean)).abs().mean()) < 0.15  # of all pixels, not of one


def test_a_crop_that_is_not_in_the_image(tmp_path):
    object_centric_library(tmp_path / "a.h5")
    with pytest.raises(
        SceneFileError, match=r"a.h5: image has 6 rows and 6 columns: the crop \[2, 0, 5, 5\] .* not in it"
    ):
        SceneDataModule(tmp_path / "a.h5", num_val=1, num_test=1, crop=(2, 0, 5, 5)).setup("fit")
    with pytest.raises(ValueError, match=r"crop must be center or TOP, LEFT, HEIGHT, WIDTH"):
        SceneDataModule(tmp_path / "a.h5", crop=(-1, 0, 5, 5))
    with pytest.raises(ValueError, match="resize must be at least 1 pixel, got 0"):
        SceneDataModule(tmp_path / "a.h5", resize=0)
