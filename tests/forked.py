"""A process that imports torch and Lightning once, and becomes each command that it is asked for in a fork of itself.

Importing them takes longer than most commands of the tests. It is run as a script with the path of its socket; it ends
with its standard input. A request is a line of JSON: command, cwd, env, group, streams. The answers are lines: the
number of the process, and at its end its exit code.
"""

import atexit
import contextlib
import gc
import io
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace

import torch.utils.tensorboard  # noqa: F401
from command import Command
from lightning_fabric.strategies.launchers import subprocess_script as of_fabric
from pytorch_lightning.strategies.launchers import subprocess_script as of_lightning

from iodine_pl.cli import run_command


def look_at_options():
    """Parses a command: what jsonargparse finds out about classes and imports for it, it keeps."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        run_command(["fit", "--print_config"])


def next_command(path):
    """Serves requests. Returns that of a command in the process that is to become it."""
    gc.freeze()  # or each command looks through all that is imported, which copies its pages
    for finalizer in weakref.finalize._registry:
        finalizer.atexit = False  # nor does it take apart at its end what was imported
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}.part")
        listener.listen()
        os.rename(f"{path}.part", path)  # it is there when it answers
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who watch the commands
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    request = json.loads(connection.makefile().readline())
                    pid = os.fork()
                    if pid == 0:
                        return request
                    listener.close()
                    connection.sendall(b"%d\n" % pid)
                    _, status = os.waitpid(pid, 0)
                    with contextlib.suppress(BrokenPipeError):  # who asked was killed
                        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
                    os._exit(0)
    os._exit(0)


def become(command, cwd, env, group, streams):
    """Makes of this process what ``python SCRIPT ARGUMENT ...`` is after its imports; or of ``-m`` or ``-c``."""
    os.setpgid(0, group)
    os.chdir(cwd)
    for number, file in enumerate(streams):
        os.dup2(os.open(file, os.O_RDWR | os.O_APPEND), number)
    server = sys.argv[1]
    os.environ.clear()
    os.environ.update(env)
    sys.argv[:] = command
    sys.path[0] = cwd if command[0] in ("-m", "-c") else str(Path(command[0]).parent)
    sys.path[1:1] = env.get("PYTHONPATH", "").split(os.pathsep)

    def another(command, env, cwd):
        return Command(command[1:], cwd or os.getcwd(), dict(env), streams[1], os.getpgrp(), server)

    for launcher in (of_fabric, of_lightning):  # of the other processes of a multi-device run
        launcher.subprocess = SimpleNamespace(Popen=another)


def status_of_command():
    """Runs the command, and returns its exit status as the interpreter finds it."""
    try:
        if sys.argv[0] == "-m":
            del sys.argv[0]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        elif sys.argv[0] == "-c":
            exec(sys.argv.pop(1), {"__name__": "__main__"})
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def end(status):
    """Ends as the interpreter does, without taking apart what was imported: that takes as long as many commands."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


if __name__ == "__main__":
    look_at_options()
    become(**next_command(sys.argv[1]))
    end(status_of_command())
