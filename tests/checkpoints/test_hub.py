"""Weights at hf://..., from a hub on this machine."""

import io
import sys

import pytest
import torch
from hub_server import COMMIT, hub  # noqa: F401, a fixture

from iodine_pl import IODINE
from iodine_pl.checkpoints.finding import find_weights
from iodine_pl.cli import CommandError, run_command
from iodine_pl.files.download import DownloadError
from iodine_pl.pretrained import FOLDER

ADDRESS = "hf://someone/scenes/weights/tetrominoes.ckpt"


@pytest.fixture
def offered(hub):  # noqa: F811
    hub.files["weights/tetrominoes.ckpt"] = (FOLDER / "tetrominoes.ckpt").read_bytes()
    return hub


def test_a_commit_is_downloaded_once_and_loaded(offered):
    path = find_weights(f"{ADDRESS}@{COMMIT}")
    assert path.read_bytes() == offered.files["weights/tetrominoes.ckpt"]
    asked = len(offered.asked)
    assert any(f"/someone/scenes/resolve/{COMMIT}/weights/tetrominoes.ckpt" in request for request in offered.asked)
    model = IODINE.from_pretrained(f"{ADDRESS}@{COMMIT}")
    assert len(offered.asked) == asked
    expected = IODINE.from_pretrained("tetrominoes").state_dict()
    torch.testing.assert_close(model.state_dict(), expected, rtol=0, atol=0)


def test_without_a_revision_the_commit_is_printed(offered, caplog):
    caplog.set_level("INFO")
    path = find_weights(ADDRESS)
    assert COMMIT in path.parts
    assert f"{ADDRESS} names no revision: this is the file of commit {COMMIT}" in caplog.text
    assert f"{ADDRESS}@{COMMIT} will always be this one" in caplog.text
    caplog.clear()
    assert find_weights(f"{ADDRESS}@v1") == path
    assert "names no revision" not in caplog.text


@pytest.mark.parametrize(
    "address",
    [
        "hf://nobody/scenes/weights/tetrominoes.ckpt",
        "hf://someone/scenes/weights/none.ckpt",
        f"{ADDRESS}@v2",
    ],
)
def test_what_the_hub_does_not_have_is_one_line(offered, address):
    with pytest.raises(DownloadError, match=r": the hub does not give this file \(.*404.*\)\. Check owner") as error:
        find_weights(address)
    assert str(error.value).startswith(address)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("address", ["hf://", "hf://someone/scenes", f"{ADDRESS}@", f"{ADDRESS}#sha256={64 * '0'}"])
def test_an_address_of_another_form_is_refused(address):
    with pytest.raises(ValueError, match=r"is no file at the hub: write hf://OWNER/REPOSITORY/FILE@REVISION$"):
        find_weights(address)


class Code:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_in_a_file_is_not_run(offered, tmp_path):
    bytes_of_it = io.BytesIO()
    torch.save({"state_dict": {}, "hyper_parameters": {"code": Code(tmp_path / "it_ran")}}, bytes_of_it)
    offered.files["bad.ckpt"] = bytes_of_it.getvalue()
    with pytest.raises(Exception, match=r"(?i)checkpoint|weights.only"):
        IODINE.from_pretrained(f"hf://someone/scenes/bad.ckpt@{COMMIT}")
    assert not (tmp_path / "it_ran").exists()


def test_without_the_extra_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    sentence = f'{ADDRESS} needs huggingface_hub: pip install "iodine-pl[hub]"'
    with pytest.raises(ImportError) as error:
        IODINE.from_pretrained(ADDRESS)
    assert str(error.value) == sentence
    for command in (["test", "--ckpt_path", ADDRESS], ["export", ADDRESS, "--out", "x.ckpt"]):
        with pytest.raises(CommandError) as ended:
            run_command(command)
        assert str(ended.value) == f"error: {sentence}"


def test_the_command_line_takes_an_address(offered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = ["--data.num_train=4", "--data.num_val=4", "--data.num_test=4", "--model.num_iterations=1"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--trainer.logger=false"]
    cli = run_command(["test", "--ckpt_path", f"{ADDRESS}@{COMMIT}", *sizes, *quiet])
    trained = IODINE.from_pretrained("tetrominoes").state_dict()
    torch.testing.assert_close(cli.model.state_dict(), trained, rtol=0, atol=0)
    assert COMMIT in str(cli.trainer.ckpt_path)
