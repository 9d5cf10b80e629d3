import os
import pickle
import subprocess
import sys
import tracemalloc

import h5py
import numpy as np
import pytest
from PIL import Image
from scene_files import noise, stored_singly, tetrominoes

from iodine_pl.datamodules import SceneDataset, SceneFileError
from iodine_pl.datamodules.hdf5 import dataset, sources


def assert_same(batch, image, label, factors):
    np.testing.assert_array_equal(batch["image"], image)
    np.testing.assert_array_equal(batch["label"], label)
    assert batch["factors"].keys() == factors.keys()
    for name, values in factors.items():
        np.testing.assert_array_equal(batch["factors"][name], values)


@pytest.mark.parametrize("make", [tetrominoes, stored_singly])
def test_batches_come_in_the_order_asked_for_as_h5py_reads_them(tmp_path, make):
    path = make(tmp_path / "a.h5", 150)
    scenes = SceneDataset(path)
    assert len(scenes) == 150
    indices = [149, 0, 64, 63, 149, 100]
    batch = scenes[indices]
    with h5py.File(path) as file:
        factors = {name: values[()][indices] for name, values in file["factors"].items()}
        assert_same(batch, file["image"][()][indices], file["label"][()][indices], factors)
    assert batch["index"].tolist() == indices


@pytest.mark.parametrize("storage", [{}, {"chunks": True}, {"chunks": (7, 6, 6, 3), "compression": "lzf"}])
def test_any_way_of_storing_is_read(tmp_path, storage):
    image, label, factors = noise(40)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("image", data=image, **storage)
        file["label"] = label
        for name, values in factors.items():
            file[name] = values
    indices = [39, 3, 20, 0]
    batch = SceneDataset(tmp_path / "a.h5")[indices]
    assert_same(batch, image[indices], label[indices], {name: values[indices] for name, values in factors.items()})


def test_many_files_follow_one_another(tmp_path):
    image, label, factors = [], [], []
    for i, count in enumerate((5, 9, 3)):
        stored_singly(tmp_path / f"part-{i}.h5", count, seed=i)
        for parts_, values in zip((image, label, factors), noise(count, seed=i), strict=True):
            parts_.append(values)
    expected = np.concatenate(image), np.concatenate(label)
    kinds = {name: np.concatenate([each[name] for each in factors]) for name in factors[0]}
    for path in (tmp_path / "part-*.h5", tmp_path, sorted(tmp_path.iterdir())):
        scenes = SceneDataset(path)
        assert len(scenes) == 17
        order = np.random.default_rng(0).permutation(17)
        assert_same(scenes[order.tolist()], *(x[order] for x in expected), {k: v[order] for k, v in kinds.items()})
        np.testing.assert_array_equal(scenes.small("kind"), kinds["kind"])


def test_factors_of_very_many_scenes_are_not_held(tmp_path, monkeypatch):
    for i in range(3):
        stored_singly(tmp_path / f"{i}.h5", 6, seed=i)
    held = SceneDataset(tmp_path)[[17, 2, 8]]
    monkeypatch.setattr(dataset, "_JOINED_BYTES", 0)
    monkeypatch.setattr(dataset, "_OPEN_FILES", 1)
    scenes = SceneDataset(tmp_path)
    read = scenes[[17, 2, 8]]
    assert_same(read, held["image"], held["label"], held["factors"])
    scenes[[0]]
    assert sum(part._opened is not None for part in scenes._parts) == 1


def test_blocks_are_read_once_and_few_are_kept(tmp_path, monkeypatch):
    scenes = SceneDataset(tetrominoes(tmp_path / "a.h5", 64 * 40))
    reads = []
    monkeypatch.setattr(
        sources.Part, "read", lambda self, start, stop, name, out: reads.append((start, name)) or out.fill(0)
    )
    for start in range(0, 64 * 40, 50):
        scenes[range(start, min(start + 50, 64 * 40))]
    assert len(reads) == len(set(reads)) == 80
    assert len(scenes._cached) == 32
    assert scenes.window == 16


def test_a_batch_of_more_blocks_than_are_kept(tmp_path, monkeypatch):
    path = tetrominoes(tmp_path / "a.h5", 640)
    indices = list(range(0, 640, 7))
    expected = SceneDataset(path)[indices]
    monkeypatch.setattr(dataset, "_CACHE_BYTES", 3 * 64 * 35 * 35 * 4)
    small = SceneDataset(path)
    assert small.window == 1
    for _ in range(2):
        np.testing.assert_array_equal(small[indices]["image"], expected["image"])


@pytest.mark.parametrize("make", [tetrominoes, stored_singly])
def test_memory_is_flat_over_an_epoch(tmp_path, make):
    """A pass over three times as many scenes has almost the same peak."""
    peaks = []
    for count in (64 * 40, 64 * 120):
        scenes = SceneDataset(make(tmp_path / f"{count}.h5", count))
        tracemalloc.start()
        for start in range(0, count, 64):
            scenes[range(start, start + 64)]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 24 * 64 * 80  # bytes for each further scene


def test_pickling_leaves_out_handle_and_cache(tmp_path):
    scenes = SceneDataset(tetrominoes(tmp_path / "a.h5"))
    batch = scenes[[5, 70]]
    other = pickle.loads(pickle.dumps(scenes))
    assert not other._cache
    assert not other._cached
    np.testing.assert_array_equal(other[[5, 70]]["image"], batch["image"])


def test_overlapping_masks_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = noise(2)[0]
        file["mask"] = np.ones((2, 4, 6, 6, 1), np.uint8)
    with pytest.raises(SceneFileError, match=r"a.h5: mask, scene 0: 36 pixels do not belong .* MultiObjectWriter"):
        SceneDataset(tmp_path / "a.h5")[[1]]


def test_images_without_labels_are_read(tmp_path):
    image = noise(5)[0]
    (tmp_path / "folder").mkdir()
    for i, pixels in enumerate(image):
        Image.fromarray(pixels).save(tmp_path / "folder" / f"{i}.png")
    (tmp_path / "folder" / "notes.txt").write_text("not an image")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = image
    for path in (tmp_path / "folder", tmp_path / "a.h5"):
        batch = SceneDataset(path)[[3, 0]]
        assert sorted(batch) == ["factors", "image", "index"]
        np.testing.assert_array_equal(batch["image"], image[[3, 0]])
    Image.fromarray(image[0, :4]).save(tmp_path / "folder" / "5.png")
    with pytest.raises(
        SceneFileError, match=r"5.png is \(4, 6, 3\), but .*0.png is \(6, 6, 3\).*one size. Give --data.crop"
    ):
        SceneDataset(tmp_path / "folder")[[5]]
    (tmp_path / "folder" / "5.png").write_text("no")
    with pytest.raises(SceneFileError, match=r"5.png is no picture that can be read"):
        SceneDataset(tmp_path / "folder")[[5]]


def test_gray_images_have_one_channel(tmp_path):
    for i in range(2):
        Image.fromarray(noise(2)[0][i, :, :, 0]).save(tmp_path / f"{i}.png")
    assert SceneDataset(tmp_path)[[0]]["image"].shape == (1, 6, 6, 1)


def truncated(path):
    path.write_bytes(path.read_bytes()[:5000])


def without_image(path):
    with h5py.File(path, "r+") as file:
        del file["image"]


def integers(path):
    with h5py.File(path, "r+") as file:
        del file["image"]
        file["image"] = np.zeros((150, 35, 35, 3), np.int16)


def two_channels(path):
    with h5py.File(path, "r+") as file:
        del file["image"]
        file["image"] = np.zeros((150, 2, 35, 35), np.uint8)


def other_label(path):
    with h5py.File(path, "r+") as file:
        del file["label"]
        file["label"] = np.zeros((150, 36, 35), np.uint8)


def short_factor(path):
    with h5py.File(path, "r+") as file:
        del file["factors/x"]
        file["factors/x"] = np.zeros((149, 4), np.float32)


def empty(path):
    with h5py.File(path, "r+") as file:
        for name in ("image", "label"):
            file[name].resize(0, axis=0)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncated, "cannot be opened as HDF5 .* Give a whole one"),
        (lambda path: path.write_text("hello"), "cannot be opened as HDF5"),
        (lambda path: path.write_bytes(b""), "is an empty file. Give one"),
        (lambda path: path.unlink(), "there is no data file"),
        (without_image, r"has no dataset image \(or images, imgs\), only factors, label, num_objects. Convert"),
        (integers, r": image must be \(N, H, W, C\) or .* uint8 or float .*int16. Convert it"),
        (two_channels, r": image must be .* got \(150, 2, 35, 35\)"),
        (other_label, r"label must be a map \(N, H, W\) .* of images \(150, 35, 35\) .*got \(150, 36, 35\)"),
        (short_factor, r"factor x must be numbers .* as there are 150 images, got \(149, 4\)"),
        (empty, "holds no images"),
    ],
)
def test_bad_files_are_refused(tmp_path, damage, words):
    path = tetrominoes(tmp_path / "bad.h5")
    damage(path)
    with pytest.raises(SceneFileError, match=words) as caught:
        SceneDataset(path)
    assert "bad.h5" in str(caught.value)


def test_an_empty_path_is_refused(tmp_path):
    with pytest.raises(SceneFileError, match="has neither HDF5 files nor images"):
        SceneDataset(tmp_path)
    with pytest.raises(SceneFileError, match=r"no file matches .*x-\*.h5"):
        SceneDataset(tmp_path / "x-*.h5")


def test_files_of_two_sizes(tmp_path):
    stored_singly(tmp_path / "a.h5")
    tetrominoes(tmp_path / "b.h5")
    with pytest.raises(
        SceneFileError, match=r"image of .*b.h5 is \(35, 35, 3\) uint8, in the files before it \(6, 6, 3\)"
    ):
        SceneDataset(tmp_path)


def test_a_label_without_an_entity(tmp_path):
    path = stored_singly(tmp_path / "a.h5", 20)
    with h5py.File(path, "r+") as file:
        file["label"][7, 2, 3] = 9
        del file["crc32c"]
    scenes = SceneDataset(path)
    scenes[[6, 8]]
    with pytest.raises(
        SceneFileError, match=r"a.h5: label of scene 7 has entity 9, but there are L = 4 entities, 0 to 3"
    ):
        scenes[[6, 7, 8]]


@pytest.mark.parametrize("name", ["image", "label"])
def test_damage_inside_is_named(tmp_path, name):
    path = tetrominoes(tmp_path / "a.h5")
    with h5py.File(path) as file:
        info = file[name].id.get_chunk_info(1)
    content = bytearray(path.read_bytes())
    content[info.byte_offset + 20 : info.byte_offset + 60] = b"\xff" * 40
    path.write_bytes(content)
    scenes = SceneDataset(path)
    before = scenes[[0]]
    for _ in range(2):  # the second time as well
        with pytest.raises(SceneFileError, match=f"{name} of scenes 64 to 127 cannot be read .* give a whole copy"):
            scenes[[70]]
    np.testing.assert_array_equal(scenes[[0]]["image"], before["image"])


def test_a_file_that_is_being_written(tmp_path):
    path = stored_singly(tmp_path / "a.h5")
    script = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); sys.stdin.read()"
    writer = subprocess.Popen([sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert writer.stdout.readline() == b"open\n"
        with pytest.raises(SceneFileError, match=r"a.h5 is being written by another process: wait"):
            SceneDataset(path)
    finally:
        writer.communicate()
    assert len(SceneDataset(path)) == 20


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = stored_singly(tmp_path / "a.h5")
    path.chmod(0)
    with pytest.raises(SceneFileError, match="may not be read by this user: change its permissions"):
        SceneDataset(path)
