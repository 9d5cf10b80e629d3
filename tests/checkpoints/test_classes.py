"""A file that names a class does not decide what code runs."""

import json

import pytest
import torch
import yaml
from command import BAR, TINY
from helpers import SMALL, small

import iodine_pl
from iodine_pl.baselines import VAE
from iodine_pl.checkpoints.classes import class_of, make_data
from iodine_pl.checkpoints.loading import load_model
from iodine_pl.cli import CommandError, run_command
from iodine_pl.datamodules import TetrominoesDataModule
from iodine_pl.report.page import write_report

HOSTILE = "from pathlib import Path\nPath('ran').touch()\nfrom iodine_pl import IODINE as Mine\n"
DATA = {"class_path": "iodine_pl.datamodules.TetrominoesDataModule", "init_args": {"num_train": 8}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Stands in a folder with a module that notes that it was imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hostile.py").write_text(HOSTILE)
    return tmp_path


def write(path, **content):
    whole = {"state_dict": small().state_dict(), "hyper_parameters": dict(SMALL), "pytorch-lightning_version": "2.6.6"}
    torch.save(whole | content, path)


@pytest.mark.parametrize(
    "content",
    [
        {"class_path": "hostile.Mine"},
        {"hyper_parameters": SMALL | {"_class_path": "hostile.Mine"}},
        {"hyper_parameters": SMALL | {"_class_path": "hostile.Mine", "_instantiator": "hostile.Mine"}},
        {"class_path": "iodine_pl.IODINE", "data": {"class_path": "hostile.Mine"}},
        {
            "class_path": "iodine_pl.IODINE",
            "data": DATA | {"init_args": {"exclude": {"a": {"class_path": "hostile.Mine"}}}},
        },
    ],
)
def test_a_checkpoint_imports_nothing(folder, content):
    write("a.ckpt", **content)
    for arguments in (["test", "--ckpt_path=a.ckpt", BAR], ["report", "a.ckpt"]):
        with pytest.raises(CommandError, match=r"a\.ckpt names the class hostile\.Mine, which is not part of"):
            run_command(arguments)
    assert not (folder / "ran").exists()


def test_a_class_named_on_the_command_line_is_imported(folder):
    write("a.ckpt", class_path="hostile.Mine")
    sizes = [argument for argument in TINY if not argument.startswith("--model")]
    cli = run_command(["validate", "--ckpt_path=a.ckpt", "--model=hostile.Mine", BAR, *sizes])
    assert cli.model.latent_size == SMALL["latent_size"]


@pytest.mark.parametrize(
    "class_path", ["os.system", "os.path.join", "subprocess.Popen", "hostile.Mine", "iodine_pl.IODINE"]
)
def test_a_report_calls_only_data_modules(folder, class_path):
    checkpoints = folder / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    write(checkpoints / "last.ckpt")
    settings = {"data": {"class_path": class_path, "init_args": {"command": "touch ran"}}}
    (folder / "run" / "config.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(CommandError, match=rf"config\.yaml names (the class )?{class_path}, which is not"):
        run_command(["report", "run"])
    assert not (folder / "ran").exists()


def test_arguments_of_the_data_are_those_of_the_command():
    assert make_data({"data": DATA}, "a.yaml").num_train == 8
    assert isinstance(make_data({"data": DATA}, "a.yaml"), TetrominoesDataModule)
    wrong = DATA | {"init_args": {"num_train": "many"}}
    with pytest.raises(ValueError, match=r"(?s)a\.yaml: .*num_train.*many"):
        make_data({"data": wrong}, "a.yaml")
    for settings in ({"data": 3}, {"data": {"init_args": {}}}, [], {"data": {"class_path": "a.B", "init_args": 3}}):
        with pytest.raises(ValueError, match=r"^a\.yaml "):
            make_data(settings, "a.yaml")


def test_a_class_of_another_kind_is_refused(tmp_path):
    assert class_of("iodine_pl.baselines.VAE", iodine_pl.SceneModel, "a.ckpt") is VAE
    with pytest.raises(TypeError, match=r"a\.ckpt names iodine_pl\.datamodules\.ClevrDataModule, which is not derived"):
        class_of("iodine_pl.datamodules.ClevrDataModule", iodine_pl.SceneModel, "a.ckpt")
    with pytest.raises(ValueError, match="but there is none"):
        class_of("iodine_pl.nothing.Here", iodine_pl.SceneModel, "a.ckpt")
    write(tmp_path / "a.ckpt", class_path="iodine_pl.baselines.VAE")
    with pytest.raises(TypeError, match=r"a\.ckpt is of VAE, which is not derived from IODINE"):
        iodine_pl.IODINE.from_pretrained(tmp_path / "a.ckpt")


def test_a_subclass_takes_the_weights_of_its_base(tmp_path):
    class Mine(iodine_pl.IODINE):
        pass

    write(tmp_path / "a.ckpt")
    assert isinstance(Mine.from_pretrained(tmp_path / "a.ckpt"), Mine)
    assert type(load_model(tmp_path / "a.ckpt")) is iodine_pl.IODINE


def test_names_in_a_report_are_escaped(folder):
    checkpoints = folder / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    write(checkpoints / "last.ckpt", global_step=3)
    few = {"num_train": 8, "num_val": 1, "num_test": 2, "data_dir": str(folder / "data")}
    (folder / "run" / "config.yaml").write_text(yaml.safe_dump({"data": DATA | {"init_args": few}, "<i>": "<b>"}))
    experiments = folder / "run" / "experiments"
    experiments.mkdir()
    (folder / "secret.png").write_bytes(b"secret")
    content = dict.fromkeys(("images", "data", "model", "checkpoint"), "<b>") | {"table": [{"<b>": "<b>"}]}
    file = experiments / '<img src=x onerror="alert(1)">.json'
    file.write_text(json.dumps(content | {"pictures": []}))
    page = write_report("run", num_images=1).read_text()
    assert "<b>" not in page
    assert "<i>" not in page
    assert 'onerror="' not in page
    assert "&#34;alert(1)&#34;" in page
    outside = {"name": "a", "file": "../../secret.png", "caption": ""}
    file.unlink()
    (experiments / "a.json").write_text(json.dumps(content | {"pictures": [outside]}))
    with pytest.raises(FileNotFoundError, match=r"experiments/secret\.png"):
        write_report("run", num_images=1)
