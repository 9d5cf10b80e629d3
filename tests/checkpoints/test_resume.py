"""A run that was stopped or killed goes on to the same weights, bit for bit, as one that was not."""

import resource
import signal
from pathlib import Path

import pytest
import torch
import yaml
from command import BAR, TINY, run, start
from helpers import working_in

from iodine_pl.callbacks import LastCheckpoint
from iodine_pl.cli import run_command as main

LAST = "runs/tetrominoes/version_0/checkpoints/last.ckpt"
BEST = LAST.replace("last", "best")
STEPS = 11  # epochs of 5 updates on one process, 3 on two
FEW = [*TINY, BAR, "--data.num_train=20"]


def state(folder):
    return torch.load(folder / LAST, weights_only=False)


def assert_same_run(folder, expected, steps=STEPS):
    ours, theirs = state(folder), state(expected)
    assert ours["global_step"] == theirs["global_step"] == steps
    for name, tensor in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], tensor), name
    for key, values in theirs["optimizer_states"][0]["state"].items():
        for name, value in values.items():
            assert torch.equal(ours["optimizer_states"][0]["state"][key][name], value), (key, name)
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]
    assert ours["epoch"] == theirs["epoch"]


def uninterrupted(tmp_path_factory, processes):
    folder = tmp_path_factory.mktemp(f"whole{processes}")
    arguments = [*FEW, f"--trainer.devices={processes}"]
    if processes == 2:
        arguments += ["--data.num_train=24", "--model.optimizer=muon", "--model.decay=cosine", "--model.decay_steps=40"]
        arguments += ["--model.pixel_likelihood=mean", "--model.bounded_means=true"]
    run(*arguments, f"--trainer.max_steps={STEPS}", folder=folder)
    return folder, arguments


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    return uninterrupted(tmp_path_factory, 1)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    return uninterrupted(tmp_path_factory, 2)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("processes", ["one_process", "two_processes"])
def test_killed_in_the_middle_of_an_epoch(processes, workers, tmp_path, request):
    expected, arguments = request.getfixturevalue(processes)
    arguments = [*arguments, f"--data.num_workers={workers}", f"--trainer.max_steps={STEPS}"]
    arguments += ["--last_checkpoint.every_n_train_steps=7", "--trainer.callbacks=kill_at.KillAt"]
    arguments += ["--trainer.callbacks.step=8", "--last_checkpoint.every_n_minutes=null"]
    modules = {"PYTHONPATH": str(Path(__file__).parents[1])}  # where kill_at is
    killed = start(*arguments, folder=tmp_path, **modules)
    output, _ = killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL, output
    assert state(tmp_path)["global_step"] == 7
    run("--ckpt_path", "last", "--trainer.callbacks=null", folder=tmp_path, **modules)
    assert_same_run(tmp_path, expected)


@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_of_two_is_killed(two_processes, rank, tmp_path):
    """The other does not wait for it."""
    expected, arguments = two_processes
    kill = ["--trainer.callbacks=kill_at.KillAt", "--trainer.callbacks.step=8", f"--trainer.callbacks.rank={rank}"]
    every = ["--last_checkpoint.every_n_train_steps=7", "--last_checkpoint.every_n_minutes=null"]
    modules = {"PYTHONPATH": str(Path(__file__).parents[1])}  # where kill_at is
    ended = start(*arguments, f"--trainer.max_steps={STEPS}", *every, *kill, folder=tmp_path, **modules)
    output, _ = ended.communicate(timeout=120)
    assert ended.returncode not in (0, None), output
    assert state(tmp_path)["global_step"] == 7
    run("--ckpt_path", "last", "--trainer.callbacks=null", folder=tmp_path, **modules)
    assert_same_run(tmp_path, expected)


def test_another_seed_is_another_run(one_process, tmp_path, monkeypatch):
    """So the tests of this file could fail."""
    expected, arguments = one_process
    monkeypatch.chdir(tmp_path)
    main([*arguments, f"--trainer.max_steps={STEPS}", "--seed_everything=1"])
    ours, theirs = state(tmp_path)["state_dict"], state(expected)["state_dict"]
    assert not any(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


@pytest.mark.parametrize(("stops", "workers"), [((3, 5, 7, 9, 10), 0), ((5, 7), 1)])
def test_stopped_at_any_update(one_process, stops, workers, tmp_path, monkeypatch):
    """Each stop but the first is one of a run that was stopped before."""
    expected, arguments = one_process
    monkeypatch.chdir(tmp_path)
    main([*arguments, f"--trainer.max_steps={stops[0]}", f"--data.num_workers={workers}"])
    for stop in (*stops[1:], STEPS):
        main(["fit", "--ckpt_path", "last", f"--trainer.max_steps={stop}"])
    assert_same_run(tmp_path, expected)
    (folder,) = (tmp_path / "runs" / "tetrominoes").iterdir()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["trainer"]["max_steps"] == STEPS
    assert config["ckpt_path"] is None  # so that it can start another run


@pytest.mark.parametrize("every", [5, 7], ids=["end of an epoch", "middle of an epoch"])
def test_broken_off_after_a_save(one_process, every, tmp_path, monkeypatch):
    """The file was saved by a run that meant to go on, not by one that had come to its end."""
    expected, arguments = one_process
    monkeypatch.chdir(tmp_path)

    class PowerCut(Exception):
        pass

    def save_and_break_off(callback, trainer):
        save(callback, trainer)
        if trainer.global_step == every:
            raise PowerCut

    save = LastCheckpoint.save
    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, "save", save_and_break_off)
        with pytest.raises(PowerCut):
            main([*arguments, f"--trainer.max_steps={STEPS}", f"--last_checkpoint.every_n_train_steps={every}"])
    assert state(tmp_path)["global_step"] == every
    main(["fit", "--ckpt_path", "last", "--last_checkpoint.every_n_train_steps=null"])
    assert_same_run(tmp_path, expected)


def test_a_run_of_epochs_goes_on_with_more_of_them(tmp_path, monkeypatch):
    states = []
    for stops in ([2], [1, 2]):
        folder = tmp_path / str(len(stops))
        folder.mkdir()
        monkeypatch.chdir(folder)
        for i, stop in enumerate(stops):
            main([*(["fit", "--ckpt_path", "last"] if i else FEW), f"--trainer.max_epochs={stop}"])
            assert state(folder)["global_step"] == 5 * stop
        states.append(state(folder)["state_dict"])
    assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())


@pytest.fixture(scope="module", params=[12, 10], ids=["in the run", "of the last update"])
def whole(request, tmp_path_factory):
    """Trains without a break; returns the number of updates, and the folder."""
    folder = tmp_path_factory.mktemp("whole")
    with working_in(folder):
        main([*TINY, BAR, f"--trainer.max_steps={request.param}"])
    return request.param, folder


@pytest.mark.parametrize(
    ("where", "every"),  # saved at the end of the batch, or at the start of the validation
    [("on_train_batch_end", 5), ("on_validation_start", 5), ("on_validation_start", 4), ("on_validation_end", 4)],
)
def test_a_validation_that_was_broken_off_is_made_up_for(where, every, whole, tmp_path, monkeypatch):
    """So ``best.ckpt`` holds what an undisturbed run holds: the validation of update 10 is the only one."""

    class PowerCut(Exception):
        pass

    def break_off(callback, trainer, *arguments):
        hook(callback, trainer, *arguments)
        if trainer.global_step == 10:
            raise PowerCut

    end, expected = whole
    monkeypatch.chdir(tmp_path)
    hook = getattr(LastCheckpoint, where)
    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, where, break_off)
        with pytest.raises(PowerCut):
            main([*TINY, BAR, f"--trainer.max_steps={end}", f"--last_checkpoint.every_n_train_steps={every}"])
    main(["fit", "--ckpt_path", "last"])
    best = [torch.load(folder / BEST, weights_only=False) for folder in (expected, tmp_path)]
    scores = [each["callbacks"]["BestCheckpoint"]["best_model_score"] for each in best]
    assert scores[0] == scores[1]
    assert best[0]["global_step"] == best[1]["global_step"] == 10
    assert all(torch.equal(best[0]["state_dict"][name], tensor) for name, tensor in best[1]["state_dict"].items())
    assert_same_run(tmp_path, expected, end)


def test_metrics_go_on(tmp_path, monkeypatch):
    """The validation of a resumed run gives the numbers of an uninterrupted one."""
    numbers = []
    for stops in ([10], [7, 10]):
        folder = tmp_path / str(len(stops))
        folder.mkdir()
        monkeypatch.chdir(folder)
        for i, stop in enumerate(stops):
            resume = ["fit", "--ckpt_path", "last"] if i else FEW
            cli = main([*resume, f"--trainer.max_steps={stop}"])
        numbers.append({name: float(v) for name, v in cli.trainer.callback_metrics.items() if name.startswith("val")})
    assert len(numbers[0]) > 10
    assert numbers[0] == numbers[1]


def test_a_kill_while_saving_leaves_the_checkpoint_before(tmp_path):
    script = """
import os, signal, sys, torch
from iodine_pl.checkpoints.writing import AtomicCheckpointIO
io, path = AtomicCheckpointIO(), sys.argv[1]
io.save_checkpoint({"step": 1}, path)
def half(checkpoint, file):
    file.write(b"half of it")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
torch.save = half
io.save_checkpoint({"step": 2}, path)
"""
    path = tmp_path / "last.ckpt"
    (tmp_path / "script.py").write_text(script)
    killed = start(path, folder=tmp_path, script=tmp_path / "script.py")
    assert killed.wait() == -signal.SIGKILL
    assert torch.load(path, weights_only=False) == {"step": 1}


def test_a_full_disk_ends_training_in_one_line_and_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main([*TINY, BAR, "--trainer.max_steps=2"])
    before = Path(LAST).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(SystemExit, match=r"^error: \S+last\.ckpt cannot be written: it is larger than .* MB of it"):
            main(["fit", "--ckpt_path=last", "--trainer.max_steps=3", "--trainer.logger=false", BAR])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert Path(LAST).read_bytes() == before
    assert [path.name for path in Path(LAST).parent.iterdir()] == ["last.ckpt"]
