"""A run has one folder with any logger, and overwrites no file of others."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from command import BAR, TINY, run, start
from helpers import working_in

from iodine_pl.callbacks.run_folder import RunFolder
from iodine_pl.cli import run_command
from iodine_pl.files import lock

STEPS = ["--trainer.max_steps=3", "--trainer.val_check_interval=3"]
OWN = "# mine\nmodel:\n  class_path: iodine_pl.IODINE\n  init_args:\n    num_iterations: 1\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """Trains for three updates."""
    made = tmp_path_factory.mktemp("once")
    with working_in(made):
        run_command([*TINY, BAR, *STEPS])
    return made


@pytest.fixture
def trained(once, folder):
    """A copy of the folder with this run, which a test may change; it is the working folder."""
    return shutil.copytree(once, folder, dirs_exist_ok=True)


def files(folder):
    """Returns the files of a run, but for those of its loggers."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if "tfevents" not in name and name not in ("hparams.yaml", "metrics.csv")}


RUN = {
    "config.yaml",
    "checkpoints/best.ckpt",
    "checkpoints/last.ckpt",
    "panels/slots_0000003.png",
    "panels/refinement_0000003.png",
}
LOGGERS = {
    "none": ["--trainer.logger=false"],
    "in the working folder": ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=.", "--trainer.logger.name="],
    "one that has no folder": ["--trainer.logger=note_loggers.Pictures"],
}


@pytest.mark.parametrize("logger", LOGGERS.values(), ids=list(LOGGERS))
def test_the_folder_does_not_depend_on_the_logger(folder, logger):
    (folder / "config.yaml").write_text(OWN)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").write_text("mine")
    for i in range(2):
        cli = run_command(["--config", "config.yaml", *TINY, BAR, *STEPS, *logger])
        assert files(folder / f"runs/tetrominoes/version_{i}") == RUN
        assert cli.trainer.global_step == 3
    assert (folder / "config.yaml").read_text() == OWN
    assert files(folder / "checkpoints") == {"last.ckpt"}
    assert (folder / "checkpoints" / "last.ckpt").read_text() == "mine"
    first = folder / "runs/tetrominoes/version_0"
    saved = (first / "checkpoints" / "last.ckpt").read_bytes()
    run_command(["--ckpt_path", "last", "--trainer.max_steps=6", BAR])
    again = torch.load("runs/tetrominoes/version_1/checkpoints/last.ckpt", weights_only=False)
    assert again["global_step"] == 6
    run_command(["test", "--ckpt_path", "best", BAR, *logger])
    run_command(["predict", "--ckpt_path", "best", BAR, *logger])
    of_run = files(folder / "runs/tetrominoes/version_1")
    assert {"predictions.h5", "panels/test_slots_0000000.png"} <= of_run
    assert (first / "checkpoints" / "last.ckpt").read_bytes() == saved
    assert len(list((folder / "runs/tetrominoes").iterdir())) == 2


def test_a_checkpoint_of_ones_own_beside_ones_own_configuration(trained):
    """It goes on in a folder of its own: the folder that it lies in was not made by a run."""
    (trained / "checkpoints").mkdir()
    (trained / "runs/tetrominoes/version_0/checkpoints/last.ckpt").rename(trained / "checkpoints/mine.ckpt")
    (trained / "config.yaml").write_text(OWN)
    run_command(["--ckpt_path", "checkpoints/mine.ckpt", *TINY, BAR, "--trainer.max_steps=4", "--name=on"])
    assert (trained / "config.yaml").read_text() == OWN
    assert files(trained / "checkpoints") == {"mine.ckpt"}
    assert (trained / "runs/on/version_0/checkpoints/last.ckpt").is_file()


def test_a_run_goes_on_where_it_was_moved(trained):
    (trained / "runs/tetrominoes/version_0").rename(trained / "good")
    run_command(["--ckpt_path", "good/checkpoints/last.ckpt", BAR, "--trainer.max_steps=4"])
    assert torch.load("good/checkpoints/last.ckpt", weights_only=False)["global_step"] == 4
    assert yaml.safe_load(Path("good/config.yaml").read_text())["trainer"]["max_steps"] == 4


def test_runs_are_kept_where_the_trainer_is_told(folder):
    elsewhere = ["--trainer.default_root_dir", "else/where"]
    run_command([*TINY, BAR, *STEPS, *elsewhere])
    assert files(folder / "else/where/tetrominoes/version_0") == RUN
    run_command(["--ckpt_path", "last", *elsewhere, BAR, "--trainer.max_steps=4"])
    last = folder / "else/where/tetrominoes/version_0/checkpoints/last.ckpt"
    assert torch.load(last, weights_only=False)["global_step"] == 4
    assert not (folder / "runs").exists()
    with pytest.raises(SystemExit, match="there is no checkpoint in any run of runs"):
        run_command(["--ckpt_path", "last"])


def test_two_runs_started_together_do_not_share_a_folder(folder):
    names = [RunFolder(Path("runs"), "a").claim() for _ in range(3)]
    assert names == [Path(f"runs/a/version_{i}") for i in range(3)]
    both = [start(*TINY, BAR, *STEPS, folder=folder) for _ in range(2)]
    for process in both:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    assert [files(folder / f"runs/tetrominoes/version_{i}") for i in range(2)] == [RUN, RUN]


def test_a_number_that_another_run_takes_meanwhile_is_passed_over(folder, monkeypatch):
    (folder / "runs/a/version_4").mkdir(parents=True)
    (folder / "runs/a/version_5").write_text("no folder")
    monkeypatch.setattr(Path, "iterdir", lambda path: iter([]))  # none was there when it looked
    (folder / "runs/a/version_0").mkdir()
    assert RunFolder(Path("runs"), "a").claim() == Path("runs/a/version_1")


def test_two_processes_share_the_folder(folder):
    run(*TINY, BAR, *STEPS, "--trainer.devices=2", "--trainer.logger=false", folder=folder)
    assert files(folder / "runs/tetrominoes/version_0") == RUN
    run("test", "--ckpt_path=last", BAR, folder=folder)
    assert len(list((folder / "runs/tetrominoes").iterdir())) == 1


def test_a_run_that_may_not_be_written_to_is_tested_elsewhere(trained, monkeypatch):
    (trained / "runs").rename(trained / "theirs")
    made = trained / "theirs/tetrominoes/version_0"
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    access = os.access  # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: "theirs" not in str(path) and access(path, mode))
    for command in ("test", "predict"):
        run_command([command, f"--ckpt_path={made}/checkpoints/best.ckpt", BAR])
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before
    assert "panels/test_slots_0000000.png" in files(trained / "runs/tetrominoes/version_0")
    assert "predictions.h5" in files(trained / "runs/tetrominoes/version_1")


HOLD = """
import sys
from pathlib import Path
from lock import Lock
Lock.of(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_run_is_trained_by_one_process_at_a_time(trained):
    made = trained / "runs/tetrominoes/version_0"
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    alone = {"PYTHONPATH": str(Path(lock.__file__).parent)}  # it imports nothing else of the package
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(made / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | alone,
    )
    assert holder.stdout.readline() == b"locked\n"
    more = ["--ckpt_path=last", BAR, "--trainer.max_steps=4"]
    with pytest.raises(SystemExit, match=rf"version_0 is being trained by process {holder.pid} on \S+: wait for it or"):
        run_command(more)
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file() and path.name != ".lock"} == before
    run_command(["validate", "--ckpt_path=last", BAR])  # writes nothing that training does
    holder.kill()
    holder.communicate()
    assert (made / ".lock").exists()
    assert run_command(more).trainer.global_step == 4
    assert not (made / ".lock").exists()


def test_a_configuration_that_stays_as_it_is_is_left_alone(trained):
    config = trained / "runs/tetrominoes/version_0/config.yaml"
    first = config.stat().st_ino, config.stat().st_mtime_ns
    run_command(["--ckpt_path=last", BAR])
    assert (config.stat().st_ino, config.stat().st_mtime_ns) == first
    run_command(["--ckpt_path=last", BAR, "--trainer.max_steps=4"])
    assert yaml.safe_load(config.read_text())["trainer"]["max_steps"] == 4


class Delete(pl.Callback):
    def on_train_batch_end(self, trainer, *arguments):
        if trainer.global_step == 2:
            shutil.rmtree("runs/tetrominoes/version_0")


def test_a_run_whose_folder_is_deleted_meanwhile_can_go_on(folder):
    with pytest.warns(UserWarning, match=r"config\.yaml was deleted during the run"):
        run_command([*TINY, BAR, *STEPS, f"--trainer.callbacks={__name__}.Delete", "--trainer.logger=false"])
    cli = run_command(["--ckpt_path", "last", BAR, "--trainer.max_steps=6", "--trainer.callbacks=null"])
    assert cli.trainer.global_step == 6
    assert cli.model.latent_size == 4


def test_a_configuration_that_is_missing_or_cut_off_is_an_error(trained):
    """Training would go on in silence with other data."""
    config = trained / "runs/tetrominoes/version_0/config.yaml"
    whole = config.read_text()
    for content in ("", whole[: len(whole) // 3], whole[: whole.index("\ndata:")], "a: [", "- a"):
        config.write_text(content)
        for command in (["fit", "--ckpt_path=last"], ["test", "--ckpt_path=best"], ["report", str(config.parent)]):
            with pytest.raises(
                SystemExit, match=r"version_0/config\.yaml is (not YAML|empty, truncated or not a config)"
            ):
                run_command(command)
    config.unlink()
    for command in (["fit", "--ckpt_path", "last"], ["test", "--ckpt_path=best"]):
        with pytest.raises(SystemExit, match=r"version_0 has no config\.yaml, which says how the run was trained"):
            run_command(command)
    last = "runs/tetrominoes/version_0/checkpoints/last.ckpt"
    assert run_command(["validate", f"--ckpt_path={last}", BAR]).datamodule.num_train == 40


def test_a_configuration_whose_data_are_damaged_is_an_error(trained):
    config = trained / "runs/tetrominoes/version_0/config.yaml"
    settings = yaml.safe_load(config.read_text())
    for data in (
        {"claas_path": "iodine_pl.datamodules.Tetrominoes"},
        "x",
        {"class_path": "x", "init_args": 3},
    ):
        config.write_text(yaml.safe_dump(settings | {"data": data}))
        with pytest.raises(SystemExit, match=r"^error: runs/\S+/config\.yaml names no data: they need class_path and"):
            run_command(["fit", "--ckpt_path=last"])


def test_a_run_without_checkpoints(folder, capsys):
    run_command([*TINY, BAR, *STEPS, "--trainer.enable_checkpointing=false"])
    assert files(folder / "runs/tetrominoes/version_0") == {name for name in RUN if "checkpoints" not in name}
    assert "to continue" not in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_strategy_that_forks_its_processes(folder):
    """Lightning hands the weights to the first one in a file that is no whole checkpoint."""
    run(*TINY, BAR, *STEPS, "--trainer.strategy=ddp_fork", "--trainer.devices=2", folder=folder)
    assert files(folder / "runs/tetrominoes/version_0") - {".lock"} == RUN  # free, as the process has ended


def test_a_fast_dev_run_leaves_no_checkpoint(folder, capsys):
    run_command([*TINY, BAR, "--trainer.fast_dev_run=1"])
    assert not list(folder.rglob("*.ckpt"))
    assert "to continue" not in capsys.readouterr().out
