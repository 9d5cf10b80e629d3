import h5py
import numpy as np
import pytest
from scene_files import noise, stored_singly

from iodine_pl.datamodules import SceneDataset, SceneFileError
from iodine_pl.datamodules.splits import Selection, cut


@pytest.fixture
def scenes(tmp_path):
    """Returns 60 scenes of noise with 1, 2, 3, 1, 2, 3, ... objects, and their factors."""
    return SceneDataset(stored_singly(tmp_path / "a.h5", 60)), noise(60)[2]


def test_splits_follow_one_another(scenes):
    splits = cut(scenes[0], 40, 12, 8, Selection())
    assert {name: (at[0], at[-1], len(at)) for name, at in splits.items()} == {
        "train": (0, 39, 40),
        "val": (40, 51, 12),
        "test": (52, 59, 8),
    }


def test_without_num_train_training_gets_the_rest(scenes):
    assert len(cut(scenes[0], None, 12, 8, Selection())["train"]) == 40


@pytest.mark.parametrize(("least", "most"), [(None, 2), (2, None), (2, 2)])
def test_scenes_are_chosen_by_number_of_objects(scenes, least, most):
    dataset, factors = scenes
    count = factors["visibility"][:, 1:].sum(1)
    fits = np.ones(60, bool) if least is None else count >= least
    fits &= True if most is None else count <= most
    splits = cut(dataset, 40, 3, 2, Selection(least, most))
    np.testing.assert_array_equal(splits["train"], np.flatnonzero(fits[:40]))  # chosen after counting
    np.testing.assert_array_equal(splits["val"], np.flatnonzero(fits)[np.flatnonzero(fits) >= 40][:3])
    np.testing.assert_array_equal(splits["test"], np.flatnonzero(fits)[np.flatnonzero(fits) >= 40][3:5])


def test_a_combination_of_factors_is_held_out(scenes):
    dataset, factors = scenes
    held_out = ((factors["kind"] == 2) & (factors["tint"] == 1))[:, 1:].any(1)
    assert 10 < held_out.sum() < 50
    chosen = {"exclude": {"kind": "box", "tint": "red"}}
    splits = cut(dataset, 40, 3, 2, Selection(**chosen))
    np.testing.assert_array_equal(splits["train"], np.flatnonzero(~held_out[:40]))
    assert not held_out[np.concatenate([splits["val"], splits["test"]])].any()
    other = cut(dataset, 40, 3, 2, Selection(**chosen, test_split="excluded"))
    assert other["train"].tolist() == splits["train"].tolist()
    assert other["val"].tolist() == splits["val"].tolist()
    assert held_out[other["test"]].all()
    assert other["test"].min() > other["val"].max()
    by_number = cut(dataset, 40, 3, 2, Selection(exclude={"kind": 2, "tint": 1}))
    assert by_number["train"].tolist() == splits["train"].tolist()


def test_no_image_is_read(scenes, monkeypatch):
    from iodine_pl.datamodules.hdf5.sources import Part

    monkeypatch.setattr(Part, "read", None)
    monkeypatch.setattr(Part, "read_singly", None)
    cut(scenes[0], 40, 3, 2, Selection(1, 2, {"kind": "box"}, "excluded"))


def test_splits_of_the_file_are_used(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for split, count in (("train", 8), ("val", 3), ("test", 4)):
            file[f"{split}/imgs"] = noise(count)[0]
    dataset = SceneDataset(tmp_path / "a.h5")
    splits = cut(dataset, None, 2, 3, Selection())
    assert {name: at.tolist() for name, at in splits.items()} == {
        "train": list(range(8)),
        "val": [8, 9],
        "test": [11, 12, 13],
    }
    assert cut(dataset, 5, 2, 3, Selection())["train"].tolist() == list(range(5))
    with pytest.raises(SceneFileError, match=r"has the splits \{'val': 3\}, fewer than .* num_val=4.* Ask for fewer"):
        cut(dataset, None, 4, 3, Selection())


@pytest.mark.parametrize(
    ("counts", "selection", "words"),
    [
        (
            (50, 8, 3),
            Selection(),
            r"a.h5 has 60 images, but num_train=50, num_val=8, num_test=3 need 61. Ask for fewer",
        ),
        (
            (None, 50, 10),
            Selection(),
            r"a.h5 has 60 scenes, and num_val=50 and num_test=10 leave none for training",
        ),
        (
            (40, 9, 3),
            Selection(max_objects=1),
            r"of 60 records 6 are left for val \(at most 1 objects\), but num_val=9",
        ),
        ((40, 3, 3), Selection(min_objects=4), r"0 are left for train \(at least 4 objects\), but num_train=40"),
        ((40, 3, 3), Selection(exclude={"mood": 1}), "has no factor mood to exclude by, but kind, tint, visibility"),
        ((40, 3, 3), Selection(exclude={"kind": "cow"}), "factor kind has no value cow, but ball, box, tube"),
        (
            (40, 3, 17),
            Selection(exclude={"kind": "ball"}, test_split="excluded"),
            r"left for test \(only scenes with an excluded object\), but num_test=17",
        ),
        ((40, 3, 3), Selection(test_split="excluded"), "test_split is 'excluded', but exclude is not set"),
    ],
)
def test_impossible_splits_are_refused(scenes, counts, selection, words):
    with pytest.raises(SceneFileError, match=words):
        cut(scenes[0], *counts, selection)


def test_images_alone_have_no_number_of_objects(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = noise(9)[0]
    with pytest.raises(SceneFileError, match="does not say how many objects its scenes have: leave out"):
        cut(SceneDataset(tmp_path / "a.h5"), 5, 1, 1, Selection(max_objects=6))
