import h5py
import numpy as np
import pytest
from records import example, scenes, write
from reference import DATA

from iodine_pl.datamodules import SceneDataset, TFRecordError
from iodine_pl.datamodules.deepmind.conversion import convert
from iodine_pl.datamodules.deepmind.releases import CLEVR, MULTI_DSPRITES, TETROMINOES
from iodine_pl.datamodules.deepmind.resizing import crop_and_resize
from iodine_pl.datamodules.hdf5.masks import label_map, membership_map
from iodine_pl.files.tensorflow.tfrecord import parse_example, read_records


def test_real_records(tmp_path):
    target = tmp_path / "real.h5"
    source = DATA / "tetrominoes_mini.tfrecords"
    assert convert(source, target, TETROMINOES) == 10
    batch = SceneDataset(target)[list(range(10))]
    assert batch["image"].shape == (10, 35, 35, 3)
    assert (batch["num_objects"] == 3).all()
    for entity in (1, 2, 3):
        assert ((batch["label"] == entity).sum((1, 2)) == 100).all()
    assert (batch["image"].max(axis=-1)[batch["label"] == 0] == 0).all()  # the background is black
    assert sorted(batch["factors"]) == ["color", "shape", "visibility", "x", "y"]
    with h5py.File(target) as file:
        assert dict(file.attrs) == {
            "format": b"iodine-pl/1",
            "dataset": b"tetrominoes",
            "source": b"tetrominoes_mini.tfrecords",
            "source_size": source.stat().st_size,
            "source_modified": source.stat().st_mtime_ns,
            "complete": True,
        }


def test_no_record_beyond_the_limit_is_read(tmp_path):
    source = write(tmp_path / "file.tfrecords", [example(scene) for scene in scenes(5)])
    source.write_bytes(source.read_bytes()[:-20])  # cut off in the last record
    assert convert(source, tmp_path / "some.h5", TETROMINOES, limit=4) == 4
    with pytest.raises(TFRecordError, match=r"ends inside record 4; .* ask for the first 4 records"):
        convert(source, tmp_path / "all.h5", TETROMINOES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.tfrecords", "some.h5"]


def test_the_converted_file_holds_the_original_scenes(tmp_path):
    originals = scenes(300)
    source = write(tmp_path / "file.tfrecords", [example(scene) for scene in originals])
    convert(source, tmp_path / "file.h5", TETROMINOES)
    batch = SceneDataset(tmp_path / "file.h5")[[299, 0, 255, 256]]
    for row, i in enumerate((299, 0, 255, 256)):
        np.testing.assert_array_equal(batch["image"][row], originals[i]["image"])
        np.testing.assert_array_equal(batch["label"][row], originals[i]["mask"][..., 0].argmax(0))
        for name in ("x", "y", "shape", "color", "visibility"):
            np.testing.assert_array_equal(batch["factors"][name][row], originals[i][name])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda scene: scene.pop("color"), "no feature color"),
        (lambda scene: scene.update(image=scene["image"][:20]), "image has 2100 elements, not 3675"),
    ],
)
def test_a_wrong_record_is_named_and_nothing_is_left(tmp_path, change, words):
    originals = scenes(3)
    originals[2] = dict(originals[2])
    change(originals[2])
    source = write(tmp_path / "file.tfrecords", [example(scene) for scene in originals])
    with pytest.raises(TFRecordError, match=f"record 2: .*{words}"):
        convert(source, tmp_path / "file.h5", TETROMINOES)
    assert [path.name for path in tmp_path.iterdir()] == ["file.tfrecords"]


def test_label_map_keeps_every_mask():
    mask = np.zeros((3, 2, 2), np.uint8)
    mask[0, 0] = mask[2, 1, 0] = mask[1, 1, 1] = 255
    np.testing.assert_array_equal(label_map(mask), [[0, 0], [2, 1]])
    mask[1] = 255
    with pytest.raises(ValueError, match="3 pixels"):
        label_map(mask)


@pytest.mark.parametrize(
    ("name", "release", "size", "counts"),
    [
        ("clevr_synth", CLEVR, 128, [2, 4, 5, 5, 6, 7, 10]),
        ("clevr_synth", CLEVR, 64, [2, 4, 5, 5, 6, 7, 10]),
        ("clevr_synth", CLEVR, None, [2, 4, 5, 5, 6, 7, 10]),
        ("multi_dsprites_synth", MULTI_DSPRITES["colored_on_grayscale"], None, [2, 3, 3, 4, 5]),
    ],
)
def test_files_in_the_released_format(tmp_path, name, release, size, counts):
    source = DATA / f"{name}.tfrecords"
    assert convert(source, tmp_path / "a.h5", release, size=size) == len(counts)
    scenes = SceneDataset(tmp_path / "a.h5")
    batch = scenes[list(range(len(counts)))]
    assert batch["num_objects"].tolist() == counts
    assert "membership" not in batch
    for i, record in enumerate(read_records(source)):
        original = parse_example(record, release.features)
        assert sorted(batch["factors"]) == sorted(original.keys() - {"image", "mask"})
        for factor, values in batch["factors"].items():
            np.testing.assert_array_equal(values[i], original[factor])
        mask = np.moveaxis(original["mask"], 2, 0)[..., 0] if release.masks_last else original["mask"][..., 0]
        image = original["image"]
        if size is not None:
            image, mask = crop_and_resize(image, mask, size)
        np.testing.assert_array_equal(batch["image"][i], image)
        np.testing.assert_array_equal(batch["label"][i] == np.arange(len(mask))[:, None, None], mask > 0)


def test_codes_have_names(tmp_path):
    convert(DATA / "clevr_synth.tfrecords", tmp_path / "a.h5", CLEVR, limit=1, size=64)
    scenes = SceneDataset(tmp_path / "a.h5")
    assert scenes.names("shape") == ["", "sphere", "cylinder", "cube"]
    assert scenes.names("color")[3] == "green"
    assert scenes.names("x") == []


def test_binarized_images_have_one_channel(tmp_path):
    release = MULTI_DSPRITES["binarized"]
    record = {name: np.zeros(feature.shape, feature.dtype) for name, feature in release.features.items()}
    record["mask"][:, :, 0] = 255
    record["mask"][5:9, 7:11] = np.array([0, 255, 0, 0], np.uint8)[:, None]
    record["image"][5:9, 7:11] = 255
    record["visibility"][:2] = 1
    source = write(tmp_path / "file.tfrecords", [example(record)])
    convert(source, tmp_path / "a.h5", release)
    batch = SceneDataset(tmp_path / "a.h5")[[0]]
    assert batch["image"].shape == (1, 64, 64, 1)
    assert int(batch["label"][0, 5:9, 7:11].min()) == 1
    assert int(batch["label"].sum()) == 16


def test_masks_that_overlap_become_a_bit_set(tmp_path):
    originals = [{**scene, "mask": scene["mask"].copy()} for scene in scenes(300)]
    originals[290]["mask"][3, :5] = 255
    originals[290]["mask"][:, 30:] = 0
    source = write(tmp_path / "file.tfrecords", [example(scene) for scene in originals])
    convert(source, tmp_path / "a.h5", TETROMINOES)
    batch = SceneDataset(tmp_path / "a.h5")[[0, 289, 290, 299]]
    for row, i in enumerate((0, 289, 290, 299)):
        bits = batch["membership"][row]
        for entity, mask in enumerate(originals[i]["mask"][..., 0]):
            np.testing.assert_array_equal((bits >> entity) & 1, mask > 0)
    assert (batch["label"][2, :5] == 3).all()
    assert (batch["label"][2, 30:] == 0).all()


def test_membership_map_is_lossless_up_to_32():
    mask = np.random.default_rng(0).integers(2, size=(32, 5, 6)) * 255
    for entities, dtype in ((3, np.uint8), (8, np.uint8), (9, np.uint16), (32, np.uint32)):
        label, bits = membership_map(mask[:entities])
        assert bits.dtype == dtype
        for entity in range(entities):
            np.testing.assert_array_equal((bits >> dtype(entity)) & 1, mask[entity] > 0)
        last = np.where(bits > 0, np.floor(np.log2(np.maximum(bits, 1))), 0)
        np.testing.assert_array_equal(label, last)
