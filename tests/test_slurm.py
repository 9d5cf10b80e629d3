"""The script for SLURM requeues itself when its time is over, and continues to the end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command import BAR, ROOT, TINY, environment, server

SCRIPT = ROOT / "docs" / "slurm.sh"
JOB = {"JOB_ID": 7, "JOB_NAME": "iodine", "NNODES": 1, "NTASKS": 1, "NTASKS_PER_NODE": 1, "NODELIST": "a"}
TASK = {"PROCID": 0, "LOCALID": 0, "NODEID": 0}
WAITS = json.dumps({"class_path": "stop_at.WaitAt", "init_args": {"step": 2}})

pytestmark = pytest.mark.skipif(not Path("/bin/bash").exists(), reason="the script is one of bash")


@pytest.fixture
def submit(tmp_path):
    """Returns a function that runs the script as SLURM does, with stubs of its commands, and returns its exit code."""
    stubs = tmp_path / "bin"
    stubs.mkdir()
    (stubs / "srun").write_text(f'#!/bin/bash\nexec {sys.executable} {ROOT}/tests/srun_stub.py "$@"\n')
    (stubs / "scontrol").write_text('#!/bin/bash\necho "$@" >> requeued\n')
    for stub in stubs.iterdir():
        stub.chmod(0o755)
    variables = environment() | {f"SLURM_{name}": str(value) for name, value in (JOB | TASK).items()}
    variables |= {"PATH": f"{stubs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "tests")}
    variables |= {"FORKED": server(), "OUTPUT": str(tmp_path / "output"), "RUN": "cluster"}

    def submitted(*arguments):
        (tmp_path / "output").touch()
        return subprocess.run([SCRIPT, *arguments], cwd=tmp_path, env=variables, timeout=300).returncode

    return submitted


def test_a_job_requeues_itself_and_continues(submit, tmp_path):
    arguments = [*TINY, BAR, "--trainer.max_steps=4"]
    assert submit(*arguments, f"--trainer.callbacks+={WAITS}") == 0
    said = (tmp_path / "output").read_text()
    assert (tmp_path / "waited").exists()
    assert "stopped by SIGTERM, saved runs/cluster/version_0/checkpoints/last.ckpt" in said
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    assert submit(*arguments) == 0
    said = (tmp_path / "output").read_text().removeprefix(said)
    assert "Restoring states from the checkpoint path at runs/cluster/version_0/checkpoints/last.ckpt" in said
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"  # it is not requeued again
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["cluster"]  # nothing is left for the next run
    (run,) = (tmp_path / "runs" / "cluster").iterdir()
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4


def test_a_failure_is_not_put_into_the_queue_again(submit, tmp_path):
    assert submit(*TINY, BAR, "--model.num_slots=0") == 2
    assert not (tmp_path / "requeued").exists()
