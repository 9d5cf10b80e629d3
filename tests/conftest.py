"""Common to all tests."""

import atexit
import gc
import os

import command
import pytest
from web_server import server  # noqa: F401, a fixture

os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "off"  # Lightning 2.6 uses what jsonargparse 5 will remove
WORKER = "PYTEST_XDIST_WORKER" in os.environ
if WORKER:
    atexit.register(os._exit, 0)  # the last to run: to take apart all that was imported takes seconds
gc.disable()  # until all is imported: it would search all this for garbage, and find none


def pytest_configure(config):
    if getattr(config.option, "numprocesses", None):  # as many tests run at once as there are cores
        os.environ["OMP_NUM_THREADS"] = "1"  # for the workers, and for the commands that the tests start
        command.server()  # one for all workers


def pytest_collection_modifyitems(items):
    """Puts tests that wait first, and those that compute for long in the middle, where a second worker begins."""
    waiting, long, others = [], [], []
    for item in items:
        marked = {mark.name for mark in item.iter_markers()}
        (waiting if "waits" in marked else long if "long" in marked else others).append(item)
    before = max(0, len(items) // 2 - len(waiting))
    items[:] = [*waiting, *others[:before], *long, *others[before:]]


def pytest_collection_finish():
    gc.freeze()  # imported modules stay, so the garbage collector need not search them
    gc.enable()
    if WORKER:
        from iodine_pl.cli.memory import keep_freed_memory

        keep_freed_memory()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish():
    if not WORKER:
        gc.unfreeze()  # hypothesis, which may be imported for the summary, looks who refers to its objects


@pytest.fixture(autouse=True)
def _same_random_numbers():
    import torch  # here, since the process that only distributes the tests needs none of it

    torch.manual_seed(0)
