"""A file is complete or unchanged."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from iodine_pl.files import atomic
from iodine_pl.files.atomic import WriteError, folder_written_beside, move_into_place, written_beside


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("shared", [False, True])
def test_the_file_changes_at_the_end_of_the_block(tmp_path, shared):
    path = tmp_path / "new folder" / "a.png"
    for text in ("first", "second"):
        before = path.read_text() if path.exists() else None
        with written_beside(path, shared) as partial:
            assert partial.parent == path.parent
            partial.write_text(text)
            assert (path.read_text() if path.exists() else None) == before
            assert not list(path.parent.glob("*.png")) or before  # no pattern of whole files finds the partial one
        assert path.read_text() == text
        assert names(path.parent) == ["a.png"]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_alone(tmp_path, error, shared):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), written_beside(path, shared) as partial:  # noqa: PT012
        partial.write_text("half of the new")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_disk_that_fills_up_at_the_last_moment_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    words = r"a\.txt cannot be written: no space is left for it .* Free some"
    with pytest.raises(WriteError, match=words), written_beside(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_content_name_and_folder_are_synced_in_this_order(tmp_path, monkeypatch):
    """In any other order a power cut can leave an empty file, or none."""
    done = []
    sync, replace = os.fsync, os.replace

    def noting_sync(number):
        done.append(("sync", os.fstat(number).st_ino))
        sync(number)

    def noting_replace(source, target):
        done.append(("rename", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noting_sync)
    monkeypatch.setattr(os, "replace", noting_replace)
    path = tmp_path / "a.txt"
    with written_beside(path) as partial:
        partial.write_text("whole")
    assert done == [("sync", path.stat().st_ino), ("rename", "a.txt"), ("sync", tmp_path.stat().st_ino)]


def test_a_system_that_cannot_open_folders_still_writes(tmp_path, monkeypatch):
    opened = os.open

    def refusing(path, *arguments, **options):
        if Path(path).is_dir():
            raise PermissionError("it is a folder")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refusing)
    with written_beside(tmp_path / "a.txt") as partial:
        partial.write_text("whole")
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_a_partial_file_left_by_a_kill_is_overwritten(tmp_path):
    script = """
import os, signal, sys
from pathlib import Path
from atomic import written_beside
with written_beside(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "a.txt"
    path.write_text("old")
    alone = {"PYTHONPATH": str(Path(atomic.__file__).parent)}  # it imports nothing else of the package
    killed = subprocess.run([sys.executable, "-c", script, str(path)], env=os.environ | alone, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert names(tmp_path) == [".a.txt.partial", "a.txt"]
    with written_beside(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    path = tmp_path / "a.txt"
    with written_beside(path, shared=True) as one:
        one.write_text("one")
        with written_beside(path, shared=True) as other:
            other.write_text("other")
        assert path.read_text() == "other"
    assert path.read_text() == "one"
    assert names(tmp_path) == ["a.txt"]


def test_a_partial_shared_file_left_by_a_kill_is_deleted(tmp_path):
    script = """
import os, signal, sys
from pathlib import Path
from atomic import written_beside
with written_beside(Path(sys.argv[1]), shared=True) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    alone = {"PYTHONPATH": str(Path(atomic.__file__).parent)}
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.h5")], env=os.environ | alone, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    with written_beside(tmp_path / "b.h5", shared=True) as other:
        other.write_text("whole")
        assert not left.exists()
        elsewhere = tmp_path / left.name.replace(atomic._host(), "another-host")
        elsewhere.touch()
        with written_beside(tmp_path / "c.h5", shared=True) as partial:
            partial.write_text("whole")
        assert other.exists()  # its process is running
    assert names(tmp_path) == [elsewhere.name, "b.h5", "c.h5"]


def test_a_finished_file_is_moved(tmp_path):
    (tmp_path / "part").write_text("whole")
    move_into_place(tmp_path / "part", tmp_path / "a.txt")
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_a_folder_appears_whole(tmp_path):
    path = tmp_path / "new" / "mine"
    left = tmp_path / "new" / ".mine.partial"
    left.mkdir(parents=True)
    (left / "of a kill").touch()
    with folder_written_beside(path) as partial:
        (partial / "a.txt").write_text("a")
        assert not path.exists()
    assert names(path) == ["a.txt"]
    assert names(path.parent) == ["mine"]
    with pytest.raises(FileExistsError, match="mine is there already"), folder_written_beside(path):
        pass
    with pytest.raises(ValueError, match="half"), folder_written_beside(tmp_path / "other") as partial:  # noqa: PT012
        (partial / "a.txt").touch()
        raise ValueError("half")
    assert names(tmp_path) == ["new"]
