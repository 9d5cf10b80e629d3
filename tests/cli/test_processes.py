"""The processes of a run that failed are ended."""

import subprocess
from types import SimpleNamespace

import pytest

from iodine_pl.cli.processes import PATIENCE, end_others


class Hangs:
    """Stands for a process that does not end by itself."""

    def __init__(self):
        self.waited = self.killed = None

    def wait(self, timeout):
        self.waited = timeout
        raise subprocess.TimeoutExpired("train.py", timeout)

    def kill(self):
        self.killed = True


@pytest.mark.parametrize(("seconds", "expected"), [(2.0, 2.0), (300.0, PATIENCE)])
def test_processes_that_hang_are_killed_after_the_timeout_of_the_run(seconds, expected):
    processes = [Hangs(), Hangs()]
    trainer = SimpleNamespace(strategy=SimpleNamespace(launcher=SimpleNamespace(procs=processes)))
    end_others(trainer, seconds)
    assert [(each.waited, each.killed) for each in processes] == [(expected, True)] * 2
