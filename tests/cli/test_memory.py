"""Freed memory stays with the process once that was asked for."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from iodine_pl.cli.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults = []
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 * 2**20)  # 64 MiB: 16,384 pages, or 32 huge ones where the system has them
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults[1:]))  # the system may add some of its own
"""


@pytest.mark.skipif(sys.platform != "linux", reason="concerns glibc")
def test_large_arrays_are_not_mapped_anew():
    faults = {}
    for how in ("keep", "system"):
        command = [sys.executable, "-c", PROGRAM, how]
        faults[how] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert faults["keep"] < 16 < faults["system"]
