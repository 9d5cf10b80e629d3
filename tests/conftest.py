"""Common to all tests."""

import gc
import os

import pytest
import torch
from web_server import server  # noqa: F401, a fixture

if "PYTEST_XDIST_WORKER" in os.environ:  # as many tests run at once as there are cores
    os.environ["OMP_NUM_THREADS"] = "1"  # for the commands that the tests start
    torch.set_num_threads(1)
os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "off"  # Lightning 2.6 uses what jsonargparse 5 will remove


def pytest_collection_finish():
    gc.freeze()  # imported modules stay, so the garbage collector need not search them


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish():
    gc.unfreeze()  # hypothesis, which may be imported for the summary, looks who refers to its objects


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)
