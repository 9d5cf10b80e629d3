"""The processes of a run that failed are ended."""

import os
import subprocess
from types import SimpleNamespace

import pytest
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from iodine_pl.cli.processes import PATIENCE, end_others, kill_others, one_is_gone


class Hangs:
    """Stands for a process that does not end by itself."""

    returncode = None

    def __init__(self, meanwhile=lambda: None):
        self.waited = self.killed = None
        self.meanwhile = meanwhile

    def wait(self, timeout):
        self.waited = timeout
        self.meanwhile()
        raise subprocess.TimeoutExpired("train.py", timeout)

    def kill(self):
        self.killed = True

    def poll(self):
        return self.returncode


def trainer_that_started(processes):
    launcher = _SubprocessScriptLauncher(LightningEnvironment(), num_processes=3, num_nodes=1)
    launcher.procs = processes
    return SimpleNamespace(strategy=SimpleNamespace(launcher=launcher))


@pytest.mark.parametrize(("seconds", "expected"), [(2.0, 2.0), (300.0, PATIENCE)])
def test_processes_that_hang_are_killed_after_the_timeout_of_the_run(seconds, expected, monkeypatch):
    """They are waited for together, not one after the other."""
    now = 0.0

    def pass_by():
        nonlocal now
        now += processes[0].waited

    monkeypatch.setattr("iodine_pl.cli.processes.monotonic", lambda: now)
    processes = [Hangs(pass_by), Hangs()]
    end_others(trainer_that_started([*processes]), seconds)
    assert [each.waited for each in processes] == [expected, 0.0]
    assert all(each.killed for each in processes)


def test_processes_are_killed_at_once_at_a_signal():
    processes = [Hangs(), Hangs()]
    kill_others(trainer_that_started([*processes]))
    assert [(each.waited, each.killed) for each in processes] == [(None, True)] * 2


def test_lightning_does_not_kill_the_process_that_waits_for_the_others(monkeypatch):
    """It has not said its error yet. Of three processes, one has failed and one hangs."""
    killed = []
    monkeypatch.setattr(os, "kill", lambda *arguments: killed.append(arguments))
    started = []
    observer = _ChildProcessObserver(main_pid=os.getpid(), child_processes=started)
    hangs, failed = Hangs(observer._run), Hangs()
    failed.returncode = 1
    failed.send_signal = hangs.send_signal = lambda signum: None
    started += [hangs, failed]
    end_others(trainer_that_started(started), 2.0)
    assert hangs.killed
    assert not killed


def test_processes_of_multiprocessing_end_by_themselves():
    end_others(SimpleNamespace(strategy=SimpleNamespace(launcher=SimpleNamespace(procs=[object()]))), 2.0)


@pytest.mark.parametrize(
    ("said", "gone"),
    [
        ("Timed out after 4 seconds waiting for clients. 1/2 clients joined.", True),
        ("Timed out waiting 300000ms for recv operation to complete", True),
        ("Connection closed by peer [127.0.0.1]:1", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_errors_about_another_process_are_known(said, gone):
    assert one_is_gone(RuntimeError(said)) == gone
