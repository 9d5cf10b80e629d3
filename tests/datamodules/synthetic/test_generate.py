"""The command that generates, in shards and by several processes."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from types import SimpleNamespace

import numpy as np
import pytest
from command import start
from interpreter import Interpreter
from scene_files import joined

from iodine_pl.cli import run_command
from iodine_pl.datamodules import SceneDataModule, SceneDataset, SceneFileError
from iodine_pl.datamodules.synthetic import shards
from iodine_pl.datamodules.synthetic.clevr import ClevrGenerator
from iodine_pl.datamodules.synthetic.generator import Generator
from iodine_pl.datamodules.synthetic.multi_dsprites import MultiDSpritesGenerator
from iodine_pl.datamodules.synthetic.tetrominoes import TetrominoesGenerator


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(TetrominoesGenerator, "shard", 256)


@pytest.fixture
def forked(monkeypatch):
    """Forks the other processes, since importing torch and Lightning takes longer than generating."""
    monkeypatch.setattr(shards, "subprocess", SimpleNamespace(Popen=Interpreter, PIPE=subprocess.PIPE))


def images(files):
    scenes = SceneDataset(files)
    return scenes[list(range(len(scenes)))]["image"]


def test_shards_hold_the_scenes_in_order(tmp_path, small_shards):
    generator = TetrominoesGenerator(seed=3)
    files = shards.generate(generator, tmp_path, 600)
    assert [file.name for file in files] == ["0000000-0000255.h5", "0000256-0000511.h5", "0000512-0000599.h5"]
    np.testing.assert_array_equal(images(files), joined(generator, 600)[0])


def test_more_scenes_are_added_and_fewer_need_no_work(tmp_path, small_shards):
    generator = TetrominoesGenerator()
    files = shards.generate(generator, tmp_path, 300)
    changed = files[0].stat().st_mtime_ns
    more = shards.generate(generator, tmp_path, 700)
    assert more[0].stat().st_mtime_ns == changed
    assert [file.name for file in more] == ["0000000-0000255.h5", "0000256-0000511.h5", "0000512-0000699.h5"]
    there = {file: file.stat().st_mtime_ns for file in files + more}
    assert shards.generate(generator, tmp_path, 280) == files
    assert {file: file.stat().st_mtime_ns for file in files[0].parent.iterdir()} == there


def test_another_training_with_more_scenes_takes_no_file_away(tmp_path, small_shards):
    """Two trainings share a folder: the second generates after the first has listed its files, before it opens them."""
    generator = TetrominoesGenerator()
    listed = shards.generate(generator, tmp_path, 300)
    shards.generate(generator, tmp_path, 700)
    np.testing.assert_array_equal(images(listed), joined(generator, 300)[0])


def test_a_folder_has_each_scene_once(tmp_path, small_shards):
    """It has a file of the scenes 256 to 299, and one of the scenes 256 to 511."""
    generator = TetrominoesGenerator()
    for count in (300, 700):
        shards.generate(generator, tmp_path, count)
    expected = joined(generator, 700)[0]
    for path in (generator.name, f"{generator.name}/*.h5"):
        np.testing.assert_array_equal(images(tmp_path / path), expected)


def test_an_interruption_loses_only_the_current_shard(tmp_path, small_shards, monkeypatch):
    generator = TetrominoesGenerator()
    original = TetrominoesGenerator.scenes

    def stopping(self, start, stop):
        if start == 512:
            raise KeyboardInterrupt
        return original(self, start, stop)

    monkeypatch.setattr(TetrominoesGenerator, "scenes", stopping)
    with pytest.raises(KeyboardInterrupt):
        shards.generate(generator, tmp_path, 700)
    folder = tmp_path / generator.name
    assert sorted(file.name for file in folder.iterdir()) == ["0000000-0000255.h5", "0000256-0000511.h5"]
    monkeypatch.setattr(TetrominoesGenerator, "scenes", original)
    np.testing.assert_array_equal(images(shards.generate(generator, tmp_path, 700)), joined(generator, 700)[0])


def test_several_processes_generate_the_same_scenes(tmp_path, monkeypatch, capsys, forked):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(MultiDSpritesGenerator, "shard", 256)
    run_command(["generate", "multi_dsprites", "--variant=binarized", "--count=300", "--processes=2"])
    said = capsys.readouterr()
    assert "300 scenes in data/multi_dsprites_binarized_seed0 (2 files)" in said.out
    assert "300/300" in said.err
    made = images(tmp_path / "data" / "multi_dsprites_binarized_seed0")
    np.testing.assert_array_equal(made, joined(MultiDSpritesGenerator(0, "binarized"), 300)[0])


class Gray(Generator):
    """Makes gray scenes; each holds its number and that of the process that made it."""

    name, shard, parallel = "gray", 64, True

    def scenes(self, start, stop):
        print("a word about it")
        number = np.arange(start, stop)
        image = np.broadcast_to(number[:, None, None, None], (stop - start, 8, 8, 3)).astype(np.uint8)
        yield image, np.zeros_like(image[..., 0]), {"process": np.full((stop - start, 1), os.getpid())}


class GrayDataModule(SceneDataModule):
    generator = Gray()


def test_a_generator_needs_no_registration(tmp_path, monkeypatch, forked):
    monkeypatch.setattr(shards, "default_processes", lambda generator: 2)
    data = GrayDataModule(data_dir=tmp_path, num_train=130, num_val=30, num_test=30, batch_size=10)
    data.prepare_data()
    data.setup("fit")
    assert [file.name for file in data.files] == ["0000000-0000063.h5", "0000064-0000127.h5", "0000128-0000189.h5"]
    batch = data.dataset[list(range(190))]
    assert batch["image"][:, 0, 0, 0].tolist() == list(range(190))
    processes = batch["factors"]["process"][::64, 0].tolist()
    assert processes[0] == processes[2] != processes[1]
    assert os.getpid() not in processes


def test_a_class_of_the_script_itself_is_not_pickled(monkeypatch):
    assert shards.default_processes(Gray()) >= 1
    monkeypatch.setattr(Gray, "__module__", "__main__")
    assert shards.default_processes(Gray()) == 1


class Fails(Gray):
    """Prints a lot to both streams, and fails."""

    def scenes(self, start, stop):
        if start:
            os.write(1, b"no number\n" * 20_000)
            os.write(2, b"a word\n" * 20_000)
            raise KeyError("broken")
        return super().scenes(start, stop)


def test_the_error_of_a_failed_process_is_shown(tmp_path, forked):
    with pytest.raises(RuntimeError, match=r"a process that generated scenes failed:\n(.*\n)*.*KeyError: 'broken'"):
        shards.generate(Fails(), tmp_path, 128, processes=2)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, forked, processes):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(SceneFileError, match=r"^\S+\.h5 cannot be written: .* is not a folder. Name another one$"):
        shards.generate(Gray(), tmp_path / "data", 128, processes=processes)


def test_free_space_is_checked_first(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10_000_000))
    with pytest.raises(SceneFileError, match=r"2000 scenes take about \d+ MB, and the disk of .* has 10 MB left: free"):
        shards.generate(ClevrGenerator(64), tmp_path, 2000, processes=1)
    assert list(tmp_path.iterdir()) == []
    shards.generate(Gray(), tmp_path, 64)


def test_other_processes_end_when_the_first_is_killed(tmp_path):
    arguments = ["multi_dsprites", "--count", "400000", "--processes", "2"]
    parent = start(*arguments, folder=tmp_path, module="iodine_pl.datamodules.generate")
    try:
        while len(list(tmp_path.rglob("*.partial"))) < 2:  # each of the others has begun a file
            assert parent.poll() is None, parent.communicate()[0]
            time.sleep(0.05)
        parent.send_signal(signal.SIGTERM)
        parent.wait(60)
        deadline = time.monotonic() + 60  # the others notice at the next line that they write
        while time.monotonic() < deadline:
            try:
                os.killpg(parent.pid, 0)
            except ProcessLookupError:
                break
            time.sleep(0.05)
        else:
            pytest.fail("processes are left")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
