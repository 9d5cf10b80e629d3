"""Configurations that come with the package are named anywhere."""

import inspect
import shutil

import pytest
import yaml
from command import BAR, ROOT

from iodine_pl import IODINE
from iodine_pl.baselines import RNEM, VAE
from iodine_pl.cli import run_command
from iodine_pl.configs import FOLDER, available, find_configuration


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run_command([*arguments, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)


def test_all_of_the_repository_are_there():
    files = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml")}
    assert set(available()) == {path.with_suffix("").as_posix() for path in files}
    assert {"quickstart", "experiments/segmentation"} <= set(available())


@pytest.mark.parametrize("spelling", [["--config", "quickstart"], ["--config=quickstart"], ["-c", "quickstart"]])
def test_a_name_means_a_shipped_configuration(folder, capsys, spelling):
    config = printed(capsys, "fit", *spelling, "--model.num_slots=5")
    assert config["name"] == "quickstart"
    assert config["model"]["init_args"]["num_slots"] == 5
    assert config["data"]["init_args"]["num_train"] == 8192


def test_a_configuration_names_its_data(folder, capsys):
    config = printed(capsys, "--config=laptop_multi_dsprites")
    assert config["data"]["class_path"].endswith("MultiDSpritesDataModule")


def test_a_file_of_that_name_comes_first(folder, capsys):
    (folder / "quickstart").write_text("name: mine\n")
    assert printed(capsys, "--config", "quickstart")["name"] == "mine"
    shutil.copy(FOLDER / "tetrominoes.yaml", folder / "a.yaml")
    assert printed(capsys, "--config", "a.yaml")["name"] == "tetrominoes"


def test_several_configurations_are_merged_in_their_order(folder, capsys):
    config = printed(capsys, "--config", "quickstart", "--config=experiments/segmentation")
    assert config["name"] == "quickstart"
    assert [callback["class_path"].rsplit(".", 1)[1] for callback in config["trainer"]["callbacks"]] == ["Segmentation"]


@pytest.mark.parametrize("spelling", [["--config", "quickstrat"], ["--config=quickstrat"], ["--config=no/such.yaml"]])
def test_an_unknown_name_lists_what_there_is(folder, spelling):
    with pytest.raises(SystemExit, match=r"no configuration .*: give a file, or one of clevr6,.* experiments/segment"):
        run_command(["fit", *spelling])
    assert list(folder.iterdir()) == []


def test_a_path_is_returned_as_it_is(folder):
    (folder / "a.yaml").touch()
    assert str(find_configuration("a.yaml")) == "a.yaml"


def test_an_experiment_on_shipped_weights_is_in_the_report(folder):
    few = ["--data.num_train=8", "--data.num_val=2", "--data.num_test=3", "--data.batch_size=3"]
    weights = ["--ckpt_path", "tetrominoes", "--config", "experiments/segmentation"]
    run_command(["test", *weights, *few, BAR, "--trainer.accelerator=cpu"])
    made = folder / "runs/tetrominoes/version_0"
    assert (made / "experiments" / "segmentation.json").is_file()
    run_command(["report", "runs/tetrominoes/version_0", "--images=2"])
    page = (made / "report.html").read_text()
    assert "tetrominoes.ckpt" in page
    assert "Segmentation" in page


@pytest.mark.parametrize("kind", [IODINE, VAE, RNEM])
def test_a_model_that_is_named_has_its_own_defaults(folder, capsys, kind):
    options = printed(capsys, "fit", f"--model={kind.__name__}", "--data=MultiDSpritesDataModule")["model"]["init_args"]
    for name in ("optimizer", "betas", "gradient_clip_norm", "decay", "decay_factor", "weight_decay"):
        signatures = (inspect.signature(each.__init__).parameters for each in kind.__mro__)
        expected = next(parameters[name].default for parameters in signatures if name in parameters)
        assert options[name] == (list(expected) if isinstance(expected, tuple) else expected), name
