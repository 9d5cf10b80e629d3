"""Training that a signal stops saves, says so, and goes on to the same weights as training that none stopped."""

import os
import signal
import time

import pytest
import pytorch_lightning as pl
import torch
from command import BAR, ROOT, TINY, run, start
from helpers import loader, small, trainer
from pytorch_lightning.plugins.environments import SLURMEnvironment

from iodine_pl import __version__
from iodine_pl.cli import run_command
from iodine_pl.cli.stopping import _TWICE, StopAtSignal

pytestmark = pytest.mark.waits

STEPS = 12  # epochs of 5 updates on one process, 3 on two
LAST = "runs/tetrominoes/version_0/checkpoints/last.ckpt"
NUMBERS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def arguments(processes, workers=0):
    few = [f"--data.num_train={20 if processes == 1 else 24}", f"--data.num_workers={workers}"]
    return [*TINY, *few, BAR, f"--trainer.devices={processes}"]


def stop_at(step, where="train", rank=0):
    """Waits in a batch of training or validation after so many updates, and names the process that does."""
    callback = {"step": step, "where": where, "rank": rank}
    return ["--trainer.callbacks=stop_at.WaitAt", *(f"--trainer.callbacks.{k}={v}" for k, v in callback.items())]


def interrupted(folder, *options, signum=signal.SIGTERM, whole_group=False):
    """Starts training, sends a signal while a batch runs, and returns what it printed and its exit code."""
    process = start(*options, "--trainer.max_steps", STEPS, folder=folder, PYTHONPATH=modules())
    note = folder / "waits"
    while not note.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    os.killpg(process.pid, signum) if whole_group else os.kill(int(note.read_text()), signum)
    (folder / "go").touch()
    output, _ = process.communicate(timeout=300)
    note.unlink()
    (folder / "go").unlink()
    return output, process.returncode


def modules():
    return os.pathsep.join([str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])


def state(folder):
    return torch.load(folder / LAST, weights_only=False)


def assert_same_run(folder, expected):
    ours, theirs = state(folder), state(expected)
    assert ours["global_step"] == theirs["global_step"] == STEPS
    assert ours["epoch"] == theirs["epoch"]
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]
    assert all(torch.equal(ours["state_dict"][name], tensor) for name, tensor in theirs["state_dict"].items())
    for key, values in theirs["optimizer_states"][0]["state"].items():
        assert all(
            torch.equal(ours["optimizer_states"][0]["state"][key][name], value) for name, value in values.items()
        )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folders = {}
    for processes in (1, 2):
        folders[processes] = tmp_path_factory.mktemp(f"whole{processes}")
        run(*arguments(processes), f"--trainer.max_steps={STEPS}", folder=folders[processes])
    return folders


@pytest.mark.parametrize(
    ("processes", "workers", "step", "where", "rank", "signum", "whole_group"),
    [
        (1, 0, 7, "train", 0, signal.SIGTERM, False),
        (1, 0, 4, "train", 0, signal.SIGINT, False),  # in the last batch of an epoch
        (1, 2, 7, "train", 0, signal.SIGINT, True),  # as a terminal sends it
        (1, 2, 10, "train", 0, signal.SIGTERM, True),
        (1, 0, 5, "validation", 0, signal.SIGTERM, False),
        (2, 0, 0, "sanity check", 0, signal.SIGTERM, False),
        (2, 0, 0, "sanity check", 1, signal.SIGTERM, False),
        (2, 0, 7, "train", 0, signal.SIGTERM, False),
        (2, 0, 7, "train", 1, signal.SIGTERM, False),
        (2, 2, 7, "train", 0, signal.SIGINT, True),
        (2, 0, 6, "validation", 0, signal.SIGINT, True),
    ],
)
def test_a_signal_saves_and_the_run_goes_on(
    undisturbed, tmp_path, processes, workers, step, where, rank, signum, whole_group
):
    options = [*arguments(processes, workers), *stop_at(step, where, rank)]
    output, code = interrupted(tmp_path, *options, signum=signum, whole_group=whole_group)
    assert code == NUMBERS[signum], output
    assert f"stopped by {signum.name}, saved {LAST}\n" in output
    assert "Traceback" not in output
    # Several processes end a validation first, and stop in the batch after it.
    assert state(tmp_path)["global_step"] == step + (where == "train" or processes == 2)
    run("--ckpt_path", "last", "--trainer.callbacks=null", folder=tmp_path, PYTHONPATH=modules())
    assert_same_run(tmp_path, undisturbed[processes])


def test_a_validation_in_the_middle_of_an_epoch(tmp_path, tmp_path_factory):
    often = [*arguments(1), "--trainer.val_check_interval=4"]
    whole = tmp_path_factory.mktemp("whole")
    run(*often, f"--trainer.max_steps={STEPS}", folder=whole)
    output, code = interrupted(tmp_path, *often, *stop_at(9, "validation"))
    assert code == 143, output
    assert state(tmp_path)["global_step"] == 9
    run("--ckpt_path", "last", "--trainer.callbacks=null", folder=tmp_path, PYTHONPATH=modules())
    assert_same_run(tmp_path, whole)


def test_between_the_batches_of_one_update(tmp_path, tmp_path_factory):
    several = [*arguments(1), "--trainer.accumulate_grad_batches=2"]
    whole = tmp_path_factory.mktemp("whole")
    run(*several, f"--trainer.max_steps={STEPS}", folder=whole)
    output, code = interrupted(tmp_path, *several, *stop_at(7))
    assert code == 143, output
    run("--ckpt_path", "last", "--trainer.callbacks=null", folder=tmp_path, PYTHONPATH=modules())
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize(("processes", "in_an_operation"), [(1, False), (2, False), (1, True), (2, True)])
def test_a_second_interrupt_ends_at_once(tmp_path, processes, in_an_operation):
    waits = [*stop_at(2), f"--trainer.callbacks.for_ever={in_an_operation}"]
    process = start(*arguments(processes), *waits, folder=tmp_path, PYTHONPATH=modules())
    while not (tmp_path / "waits").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    while "Ctrl-C stops at once" not in process.output.read_text():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    if in_an_operation:
        (tmp_path / "go").touch()
    time.sleep(1.1 * _TWICE)  # sooner it would be taken for the same
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130, output
    assert "saved" not in output
    assert not (tmp_path / LAST).exists()


@pytest.mark.parametrize(("how", "ranks"), [("hangs", [0, 1]), ("exits", [1])])
def test_a_process_that_leaves_the_others_alone_ends_the_run(tmp_path, how, ranks):
    begun = []
    for rank in ranks:  # two runs wait at the same time
        leave = {"step": 3, "rank": rank, "how": how}
        callback = ["--trainer.callbacks=stop_at.LeaveAt", *(f"--trainer.callbacks.{k}={v}" for k, v in leave.items())]
        options = [*arguments(2), *callback, "--process_timeout=5", f"--trainer.max_steps={STEPS}"]
        folder = tmp_path / f"rank{rank}"
        folder.mkdir()
        begun.append(start(*options, folder=folder, PYTHONPATH=modules()))
    for rank, process in zip(ranks, begun, strict=True):
        output, _ = process.communicate(timeout=120)
        assert process.returncode not in (0, None), rank
        assert "error: another process of this run has ended, or did not answer" in output, rank
        assert "Traceback" not in output, rank
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and lives(process.pid):
            time.sleep(0.1)
        assert not lives(process.pid), rank  # nor does another of its group


def lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("processes", "signum"), [(1, signal.SIGINT), (1, signal.SIGTERM), (2, signal.SIGTERM)])
def test_a_test_is_stopped_too(undisturbed, tmp_path, processes, signum):
    if signal.getsignal(signum) == signal.SIG_IGN:
        pytest.skip("a job in the background of a shell ignores it")
    checkpoint = f"--ckpt_path={undisturbed[processes] / LAST}"
    options = ["test", checkpoint, BAR, f"--trainer.devices={processes}", *stop_at(0, "test")]
    process = start(*options, folder=tmp_path, PYTHONPATH=modules())
    while not (tmp_path / "waits").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    os.kill(process.pid, signum)
    (tmp_path / "go").touch()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == NUMBERS[signum], output
    assert f"stopped by {signum.name}\n" in output


OF_SLURM = {"JOB_ID": 7, "JOB_NAME": "train", "PROCID": 0, "LOCALID": 0, "NODEID": 0, "NTASKS": 1, "NODELIST": "a"}


@pytest.mark.parametrize("requeue", [True, False])
def test_what_slurm_sends_is_left_to_lightning(tmp_path, requeue, monkeypatch):
    class Look(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            ours.update({signum: signal.getsignal(signum) == stop._note for signum in NUMBERS})
            ours[signal.SIGUSR1] = not requeue or signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL

    for name, value in OF_SLURM.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    before = {signum: signal.getsignal(signum) for signum in (*NUMBERS, signal.SIGUSR1)}
    stop, ours = StopAtSignal(), {}
    settings = {"plugins": [SLURMEnvironment(auto_requeue=requeue)], "enable_checkpointing": True}
    made = trainer(tmp_path, stop, Look(), limit_val_batches=0, **settings)
    made.fit(small(), loader(), loader())
    assert ours == {signal.SIGINT: True, signal.SIGTERM: not requeue, signal.SIGUSR1: not requeue}
    assert {signum: signal.getsignal(signum) for signum in before} == before


def test_a_job_of_slurm_takes_no_checkpoint_of_another(tmp_path, monkeypatch):
    """Lightning saves for the queue in the Trainer's folder, and begins with whatever lies there."""
    monkeypatch.chdir(tmp_path)
    for name, value in OF_SLURM.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "hpc_ckpt_1.ckpt").write_bytes(b"of another job")
    assert run_command([*TINY, BAR, "--trainer.max_steps=1"]).trainer.global_step == 1


@pytest.mark.parametrize("signum", NUMBERS)
def test_a_signal_after_the_last_line_changes_nothing(tmp_path, signum):
    """Python itself takes a while to end after the command has."""
    script = tmp_path / "late.py"
    script.write_text(
        "import atexit, os, sys; from iodine_pl.cli import main\n"
        f"atexit.register(os.kill, os.getpid(), {int(signum)})\n"
        "sys.exit(main())\n"
    )
    assert run("--version", folder=tmp_path, script=script) == f"iodine-pl {__version__}\n"


def test_an_interrupt_outside_of_training_is_said_in_a_line(tmp_path):
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        pytest.skip("a job in the background of a shell ignores it")
    script = tmp_path / "early.py"
    script.write_text(
        "import os, sys; from iodine_pl.cli import entry\n"
        "entry.run_tool = lambda *_: os.kill(os.getpid(), 2)\n"
        "sys.exit(entry.main())\n"
    )
    process = start("prepare", folder=tmp_path, script=script)
    output, _ = process.communicate()
    assert (output, process.returncode) == ("stopped by SIGINT\n", 130)
