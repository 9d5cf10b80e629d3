"""Common to all tests."""

import os

import pytest
import torch

os.environ.setdefault("OMP_NUM_THREADS", "2")


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)
