"""Runs a benchmark whose new processes are forked instead, since each would import torch and Lightning.

python tests/forking.py SCRIPT ARGUMENT ...
"""

import multiprocessing
import runpy
import sys
from pathlib import Path

import torch

if __name__ == "__main__":
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    if not torch.cuda.is_available():  # with a GPU torch has threads, and a fork would be without them
        context = multiprocessing.get_context("fork")
        multiprocessing.get_context = lambda method=None: context
    runpy.run_path(sys.argv[0], run_name="__main__")
