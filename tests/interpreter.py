"""Stands for ``subprocess.Popen`` where this interpreter is started with pipes: the process is forked."""

import os
import signal
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from command import Command, environment, server


class Interpreter:
    """A running ``python -c PROGRAM``, with what is needed here of ``subprocess.Popen``.

    Args:
        command: the interpreter, ``-c``, and the program.
        stdin: file that is open for reading.
        errors: how its output is decoded.
        pipes: ``stdout`` and ``stderr`` are always pipes, for text.
    """

    def __init__(self, command, stdin, errors, **pipes):
        folder = Path(tempfile.mkdtemp(dir=Path(server()).parent))
        (folder / "stdin").write_bytes(stdin.read())
        for name in ("stdout", "stderr"):
            os.mkfifo(folder / name)
        files = {"stdin": folder / "stdin", "stderr": folder / "stderr"}
        self._command = Command(
            command[1:], os.getcwd(), environment(), folder / "stdout", os.getpgrp(), server(), **files
        )
        self._waiting = threading.Lock()
        self.stdout, self.stderr = ((folder / name).open(errors=errors) for name in ("stdout", "stderr"))

    def wait(self):
        with self._waiting:
            return self._command.wait()

    def kill(self):
        if self._command.returncode is None:  # otherwise the number may belong to another process
            with suppress(ProcessLookupError):
                os.kill(self._command.pid, signal.SIGKILL)

    def communicate(self):
        self.stdout.close()
        self.stderr.close()
        self.wait()
