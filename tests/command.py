"""Runs the command line as users do, on sizes that take seconds.

Importing torch and Lightning takes longer than most of these runs. One process imports them, and each command is a
process forked from it. What the interpreter itself does at the start is seen by the tests of the installed command.
"""

import atexit
import contextlib
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRAIN = ROOT / "train.py"

TINY = [
    "--data.num_train=40",
    "--data.num_val=5",
    "--data.num_test=11",
    "--data.batch_size=4",
    "--data.pixel_stride=3",
    "--model.num_iterations=1",
    "--model.latent_size=4",
    "--model.decoder_channels=[4]",
    "--model.encoder_channels=[4]",
    "--model.mlp_sizes=[8]",
    "--panels.num_images=1",
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=4",
]
BAR = "--trainer.enable_progress_bar=false"


class Command:
    """A running ``python SCRIPT ARGUMENT ...``, with what is needed here of ``subprocess.Popen``.

    Args:
        command: the script, or ``-m`` and a module, and its arguments; or ``-c`` and a program.
        cwd: folder in which it runs.
        env: all variables that it sees.
        output: file to which it writes.
        group: process group that it joins; 0 for one of its own.
        server: socket of ``forked.py``.
        stdin: file from which it reads.
        stderr: another file for its errors.
    """

    def __init__(self, command, cwd, env, output, group, server, stdin=os.devnull, stderr=None):
        self.output = Path(output)
        self.returncode = None
        request = {"command": [*map(str, command)], "cwd": str(cwd), "env": env, "group": group}
        request["streams"] = [str(stdin), str(output), str(stderr or output)]
        deadline = time.monotonic() + 300
        while not Path(server).exists():  # it imports
            assert time.monotonic() < deadline, "no process from which commands are forked"
            time.sleep(0.05)
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(server)
        self._connection.sendall(json.dumps(request).encode() + b"\n")
        self._answers = self._connection.makefile("rb", buffering=0)  # what is not read yet stays for select
        self.pid = int(self._answers.readline())

    def wait(self, timeout=300):
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("the command", timeout, self.output.read_bytes())
            self.returncode = int(self._answers.readline())
            self.close()
        return self.returncode

    def close(self):
        self._answers.close()
        self._connection.close()

    def poll(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, signum):
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=300):
        """Waits for the end, and returns all that was printed."""
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self.close()
            raise
        return self.output.read_text(), None


@functools.cache
def server():
    """Returns the socket of the process from which commands are forked.

    The first process that asks for it starts it, and it ends with that one. Commands that start others share it.
    """
    if "FORKED" not in os.environ:
        path = Path(tempfile.mkdtemp(), "socket")
        script = [sys.executable, str(Path(__file__).with_name("forked.py")), str(path)]
        process = subprocess.Popen(script, stdin=subprocess.PIPE)
        atexit.register(shutil.rmtree, path.parent)
        atexit.register(process.communicate)
        os.environ["FORKED"] = str(path)
    return os.environ["FORKED"]


def environment():
    """Returns the environment of a user: none of the variables that a distributed run leaves."""
    return {key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")}


def start(*arguments, folder, script=TRAIN, module=None, output=None, errors=None, **variables):
    """Starts ``python train.py ...`` in a folder, in a process group of its own.

    Args:
        arguments: those of the command.
        folder: where it runs.
        script: runs this one.
        module: runs ``python -m MODULE ...`` instead.
        output: a terminal to which it writes, instead of a file.
        errors: another file for what it writes to stderr.
        variables: are added to the environment.
    """
    if output is None:
        made, output = tempfile.mkstemp(dir=Path(server()).parent)
        os.close(made)
    program = [script] if module is None else ["-m", module]
    return Command([*program, *arguments], folder, environment() | variables, output, 0, server(), stderr=errors)


def run(*arguments, folder, **options):
    """Runs ``python train.py ...`` to its end and returns what it printed; a failure fails the test."""
    process = start(*arguments, folder=folder, **options)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output
