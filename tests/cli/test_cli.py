"""The commands, as users type them."""

import contextlib
import hashlib
import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from command import BAR, ROOT, TINY, run
from helpers import working_in
from PIL import Image
from reference import DATA
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from iodine_pl.cli import IodineCLI
from iodine_pl.cli import run_command as main
from iodine_pl.cli.arguments import settings_before
from iodine_pl.cli.entry import complete_arguments
from iodine_pl.pretrained import FOLDER

RUN = Path("runs/tetrominoes/version_0")
DEFAULT = "iodine_pl.datamodules.TetrominoesDataModule"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trains for two epochs and a half."""
    folder = tmp_path_factory.mktemp("trained")
    with working_in(folder):
        main([*TINY, BAR, "--data.num_val=9", "--trainer.max_steps=25", "--panels.num_images=8"])
    return folder


@pytest.fixture
def inside(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained


def test_the_command_takes_denormal_numbers_for_zero(tmp_path):
    """In its own process alone: a library must not change how its user's numbers are rounded."""
    program = "import torch, iodine_pl.cli\nprint(torch.tensor(1e-39) * 1 > 0)\niodine_pl.cli.main()\n"
    program += "print(torch.tensor(1e-39) * 1 > 0)\n"
    (tmp_path / "program.py").write_text(program)
    shown = run("--version", folder=tmp_path, script=tmp_path / "program.py").split("\n")
    assert (shown[0], shown[-2]) == ("tensor(True)", "tensor(False)")


def test_the_quickstart_on_two_processes(tmp_path):
    """The command of the Makefile, on few scenes: the learning rates are those of one process with the whole batch."""
    few = ["--data.num_train=16", "--data.num_val=4", "--data.num_test=1", "--trainer.max_steps=2", BAR]
    few += ["--model.evaluation_iterations=3", "--trainer.num_sanity_val_steps=0"]
    shared = ["--trainer.devices=2", "--data.batch_size=4", "--trainer.val_check_interval=2"]
    shown = run("fit", "--config", ROOT / "configs" / "quickstart.yaml", *shared, *few, folder=tmp_path)
    assert "Learning rate 0.0028 and 0.0014 = 0.0028 and 0.0014 x sqrt(8 images an update / 8)" in shown
    checkpoint = torch.load(tmp_path / "runs/quickstart/version_0/checkpoints/last.ckpt", weights_only=False)
    assert checkpoint["global_step"] == 2
    assert checkpoint["hyper_parameters"]["inner_batch_size"] == 8
    assert re.findall("slots: (.*)", shown) == ["runs/quickstart/version_0/panels/slots_0000002.png"]
    again = run("predict", "--ckpt_path", "last", "--trainer.devices=1", BAR, folder=tmp_path)
    assert "WeightAveraging" not in again  # the weights of a checkpoint are the averaged ones, so nothing is missing


def test_a_run_has_one_folder(trained):
    run = trained / RUN
    assert sorted(path.name for path in run.iterdir() if "tfevents" not in path.name) == [
        "checkpoints",
        "config.yaml",
        "hparams.yaml",
        "panels",
    ]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["global_step"] == 25
    panels = sorted(path.name for path in (run / "panels").iterdir())
    assert panels == [f"{name}_{step:07d}.png" for name in ("refinement", "slots") for step in (10, 20)]
    with Image.open(run / "panels" / "slots_0000020.png") as picture:
        assert picture.size[1] // (12 * 8 + 6) == 8  # images of three batches


def test_scalars_and_pictures_are_logged(trained):
    events = EventAccumulator(str(trained / RUN))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    for stage in ("train", "val"):
        for name in ("nll", "kl", "elbo", "mse"):
            assert f"{stage}/{name}" in scalars
            assert {f"{stage}_steps/{name}_{t}" for t in (0, 1)} <= scalars
    assert {"train/loss", "train/gradient_norm", "train/skipped_updates", "train/images_per_second"} <= scalars
    assert {"val/ari_fg", "val/ari", "val/ari_fg_skipped"} <= scalars
    assert {"slots", "refinement"} <= set(events.Tags()["images"])
    assert all(event.value > 0 for event in events.Scalars("train/images_per_second"))


def test_best_is_the_best(trained):
    events = EventAccumulator(str(trained / RUN))
    events.Reload()
    values = {event.step + 1: event.value for event in events.Scalars("val/ari_fg")}
    saved = torch.load(trained / RUN / "checkpoints" / "best.ckpt", weights_only=False)
    assert values[saved["global_step"]] == max(values.values())


def test_test_and_predict_find_run_and_data_by_themselves(inside, capsys):
    before = (RUN / "config.yaml").read_text()
    tested = main(["test", "--ckpt_path", "best", BAR])
    assert tested.trainer.callback_metrics["test/ari_fg"] <= 1
    assert {name: len(at) for name, at in tested.datamodule.splits.items()} == {"train": 40, "val": 9, "test": 11}
    assert Path(tested.trainer.log_dir).resolve() == RUN.resolve()
    main(["predict", "--ckpt_path=last", BAR])
    said = capsys.readouterr().out
    assert f"Wrote {RUN}/predictions.h5" in said
    assert f"slots: {RUN}/panels/predict_slots_0000000.png" in said
    with h5py.File(RUN / "predictions.h5") as file:
        assert {name: dataset.shape for name, dataset in file.items()} == {
            "index": (11,),
            "masks": (11, 4, 12, 12),
            "means": (11, 4, 3, 12, 12),
            "mean": (11, 4, 4),
            "std": (11, 4, 4),
            "latents": (11, 4, 4),
        }
        assert file["index"][:].tolist() == list(range(49, 60))
        np.testing.assert_allclose(file["masks"][:].sum(1), 1, rtol=1e-5)
    assert (RUN / "config.yaml").read_text() == before
    assert len(list(RUN.parent.iterdir())) == 1


def test_flags_win_over_the_run(inside):
    tested = main(
        ["test", "--ckpt_path", "last", BAR, "--model.num_slots=2", "--model.num_iterations=2", "--data.num_test=5"]
    )
    assert tested.model.num_slots == 2
    assert "test_steps/nll_2" in tested.trainer.callback_metrics
    more = main(["validate", "--ckpt_path", "last", BAR, "--model.evaluation_iterations=4"])
    assert "val_steps/nll_4" in more.trainer.callback_metrics
    assert tested.datamodule.num_test == 5


def test_a_checkpoint_outside_a_run_brings_its_model(inside, tmp_path):
    path = tmp_path / "model.ckpt"
    path.write_bytes((RUN / "checkpoints" / "last.ckpt").read_bytes())
    data = [argument for argument in TINY if argument.startswith(("--data", "--trainer"))]
    tested = main(["validate", "--ckpt_path", str(path), "--name", "elsewhere", BAR, *data])
    assert tested.model.latent_size == 4
    assert Path(tested.trainer.log_dir) == Path("runs/elsewhere/version_0")
    flags = ["--name=elsewhere", "--model.num_slots=2", "--seed_everything=3"]
    flagged = main(["validate", "--ckpt_path", str(path), BAR, *flags, *data])
    assert (flagged.model.num_slots, flagged.model.latent_size, flagged.model.seed) == (2, 4, 3)


def test_two_devices_give_the_same_test_metrics_and_predictions(inside):
    both = ["--ckpt_path", "best", BAR, "--trainer.devices=2"]
    report = ROOT / "tests" / "run_and_report.py"
    run("test", *both, folder=inside, script=report, METRICS=str(inside / "metrics.json"))
    run("predict", *both, "--predictions.path=2.h5", folder=inside)
    found = json.loads((inside / "metrics.json").read_text())
    expected = main(["test", "--ckpt_path=best", BAR]).trainer.callback_metrics
    main(["predict", "--ckpt_path=best", BAR, "--predictions.path=1.h5"])
    assert {"test/ari_fg", "test/ari", "test/miou", "test/mbo"} < set(found)
    assert found == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-5)
    with h5py.File("1.h5") as one, h5py.File("2.h5") as two:
        assert list(one) == list(two)
        for name in one:
            np.testing.assert_allclose(one[name][:], two[name][:], rtol=1e-4, atol=1e-5)
        assert one["index"][:].tolist() == two["index"][:].tolist() == list(range(49, 60))


def test_arguments_are_spelled_out(inside):
    assert complete_arguments([]) == []
    assert complete_arguments(["--trainer.devices", "4"]) == ["fit", "--trainer.devices", "4"]
    assert complete_arguments(["--help"]) == ["--help"]
    path = ["--ckpt_path", str(RUN / "checkpoints" / "last.ckpt")]
    for given in (["--ckpt_path", "last"], ["--ckpt=last"], ["--ckpt_path", "best", "--ckpt_path=last"], path):
        assert complete_arguments([*given, "--x=1"]) == ["fit", *given, "--x=1", *path]


def test_the_settings_of_a_run_stand_before_the_arguments(inside):
    expected = yaml.safe_load((RUN / "config.yaml").read_text())
    settings, line = settings_before(["--ckpt_path", "last"])
    assert settings == expected
    assert "TetrominoesDataModule(" in line
    settings, line = settings_before(["--ckpt_path", "last", "--data=ClevrDataModule"])
    assert settings == {name: value for name, value in expected.items() if name != "data"}
    assert line is None
    both = {"model": {"class_path": "iodine_pl.IODINE"}, "data": {"class_path": DEFAULT}}
    assert settings_before(["--config=a.yaml"]) == (both, None)
    assert settings_before(["--model=RNEM", "--data=ClevrDataModule"]) == ({}, None)


@pytest.fixture
def address(server, tmp_path, monkeypatch):
    """Serves a shipped checkpoint; returns its address and the file that it will be in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    server.content = (FOLDER / "tetrominoes.ckpt").read_bytes()
    digest = hashlib.sha256(server.content).hexdigest()
    return f"{server.url}#sha256={digest}", tmp_path / "cache" / "iodine-pl" / f"{digest}.ckpt"


def test_a_checkpoint_has_a_name_or_an_address(address):
    for wanted, path in (("tetrominoes", FOLDER / "tetrominoes.ckpt"), address):
        arguments = complete_arguments(["test", "--ckpt_path", wanted])
        assert arguments[-2:] == ["--ckpt_path", str(path)]
        settings, _ = settings_before(arguments[1:])
        assert settings["model"]["class_path"] == "iodine_pl.IODINE"
        assert settings["data"]["init_args"]["num_train"] == 60000


def test_a_configuration_names_any_checkpoint(folder, address, monkeypatch):
    class Stop(Exception):
        pass

    def note(cli):
        found.append(cli.config.fit.ckpt_path)
        raise Stop

    last = folder / "runs" / "a" / "version_0" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.write_bytes((FOLDER / "tetrominoes.ckpt").read_bytes())
    last.parents[1].joinpath("config.yaml").write_text("name: a\n")
    found = []
    monkeypatch.setattr(IodineCLI, "before_instantiate_classes", note)
    for wanted in ("last", "tetrominoes", address[0]):
        (folder / "a.yaml").write_text(yaml.safe_dump({"ckpt_path": wanted}))
        with pytest.raises(Stop):
            main(["fit", "--config=a.yaml", "--name=a"])
    assert found == [str(last.relative_to(folder)), str(FOLDER / "tetrominoes.ckpt"), str(address[1])]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ckpt_path", "last"], "there is no checkpoint in any run"),
        (["--ckpt_path=nowhere.ckpt"], "there is no checkpoint nowhere.ckpt"),
        (["test", "--ckpt_path", "best", "--name", "other"], r"in any run of runs/other: train first"),
        (["test", "--ckpt_path=https://host/a.ckpt"], "a.ckpt has no digest: write https://host/a.ckpt#sha256=HEX"),
        (["test", f"--ckpt_path=http://127.0.0.1:9/a.ckpt#sha256={64 * '0'}"], "no connection"),
        (["test"], "test needs a trained model: --ckpt_path best"),
        (["predict"], "predict needs a trained model"),
    ],
)
def test_a_missing_checkpoint_is_an_error(folder, arguments, words, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    with pytest.raises(SystemExit, match=words):
        main(arguments)
    assert list(folder.iterdir()) == []


def test_a_missing_checkpoint_in_a_configuration_is_an_error(folder):
    (folder / "a.yaml").write_text("ckpt_path: nowhere.ckpt\n")
    with pytest.raises(SystemExit, match=r"there is no checkpoint nowhere\.ckpt"):
        main(["fit", "--config", "a.yaml", *TINY])


def test_best_of_a_run_that_has_none_yet_is_an_error(folder):
    checkpoints = folder / "runs" / "a" / "version_0" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "last.ckpt").touch()
    with pytest.raises(SystemExit, match=r"the newest run, runs/a/version_0, has no best.ckpt yet, only last.ckpt"):
        main(["test", "--ckpt_path", "best"])


def test_help_and_print_config(folder, capsys):
    for arguments, words in (
        (["--help"], "  predict  "),
        (["fit", "--help"], "--ckpt_path"),
        (["fit", "--help"], "--panels.num_images"),
    ):
        with contextlib.suppress(SystemExit):
            main(arguments)
        assert words in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["class_path"] == "iodine_pl.IODINE"
    assert config["trainer"]["max_steps"] == 1_000_000
    assert config["data"]["init_args"]["batch_size"] == 128


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Keeps generated scenes for several configurations: CLEVR takes its time."""
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_configurations_train(folder, data_dir, config):
    """The published networks are trained in their size by ``test_golden_losses.py``."""
    sizes = [
        "--data.num_train=4",
        "--data.num_val=1",
        "--data.num_test=1",
        "--data.batch_size=2",
        "--trainer.max_steps=2",
        "--trainer.val_check_interval=2",
        "--trainer.num_sanity_val_steps=0",
        f"--data.data_dir={data_dir}",
    ]
    if "vae" in config.stem or "rnem" in config.stem:  # made for one size
        small = ["--model.num_iterations=2"] if "rnem" in config.stem else []
    elif "clevr" in config.stem:  # whole scenes take minutes
        small = ["--data.size=24", "--data.max_objects=10"]
    else:
        small = ["--data.pixel_stride=4"]
    if " network: " in config.read_text():
        small += [argument for argument in TINY if "channels" in argument or "sizes" in argument]
    cli = main(["fit", "--config", str(config), *sizes, *small, BAR, "--trainer.accelerator=cpu"])
    assert cli.trainer.global_step == 2
    assert (folder / "runs" / config.stem / "version_0" / "checkpoints" / "best.ckpt").is_file()


def test_a_dataset_has_its_own_defaults(capsys):
    for arguments, size, batch_size in (
        (["--config", str(ROOT / "configs" / "clevr6.yaml")], 128, 4),
        (["--data=ClevrDataModule"], 128, 4),
        (["--data", "MultiDSpritesDataModule"], None, 16),
        ([], 35, 128),
        (["--data.size=20"], 20, 128),
    ):
        with pytest.raises(SystemExit):
            main([*arguments, "--print_config"])
        config = yaml.safe_load(capsys.readouterr().out)
        assert config["data"]["init_args"].get("size") == size
        assert config["data"]["init_args"]["batch_size"] == batch_size


CONVERTED = {
    "tetrominoes": ("tetrominoes_mini", "tetrominoes", {}),
    "multi_dsprites": ("multi_dsprites_synth", "multi_dsprites", {}),
    "clevr6": ("clevr_synth", "clevr", {"size": 24, "max_objects": 7}),
}


@pytest.mark.parametrize("config", CONVERTED)
@pytest.mark.parametrize("prepared", [True, False])
def test_files_in_the_released_format_train(folder, config, prepared):
    """Converted by the command, and by the datamodule itself."""
    source, dataset, settings = CONVERTED[config]
    path = folder / f"{source}.tfrecords"
    path.write_bytes((DATA / path.name).read_bytes())
    if prepared:
        size = [f"--size={settings['size']}"] if "size" in settings else []
        main(["prepare", dataset, "--source", str(path), "--out", "mine.h5", *size])
        path.unlink()
        path = folder / "mine.h5"
    given = [f"--data.{name}={value}" for name, value in ({"path": path} | settings).items()]
    sizes = ["--data.num_train=3", "--data.num_val=1", "--data.num_test=1", "--data.batch_size=2"]
    sizes += ["--model.num_slots=2", "--model.num_iterations=1"]
    sizes += [argument for argument in TINY if "channels" in argument or "sizes" in argument]
    steps = ["--trainer.max_steps=1", "--trainer.accelerator=cpu", BAR]
    cli = main(["fit", "--config", str(ROOT / "configs" / f"{config}.yaml"), *given, *sizes, *steps])
    assert cli.trainer.global_step == 1
    main(["test", "--ckpt_path", "last", BAR])


def test_images_without_masks(folder):
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(256, size=(14, 12, 3), dtype=np.uint8)).save(folder / "pictures" / f"{i:02d}.jpg")
    sizes = ["--data.num_val=3", "--data.num_test=2", "--data.batch_size=2", "--trainer.max_epochs=2"]
    model = [argument for argument in TINY if not argument.startswith("--data")]
    with pytest.warns(UserWarning, match="The images have no labels") as said:
        cli = main(["--data=SceneDataModule", "--data.path=pictures", *sizes, *model, BAR])
    assert len([each for each in said if "label" in str(each.message)]) == 1
    assert "val/ari_fg" not in cli.trainer.callback_metrics
    run = folder / "runs" / "scenes" / "version_0"
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=False)["callbacks"]["BestCheckpoint"]
    assert best["monitor"] == "val/elbo"
    with pytest.warns(UserWarning, match="no label"):
        main(["--ckpt_path=last", "--trainer.max_epochs=3", BAR])
    again = torch.load(run / "checkpoints" / "best.ckpt", weights_only=False)["callbacks"]["BestCheckpoint"]
    assert again["best_model_score"] >= best["best_model_score"]
    main(["predict", "--ckpt_path=best", BAR])
    with h5py.File(run / "predictions.h5") as file:
        assert file["masks"].shape == (12, 4, 14, 12)  # every picture of the folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data=SceneDataModule"], r"SceneDataModule needs data: give --data.path"),
        (["--data.path=nowhere.h5"], "there is no file nowhere.h5"),
        (["--data=MultiDSpritesDataModule", "--data.variant=binarized"], r"1 channel.*--model.image_channels 1"),
        (["--data.max_objects=2"], r"0 are left for train \(at most 2 objects\)"),
        (["--data.exclude={shape: cow}"], "factor shape has no value cow, but numbers only"),
    ],
)
def test_what_is_wrong_with_the_data_is_said_before_training(folder, arguments, words):
    with pytest.raises(SystemExit, match=f"error: .*{words}"):
        main([*arguments, *TINY, BAR])


def test_data_of_ones_own(folder, monkeypatch):
    (folder / "mine.py").write_text(
        """
import pytorch_lightning as pl, torch
from torch.utils.data import DataLoader

class Mine(pl.LightningDataModule):
    def __init__(self, count: int = 4):
        super().__init__()
        self.count = count

    def loader(self):
        scenes = [{"image": torch.rand(3, 12, 12), "label": torch.ones(12, 12).long()} for _ in range(self.count)]
        return DataLoader(scenes, batch_size=2)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = loader
"""
    )
    monkeypatch.syspath_prepend(folder)
    model = [argument for argument in TINY if not argument.startswith("--data")]
    cli = main(["--data", "mine.Mine", "--data.count=6", *model, BAR, "--trainer.max_epochs=1"])
    assert cli.trainer.global_step == 3
    assert cli.trainer.callback_metrics["val/ari_fg"] <= 1
    main(["predict", "--ckpt_path=last", BAR])
    with h5py.File("runs/run/version_0/predictions.h5") as file:
        assert file["masks"].shape == (6, 4, 12, 12)


def test_the_seed_is_one_for_weights_order_and_noise(folder):
    states = []
    for seed in (0, 0, 1):
        cli = main([*TINY, BAR, "--trainer.max_steps=2", f"--seed_everything={seed}"])
        assert cli.model.seed == cli.datamodule.seed == seed
        states.append(cli.model.decoder.output.weight.detach())
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_train_py_is_a_shim():
    assert run("--help", folder=ROOT).startswith("usage: python train.py")
