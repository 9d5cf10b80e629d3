"""Common to all tests."""

import os

import pytest
import torch
from web_server import server  # noqa: F401, a fixture

os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "off"  # Lightning 2.6 uses what jsonargparse 5 will remove


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)
