"""A checkpoint is read completely and without running code, or refused in one line."""

import io
import os
import pickle
import zipfile

import pytest
import torch
from helpers import SMALL, loader, small, trainer

from iodine_pl import IODINE
from iodine_pl.checkpoints.exporting import export_weights
from iodine_pl.checkpoints.reading import CheckpointError, read_checkpoint
from iodine_pl.checkpoints.writing import AtomicCheckpointIO
from iodine_pl.errors import MisfitError


@pytest.fixture
def path(tmp_path):
    """Writes the checkpoint of a small model."""
    path = tmp_path / "a.ckpt"
    content = {"state_dict": small().state_dict(), "hyper_parameters": dict(SMALL)}
    torch.save(content | {"pytorch-lightning_version": "2.6.6", "optimizer_states": [], "lr_schedulers": []}, path)
    return path


def in_training(path):
    made = trainer(path.parent, enable_checkpointing=True, plugins=[AtomicCheckpointIO()])
    made.fit(small(), loader(), loader(), ckpt_path=path)


def exporting(path):
    export_weights(path, path.with_name("out.ckpt"))


READERS = {"from_pretrained": IODINE.from_pretrained, "export": exporting, "fit": in_training}


@pytest.mark.parametrize("read", READERS.values(), ids=list(READERS))
def test_a_flipped_bit_in_the_weights_is_noticed(path, read):
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    content[largest.header_offset + 200 + largest.file_size // 2] ^= 16
    path.write_bytes(content)
    torch.load(path, weights_only=True)  # PyTorch itself does not notice
    with pytest.raises(CheckpointError, match=r"a\.ckpt is damaged \(Bad CRC-32") as error:
        read(path)
    assert "\n" not in str(error.value)
    assert not path.with_name("out.ckpt").exists()


def test_a_damaged_file_is_refused_or_gives_the_same_weights(path):
    whole = path.read_bytes()
    expected = read_checkpoint(path)["state_dict"]
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for position in torch.randint(len(whole), (120,), generator=generator).tolist():
        mutated = bytearray(whole)
        mutated[position] ^= 1 << position % 8
        path.write_bytes(mutated)
        try:
            read = read_checkpoint(path)["state_dict"]
        except CheckpointError:
            refused += 1
        else:
            assert all(torch.equal(read[name], tensor) for name, tensor in expected.items())
    assert refused > 60


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def compressed(content):
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    return file.getvalue()


def with_pickle(pickled):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3")
    return file.getvalue()


OTHERS = {
    "nothing": (b"", "cut off, or of another kind"),
    "words": (b"no checkpoint", "cut off, or of another kind"),
    "a pickle": (pickle.dumps({"state_dict": {}}), "cut off, or of another kind"),
    "code": (
        saved({"state_dict": {}, "hyper_parameters": {"a": RunsCode()}}),
        r"it holds \w+\.mkdir, which is not called",
    ),
    "code in a pickle": (pickle.dumps(RunsCode()), "cut off, or of another kind"),
    "half a pickle": (with_pickle(pickle.dumps({"state_dict": {}})[:-3]), "PyTorch cannot read it"),
    "compressed": (compressed(saved({"state_dict": {}, "hyper_parameters": {}})), "writes no compressed files"),
    "another zip file": (with_pickle(b""), "PyTorch cannot read it"),
    "a list": (saved([1]), "it holds a list"),
    "numbers": (saved({"state_dict": 3}), "no state_dict and no hyper_parameters"),
}


@pytest.mark.parametrize(("content", "words"), OTHERS.values(), ids=list(OTHERS))
def test_a_file_that_is_not_a_checkpoint_is_refused_in_one_line_and_runs_nothing(tmp_path, monkeypatch, content, words):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    for read in (read_checkpoint, IODINE.from_pretrained):
        with pytest.raises(CheckpointError, match=rf"a\.ckpt is not a checkpoint.*{words}") as error:
            read(path)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_a_trainer_runs_no_code_of_a_checkpoint(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    torch.save(torch.load(path) | {"callbacks": {"a": RunsCode()}}, path)
    with pytest.raises(CheckpointError, match=r"it holds \w+\.mkdir, which is not called"):
        in_training(path)
    with pytest.raises(CheckpointError, match="without running code"):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)
    assert not (path.parent / "ran").exists()


def test_a_folder_and_a_file_that_may_not_be_read(path, monkeypatch):
    with pytest.raises(CheckpointError, match=r"cannot be read: Is a directory"):
        read_checkpoint(path.parent)
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*b\.ckpt"):
        read_checkpoint(path.with_name("b.ckpt"))


def test_weights_that_do_not_fit_say_where(path):
    with pytest.raises(MisfitError, match=r"initial_posterior is \(8,\) in the checkpoint and \(10,\) in") as error:
        IODINE.from_pretrained(path, latent_size=5)
    assert "\n" not in str(error.value)
