"""Downloads from a local server that closes connections, states wrong lengths and refuses."""

import pytest
from records import example, scenes, write

from iodine_pl.datamodules import prepare
from iodine_pl.datamodules.deepmind.releases import TETROMINOES
from iodine_pl.datamodules.hdf5.errors import SceneFileError
from iodine_pl.files.download import Download, DownloadError
from iodine_pl.files.tensorflow.tfrecord import TFRecordError


@pytest.fixture
def content(tmp_path):
    path = write(tmp_path / "original", [example(scene) for scene in scenes(40)])
    data = path.read_bytes()
    path.unlink()
    return data


def fetch(server, kept, count=1 << 12, stop=None):
    """Reads a file from the server, up to ``stop`` bytes."""
    with Download(server.url, kept) as download:
        parts = []
        while (stop is None or sum(map(len, parts)) < stop) and (data := download.read(count)):
            parts.append(data)
        return b"".join(parts)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("says_length", [True, False])
def test_a_file_is_downloaded_completely(server, content, tmp_path, ranges, says_length):
    server.content, server.ranges, server.says_length = content, ranges, says_length
    assert fetch(server, tmp_path / "kept") == content
    assert (tmp_path / "kept").read_bytes() == content


@pytest.mark.parametrize(("ranges", "longest"), [(True, 3000), (False, None)])
def test_a_download_continues_where_it_stopped(server, content, tmp_path, ranges, longest):
    server.content, server.ranges, server.longest = content, ranges, longest
    begun = fetch(server, tmp_path / "kept", stop=5000)
    assert (tmp_path / "kept").read_bytes()[: len(begun)] == begun
    size = (tmp_path / "kept").stat().st_size
    assert 5000 <= size < len(content)
    server.asked.clear()
    assert fetch(server, tmp_path / "kept") == content
    assert server.asked[0] == f"bytes={size}-"
    server.asked.clear()
    assert fetch(server, tmp_path / "kept") == content  # it is complete, so nothing is downloaded
    assert (tmp_path / "kept").read_bytes() == content


def test_an_interrupted_download_continues(server, content, tmp_path):
    server.content, server.longest = content, 2500
    assert fetch(server, tmp_path / "kept") == content
    assert len(server.asked) == -(-len(content) // 2500)
    assert server.asked[1] == "bytes=2500-"


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_promises_more_than_it_has(server, content, tmp_path, ranges):
    server.content, server.claims, server.ranges = content, 100, ranges
    with pytest.raises(DownloadError, match=rf"has {len(content) + 100} bytes, but sends {len(content)} and no more"):
        fetch(server, tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == content  # the received part is kept


def test_a_server_that_promises_less_than_it_has(server, content, tmp_path):
    server.content, server.claims = content, -1000
    with pytest.raises(TFRecordError, match=r"ends inside record .* cut off"):
        prepare.prepare(TETROMINOES, tmp_path / "a.h5", server.url)
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>Sorry</html>", b"", b"no"])
def test_a_page_in_place_of_the_file_is_refused_and_not_kept(server, tmp_path, page):
    server.content, server.kind = page, "text/html"
    with pytest.raises(DownloadError, match=r"sent text/html that begins with .*instead of the file"):
        fetch(server, tmp_path / "kept")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [403, 404, 500])
def test_an_error_is_passed_on(server, tmp_path, status):
    server.status = status
    with pytest.raises(DownloadError, match=rf"the server answers {status} .*Check the address"):
        fetch(server, tmp_path / "kept")


def test_a_server_that_fails_for_a_moment(server, content, tmp_path):
    server.content, server.longest = content, 2500
    with Download(server.url, tmp_path / "kept") as download:
        got = download.read(2500)
        server.status = 503
        answered = len(server.asked)
        original, server.answer = server.answer, None

        def answer(request):
            if len(server.asked) == answered + 2:
                server.status = 200
            original(request)

        server.answer = answer
        while data := download.read(2500):
            got += data
    assert got == content


def test_a_missing_server_is_an_error(tmp_path):
    with (
        pytest.raises(DownloadError, match=r"no connection .*name a file"),
        Download("http://127.0.0.1:9/x", tmp_path / "k"),
    ):
        pass


def test_a_file_that_is_replaced_during_the_download_is_an_error(server, content, tmp_path):
    server.content, server.longest = content, 2500
    with Download(server.url, tmp_path / "kept") as download:
        download.read(2500)
        server.content = content + b"more"
        with pytest.raises(DownloadError, match=r"was replaced. Delete .*kept"):
            list(iter(lambda: download.read(2500), b""))


def test_only_the_required_part_is_downloaded_and_then_deleted(server, content, tmp_path, monkeypatch):
    monkeypatch.setattr("iodine_pl.files.tensorflow.tfrecord._READ", 1024)
    server.content = content
    assert prepare.prepare(TETROMINOES, tmp_path / "a.h5", server.url, limit=5, keep=True) == 5
    kept = tmp_path / "released.part"
    assert kept.stat().st_size < len(content) / 2
    (tmp_path / "a.h5").unlink()
    assert prepare.prepare(TETROMINOES, tmp_path / "a.h5", server.url) == 40
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_the_downloaded_part_is_kept_after_an_interruption(server, content, tmp_path):
    server.content, server.claims = content[: len(content) // 2], len(content) - len(content) // 2
    with pytest.raises(DownloadError):
        prepare.prepare(TETROMINOES, tmp_path / "a.h5", server.url)
    assert [path.name for path in tmp_path.iterdir()] == ["released.part"]
    server.content, server.claims = content, 0
    server.asked.clear()
    assert prepare.prepare(TETROMINOES, tmp_path / "a.h5", server.url) == 40
    assert server.asked == [f"bytes={len(content) // 2}-"]


def test_free_space_is_checked_first(server, content, tmp_path, monkeypatch):
    server.content = content
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(SceneFileError, match=r"0.0 GB left, but some .* GB are needed. Free some.*--limit"):
        prepare.prepare(TETROMINOES, tmp_path / "a.h5", server.url, limit=10)
    assert not (tmp_path / "a.h5").exists()
