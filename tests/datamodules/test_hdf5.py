import pickle

import h5py
import numpy as np
import pytest

from iodine_pl.datamodules import SceneDataset, SceneFileError, SceneWriter
from iodine_pl.datamodules.synthetic.tetrominoes import generate


def make(path, count=150):
    with SceneWriter(path, dataset="tetrominoes", source="test") as writer:
        for block in generate(count, block=64):
            writer.append(*block)
    return path


def test_batches_come_in_the_order_asked_for(tmp_path):
    dataset = SceneDataset(make(tmp_path / "a.h5"))
    images = np.concatenate([block[0] for block in generate(150, block=64)])
    assert len(dataset) == 150
    indices = [149, 0, 64, 63, 149, 100]
    batch = dataset[indices]
    np.testing.assert_array_equal(batch["image"].permute(0, 2, 3, 1), images[indices])
    assert batch["index"].tolist() == indices


def test_reads_few_blocks_and_keeps_few(tmp_path, monkeypatch):
    dataset = SceneDataset(make(tmp_path / "a.h5", 3000))
    for start in range(0, 3000, 50):
        dataset[range(start, start + 50)]
    assert len(dataset._blocks) <= 32
    blocks = dataset._blocks
    assert len(pickle.loads(pickle.dumps(dataset))._blocks) == 0  # a worker gets neither blocks nor handle
    assert dataset._blocks is blocks


def test_an_interrupted_writer_leaves_nothing(tmp_path):
    (tmp_path / "a.h5").write_text("the old one")
    with pytest.raises(KeyboardInterrupt), SceneWriter(tmp_path / "a.h5") as writer:  # noqa: PT012
        writer.append(*next(generate(10)))
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
    assert (tmp_path / "a.h5").read_text() == "the old one"


def truncated(path):
    path.write_bytes(path.read_bytes()[:5000])


def without_label(path):
    with h5py.File(path, "r+") as file:
        del file["label"]


def foreign(path):
    with h5py.File(path, "w") as file:
        file["train/imgs"] = np.zeros((3, 8, 8, 3))


def floats(path):
    with h5py.File(path, "r+") as file:
        del file["image"]
        file["image"] = np.zeros((150, 35, 35, 3), np.float32)


def empty(path):
    with h5py.File(path, "r+") as file:
        for name in ("image", "label"):
            file[name].resize(0, axis=0)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncated, "cannot be opened as HDF5"),
        (lambda path: path.write_text("hello"), "cannot be opened as HDF5"),
        (lambda path: path.unlink(), "there is no data file"),
        (without_label, "it has no dataset label"),
        (foreign, "it has no dataset image, label, num_objects"),
        (floats, r"image must be \(N, H, W, C\) uint8"),
        (empty, "holds no images"),
    ],
)
def test_bad_files_are_refused(tmp_path, damage, words):
    path = make(tmp_path / "bad.h5")
    damage(path)
    with pytest.raises(SceneFileError, match=words) as caught:
        SceneDataset(path)
    assert "bad.h5" in str(caught.value)


def test_damage_inside_is_named(tmp_path):
    path = make(tmp_path / "a.h5")
    with h5py.File(path) as file:
        info = file["image"].id.get_chunk_info(1)
    content = bytearray(path.read_bytes())
    content[info.byte_offset + 20 : info.byte_offset + 60] = b"\xff" * 40
    path.write_bytes(content)
    dataset = SceneDataset(path)
    dataset[[0]]
    with pytest.raises(SceneFileError, match="images 64 to 127 cannot be read"):
        dataset[[70]]
