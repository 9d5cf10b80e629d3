"""A checkpoint is found by path, alias, name or address."""

import hashlib
import os
from pathlib import Path

import pytest
import torch

from iodine_pl import IODINE
from iodine_pl.checkpoints.exporting import export_weights
from iodine_pl.checkpoints.finding import find_weights, name_of
from iodine_pl.checkpoints.loading import load_model
from iodine_pl.files.download import DownloadError
from iodine_pl.pretrained import FOLDER, available

SHIPPED = FOLDER / "tetrominoes.ckpt"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Stands in an empty folder; returns that of downloaded checkpoints."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "iodine-pl"


@pytest.fixture
def offered(server):
    """Serves a checkpoint, and returns its digest."""
    server.content = SHIPPED.read_bytes()
    return hashlib.sha256(server.content).hexdigest()


def save(run, name, second):
    """Writes a checkpoint of a run, saved at some second."""
    path = Path("runs", run, "checkpoints", f"{name}.ckpt")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (second, second))
    return path


def test_a_path_is_itself(tmp_path):
    path = tmp_path / "mine.ckpt"
    path.touch()
    assert find_weights(path) == find_weights(str(path)) == path


def test_aliases_are_of_the_run_that_saved_latest():
    best, last = save("a/version_0", "best", 3), save("a/version_0", "last", 5)
    other = save("b/version_1", "last", 4)
    assert find_weights("last") == find_weights("last", "a") == last
    assert find_weights("best") == best  # best of the newest run, although another run has a newer checkpoint
    assert find_weights("last", "b") == other
    with pytest.raises(FileNotFoundError, match=r"the newest run, runs/b/version_1, has no best.ckpt yet, only last"):
        find_weights("best", "b")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in any run of runs/c: train first"):
        find_weights("last", "c")


def test_a_partial_file_left_by_a_kill_is_not_a_checkpoint():
    last = save("a/version_0", "last", 1)
    save("b/version_0", "last", 2).rename("runs/b/version_0/checkpoints/.last.ckpt.partial")
    assert find_weights("last") == last


@pytest.mark.parametrize("name", available())
def test_shipped_weights_have_names(name):
    assert find_weights(name).samefile(FOLDER / f"{name}.ckpt")


def test_an_unknown_checkpoint_is_an_error_of_one_line():
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint clevr7: give a path, .*tetrominoes") as error:
        find_weights("clevr7")
    assert "\n" not in str(error.value)


def test_an_address_is_downloaded_once(server, offered, cache):
    path = find_weights(f"{server.url}#sha256={offered}")
    assert path.read_bytes() == server.content
    assert [child.name for child in cache.iterdir()] == [path.name]
    server.status = 404
    asked = len(server.asked)
    assert find_weights(f"{server.url}#sha256={offered.upper()}") == path
    assert len(server.asked) == asked
    assert list(Path().iterdir()) == []


def test_the_cache_is_in_the_home_folder_by_default(server, offered, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_weights(f"{server.url}#sha256={offered}").parent == tmp_path / ".cache" / "iodine-pl"


@pytest.mark.parametrize("fragment", ["", "#", "#sha256=", "#sha256=12ab", "#md5=" + 32 * "0", "#sha256=" + 64 * "g"])
def test_an_address_without_a_digest_is_refused(server, fragment, cache):
    with pytest.raises(ValueError, match=rf"has no digest: write {server.url}#sha256=HEX with the 64 digits"):
        find_weights(f"{server.url}{fragment}")
    assert server.asked == []
    assert not cache.exists()


def test_another_protocol_is_refused():
    with pytest.raises(ValueError, match=r"file:///a.ckpt cannot be downloaded: write an address that begins with h"):
        find_weights(f"file:///a.ckpt#sha256={64 * '0'}")


def test_a_downloaded_file_with_another_digest_is_deleted(server, offered, cache):
    server.content += b"more"
    came = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(
        DownloadError, match=rf"sent a file with SHA-256 {came} instead of {offered}, and it was deleted"
    ):
        find_weights(f"{server.url}#sha256={offered}")
    assert list(cache.iterdir()) == []
    server.content = server.content[:-4]
    assert find_weights(f"{server.url}#sha256={offered}").is_file()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"content": b"<html>no such file</html>", "kind": "text/html"}, "sent text/html that begins with '<html>"),
        ({"claims": 100}, "and no more"),
        ({"status": 404}, "the server answers 404"),
    ],
)
def test_a_download_that_fails_leaves_nothing(server, offered, cache, settings, words):
    for name, value in settings.items():
        setattr(server, name, value)
    with pytest.raises(DownloadError, match=words):
        find_weights(f"{server.url}#sha256={offered}")
    assert list(cache.iterdir()) == []


def test_an_interrupted_download_continues(server, offered):
    server.longest = len(server.content) // 3 + 1
    assert find_weights(f"{server.url}#sha256={offered}").read_bytes() == server.content
    assert [bool(asked) for asked in server.asked] == [False, True, True]  # each goes on where the last one ended


def test_a_download_has_a_limit(server, offered, cache, monkeypatch):
    monkeypatch.setattr("iodine_pl.files.download._LARGEST", 1 << 17)
    with pytest.raises(DownloadError, match="sends more than 131072 bytes"):
        find_weights(f"{server.url}#sha256={offered}")
    assert list(cache.iterdir()) == []


def test_every_loader_takes_every_kind_of_name(server, offered):
    run = save("a/version_0", "last", 1)
    run.write_bytes(server.content)
    expected = load_model(SHIPPED).state_dict()
    for wanted in ("tetrominoes", "last", f"{server.url}#sha256={offered}"):
        for model in (load_model(wanted), IODINE.from_pretrained(wanted)):
            torch.testing.assert_close(model.state_dict(), expected, rtol=0, atol=0)
            assert not model.training


def test_exporting_exported_weights_keeps_their_class(tmp_path):
    content = torch.load(SHIPPED, weights_only=True) | {"class_path": "iodine_pl.baselines.VAE"}
    torch.save(content, "vae.ckpt")
    assert export_weights("vae.ckpt", tmp_path / "again.ckpt") == content["global_step"]
    again = torch.load(tmp_path / "again.ckpt", weights_only=True)
    assert again["class_path"] == "iodine_pl.baselines.VAE"
    assert "_class_path" not in again["hyper_parameters"]


def test_shipped_weights_keep_their_name_in_results_and_others_their_path():
    assert name_of(find_weights("tetrominoes")) == "tetrominoes"
    assert name_of("runs/a/version_0/checkpoints/best.ckpt") == "runs/a/version_0/checkpoints/best.ckpt"
