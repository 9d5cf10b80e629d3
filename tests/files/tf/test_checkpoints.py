"""A checkpoint is found by a prefix, in a folder or in a zip file; errors name the file."""

import tracemalloc
import zipfile

import bundles
import numpy as np
import pytest
from reference import DATA

from iodine_pl.files.tensorflow.checkpoints import read_checkpoint
from iodine_pl.files.tensorflow.tensor_bundle import BundleError

TINY = DATA / "checkpoint"


def archive(path, members):
    """Writes a zip file with these members, name -> content."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def released(names=("clevr6", "tetrominoes")):
    """Returns the members of a file like DeepMind's: a folder of folders, which also have irrelevant files."""
    members = {"iodine_checkpoints/": b"", "iodine_checkpoints/README.index.md": b"hello"}
    for value, name in enumerate(names):
        index, data = bundles.bundle({"w": np.full(3, value, dtype=np.float32)})
        members |= {f"iodine_checkpoints/{name}/model.ckpt.meta": b"graph"}
        members |= {f"iodine_checkpoints/{name}/model.ckpt.index": index}
        members |= {f"iodine_checkpoints/{name}/model.ckpt.data-00000-of-00001": data}
    return members


@pytest.mark.parametrize(
    "source", ["", "model.ckpt-5", "model.ckpt-5.index", "model.ckpt-5.data-00000-of-00001"], ids=str
)
def test_every_way_to_name_one(source):
    where, bundle = read_checkpoint(TINY / source)
    assert where == str(TINY / "model.ckpt-5")
    assert len(bundle.arrays) == 90


def test_a_path_of_the_writers_machine_does_not_matter():
    where, bundle = read_checkpoint(DATA / "checkpoint_edge" / "nostep")
    assert where.endswith("nostep/model.ckpt")
    assert bundle.arrays["w"].tolist() == [1, 1, 1]


def test_the_newest_is_taken_as_the_file_says(tmp_path):
    for step in (5, 40, 300):
        bundles.write(tmp_path, {"w": np.float32([step])}, f"model.ckpt-{step}")
    with pytest.raises(BundleError, match=r"several checkpoints: model\.ckpt-300, model\.ckpt-40, model\.ckpt-5\."):
        read_checkpoint(tmp_path)
    (tmp_path / "checkpoint").write_text(
        'model_checkpoint_path: "C:\\\\runs\\\\model.ckpt-40"\nall_model_checkpoint_paths: "model.ckpt-300"\n'
    )
    assert read_checkpoint(tmp_path)[1].arrays["w"] == 40
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"\n')
    with pytest.raises(BundleError, match="several checkpoints"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("folder", ["tetrominoes", "iodine_checkpoints/tetrominoes"])
def test_one_of_several_in_a_zip_file(tmp_path, folder):
    path = archive(tmp_path / "a.zip", released())
    where, bundle = read_checkpoint(path, folder)
    assert where == str(path / "iodine_checkpoints" / "tetrominoes" / "model.ckpt")
    assert bundle.arrays["w"].tolist() == [1, 1, 1]
    for wanted in (None, "clevr"):
        with pytest.raises(BundleError, match=r"folders: iodine_checkpoints/clevr6, .*/tetrominoes\. Name one"):
            read_checkpoint(path, wanted)
    assert list(tmp_path.iterdir()) == [path]


def test_an_unpacked_zip_file_is_read_alike(tmp_path):
    with zipfile.ZipFile(archive(tmp_path / "a.zip", released(["clevr6"]))) as file:
        file.extractall(tmp_path / "out")
    assert read_checkpoint(tmp_path / "out")[1].arrays["w"].tolist() == [0, 0, 0]


def test_a_missing_checkpoint_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*: no folder, no zip file, and no nowhere\.index"):
        read_checkpoint(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"has no checkpoint: no file that ends in \.index"):
        read_checkpoint(tmp_path)
    with pytest.raises(BundleError, match="has no checkpoint"):
        read_checkpoint(archive(tmp_path / "a.zip", {"notes.txt": b"hello"}))


def test_errors_name_the_file(tmp_path):
    prefix = bundles.write(tmp_path, {"w": np.float32([1])}) / "model.ckpt"
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    data.write_bytes(bytes(4))
    with pytest.raises(BundleError, match=f"^{prefix}: w has a wrong checksum"):
        read_checkpoint(prefix)
    data.unlink()
    with pytest.raises(BundleError, match=rf"^{prefix}: {data.name} is missing"):
        read_checkpoint(prefix)


@pytest.mark.parametrize("name", ["../w.index", "a/../../w.index", "/w.index", "a//w.index", "a\\..\\w.index", "./w"])
def test_a_zip_file_with_members_outside_is_refused(tmp_path, name):
    (tmp_path / "inside").mkdir()
    path = archive(tmp_path / "inside" / "a.zip", {name: b"x"})
    with pytest.raises(BundleError, match="lies outside of it"):
        read_checkpoint(path)
    assert [child.name for child in tmp_path.rglob("*")] == ["inside", "a.zip"]


@pytest.mark.parametrize(("name", "megabytes"), [("model.ckpt.index", 30), ("model.ckpt.data-00000-of-00001", 300)])
def test_a_bomb_is_not_unpacked(tmp_path, name, megabytes):
    path = tmp_path / "a.zip"
    members = {member.split("/")[-1]: content for member, content in released(["clevr6"]).items() if "ckpt" in member}
    archive(path, {member: content for member, content in members.items() if member != name})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file, file.open(name, "w") as stream:
        for _ in range(megabytes):
            stream.write(bytes(1 << 20))
    assert path.stat().st_size < 1e6
    tracemalloc.start()
    with pytest.raises(BundleError, match=f"{name} is larger than"):
        read_checkpoint(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.5 * (1 << 28 if "data" in name else 1 << 22)


def test_damaged_zip_files(tmp_path):
    content = archive(tmp_path / "a.zip", released(["clevr6"])).read_bytes()
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(content[: len(content) // 2])
    with pytest.raises(FileNotFoundError, match="no zip file"):
        read_checkpoint(damaged)
    reasons = set()
    for place in range(0, len(content), 7):
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            arrays = read_checkpoint(damaged)[1].arrays
        except (BundleError, FileNotFoundError) as error:
            reasons.add(str(error))
        else:  # a byte that does not affect the content
            assert arrays["w"].tolist() == [0, 0, 0]
    assert len(reasons) > 5


def test_too_many_members(tmp_path):
    path = archive(tmp_path / "a.zip", {f"{i}": b"" for i in range(1001)})
    with pytest.raises(BundleError, match="1001 members, 1000 are the most"):
        read_checkpoint(path)
