import h5py
import numpy as np
import pytest
from records import example, scenes, write
from reference import DATA

from iodine_pl.datamodules import SceneDataset, TFRecordError
from iodine_pl.datamodules.columns import label_map
from iodine_pl.datamodules.convert import convert
from iodine_pl.datamodules.deepmind import TETROMINOES


def test_real_records(tmp_path):
    target = tmp_path / "real.h5"
    assert convert(DATA / "tetrominoes_mini.tfrecords", target, TETROMINOES) == 10
    batch = SceneDataset(target)[list(range(10))]
    assert batch["image"].shape == (10, 3, 35, 35)
    assert (batch["num_objects"] == 3).all()
    for entity in (1, 2, 3):
        assert ((batch["label"] == entity).sum((1, 2)) == 100).all()
    assert (batch["image"].amax(1)[batch["label"] == 0] == 0).all()  # the background is black
    assert sorted(batch["factors"]) == ["color", "shape", "visibility", "x", "y"]
    with h5py.File(target) as file:
        assert dict(file.attrs) == {
            "format": "iodine-pl/1",
            "dataset": "tetrominoes",
            "source": "tetrominoes_mini.tfrecords",
        }


def test_limit_is_read_and_no_more(tmp_path):
    source = write(tmp_path / "file.tfrecords", [example(scene) for scene in scenes(5)])
    source.write_bytes(source.read_bytes()[:-20])  # cut off in the last record
    assert convert(source, tmp_path / "some.h5", TETROMINOES, limit=4) == 4
    with pytest.raises(TFRecordError, match=r"ends inside record 4; .* ask for the first 4 records"):
        convert(source, tmp_path / "all.h5", TETROMINOES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.tfrecords", "some.h5"]


def test_what_is_converted_is_what_was_there(tmp_path):
    originals = scenes(300)
    source = write(tmp_path / "file.tfrecords", [example(scene) for scene in originals])
    convert(source, tmp_path / "file.h5", TETROMINOES)
    batch = SceneDataset(tmp_path / "file.h5")[[299, 0, 255, 256]]
    for row, i in enumerate((299, 0, 255, 256)):
        np.testing.assert_array_equal(batch["image"][row].permute(1, 2, 0), originals[i]["image"])
        np.testing.assert_array_equal(batch["label"][row], originals[i]["mask"][..., 0].argmax(0))
        for name in ("x", "y", "shape", "color", "visibility"):
            np.testing.assert_array_equal(batch["factors"][name][row], originals[i][name])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda scene: scene["mask"].__setitem__((0, 3, 4), 255 - scene["mask"][0, 3, 4]),
            "1 pixels do not belong to exactly one",
        ),
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
    mask = np.zeros((3, 2, 2, 1), np.uint8)
    mask[0, 0] = mask[2, 1, 0] = mask[1, 1, 1] = 255
    np.testing.assert_array_equal(label_map(mask), [[0, 0], [2, 1]])
    mask[1] = 255
    with pytest.raises(ValueError, match="3 pixels"):
        label_map(mask)
