import resource

import h5py
import numpy as np
import pytest
from scene_files import NAMES, noise, stored_singly, tetrominoes

from iodine_pl.datamodules import MultiObjectWriter, SceneDataset, SceneFileError
from iodine_pl.datamodules.hdf5.errors import made_here
from iodine_pl.datamodules.hdf5.words import words_of


def test_compressible_scenes_are_stored_in_blocks_and_others_one_by_one(tmp_path):
    with h5py.File(tetrominoes(tmp_path / "a.h5")) as file:
        assert (file["image"].chunks[0], file["label"].chunks[0]) == (64, 64)
        assert file["image"].compression == "gzip"
    with h5py.File(stored_singly(tmp_path / "b.h5")) as file:
        assert (file["image"].chunks[0], file["label"].chunks[0]) == (1, 1)
        assert file["image"].compression is None
        assert words_of(file["factors/kind"].attrs["names"]) == list(NAMES["kind"])
        assert file["factors/kind"].chunks is None  # in one piece, so that it can be memory-mapped
        assert dict(file.attrs) == {"format": b"iodine-pl/1", "dataset": b"noise"}


def test_strings_are_not_stored_in_a_heap_but_files_that_do_are_read(tmp_path):
    """HDF5's library can loop without end on a damaged heap."""
    image, label, factors = noise(5)
    names = {"kind": ("", "Würfel", "箱", "o"), "tint": ("",)}
    path = tmp_path / "a.h5"
    with MultiObjectWriter(path, names, dataset="", source="generated: ü") as writer:
        writer.append(image, label, factors)
    assert b"GCOL" not in path.read_bytes()
    dataset = SceneDataset(path)
    assert {name: tuple(dataset.names(name)) for name in names} == names
    with h5py.File(path, "a") as file:
        assert words_of(file.attrs["dataset"]) == [""]
        assert made_here(file)
        for name, words in names.items():
            file[f"factors/{name}"].attrs["names"] = list(words)
        file.attrs.update({"format": "iodine-pl/1", "source": "generated: ü"})
    assert b"GCOL" in path.read_bytes()
    dataset = SceneDataset(path)
    assert {name: tuple(dataset.names(name)) for name in names} == names
    assert dataset[[0]]["num_objects"] == [1]
    with h5py.File(path) as file:
        assert made_here(file)


def test_scenes_one_by_one_give_the_same_file(tmp_path):
    image, label, factors = noise(150)
    with MultiObjectWriter(tmp_path / "one.h5") as writer:
        for i in range(150):
            writer.add(image[i], label[i], {name: values[i] for name, values in factors.items()})
    batch = SceneDataset(tmp_path / "one.h5")[list(range(150))]
    np.testing.assert_array_equal(batch["image"], image)
    np.testing.assert_array_equal(batch["label"], label)
    for name, values in factors.items():
        np.testing.assert_array_equal(batch["factors"][name], values)
    np.testing.assert_array_equal(batch["num_objects"], factors["visibility"][:, 1:].sum(1))


def test_objects_are_counted_from_labels_without_factors(tmp_path):
    image, label, _ = noise(5)
    label[2] = 3
    with MultiObjectWriter(tmp_path / "a.h5") as writer:
        writer.append(image, label)
    assert SceneDataset(tmp_path / "a.h5").small("num_objects").tolist() == [3, 3, 1, 3, 3]


def test_membership_of_some_scenes_is_kept_for_all(tmp_path):
    image, label, factors = noise(9)
    bits = np.left_shift(np.uint8(1), label)
    bits[6, 0, 0] |= 8
    label[6, 0, 0] = 3
    with MultiObjectWriter(tmp_path / "a.h5") as writer:
        writer.append(image[:5], label[:5], {k: v[:5] for k, v in factors.items()})
        writer.append(image[5:7], label[5:7], {k: v[5:7] for k, v in factors.items()}, bits[5:7])
        writer.append(image[7:], label[7:], {k: v[7:] for k, v in factors.items()})
    batch = SceneDataset(tmp_path / "a.h5")[list(range(9))]
    np.testing.assert_array_equal(batch["membership"], bits)
    np.testing.assert_array_equal(batch["label"], label)


def test_an_interrupted_writer_leaves_no_file(tmp_path):
    (tmp_path / "a.h5").write_text("the old one")
    with pytest.raises(KeyboardInterrupt), MultiObjectWriter(tmp_path / "a.h5") as writer:  # noqa: PT012
        writer.append(*noise(3))
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
    assert (tmp_path / "a.h5").read_text() == "the old one"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda s: s.update(image=s["image"] / 255),
            r"scenes 0 to 3: image must be \(n, H, W, C\) uint8, got .* float64",
        ),
        (lambda s: s.update(image=s["image"][..., 0]), "image must be"),
        (lambda s: s.update(label=s["label"][:, :5]), r"label must be \(4, 6, 6\) uint8"),
        (lambda s: s["label"].__setitem__((3, 0, 0), 4), "label has entity 4, but factor visibility is of the L = 4"),
        (lambda s: s["factors"].update(kind=np.zeros((4, 3))), "all factors must have the same number of entities"),
        (lambda s: s["factors"].update(kind=np.zeros((3, 4))), r"factor kind must be \(4, L, ...\)"),
    ],
)
def test_an_error_names_the_number_of_the_wrong_scene(tmp_path, change, words):
    scenes = dict(zip(("image", "label", "factors"), noise(4), strict=True))
    change(scenes)
    with pytest.raises(ValueError, match=words), MultiObjectWriter(tmp_path / "a.h5") as writer:
        writer.append(**scenes)
    assert list(tmp_path.iterdir()) == []


def test_scenes_must_be_alike(tmp_path):
    image, label, _ = noise(2)
    with MultiObjectWriter(tmp_path / "a.h5") as writer:
        writer.add(image[0], label[0])
        with pytest.raises(ValueError, match=r"scene 1 has \['image'\], unlike"):
            writer.add(image[1])


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SceneFileError, match=r"a.h5 cannot be written: .*file is not a folder. Name another"):
        MultiObjectWriter(tmp_path / "file" / "a.h5").__enter__()


def test_a_full_disk_is_an_error_and_leaves_no_file(tmp_path):
    """HDF5 itself would end this process with a segmentation fault."""
    noisy = np.random.default_rng(0).integers(256, size=(64, 64, 64, 3), dtype=np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, limits[1]))
    try:
        words = r"a\.h5 cannot be written: it is larger than .* Name another folder\. .* MB .* ask for fewer images$"
        with pytest.raises(SceneFileError, match=words), MultiObjectWriter(tmp_path / "a.h5") as writer:
            writer.append(np.tile(noisy, (10, 1, 1, 1)))
        # What is written in the end alone, and does not fit.
        with pytest.raises(SceneFileError, match=words), MultiObjectWriter(tmp_path / "a.h5") as writer:
            writer.append(noisy * 0, factors={"a": np.zeros((64, 5000))})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
