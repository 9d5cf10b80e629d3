"""Freed memory stays with the process after ``keep_freed_memory``."""

import sys

import pytest
from command import run

PROGRAM = """
import resource, sys
import torch
from iodine_pl.cli.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults = []
for _ in range(24):  # the first ones find other places in the heap
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 * 2**20)  # 64 MiB: 16,384 pages, or 32 huge ones where the system has them
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults[1:]))  # the system may add some of its own
"""


@pytest.mark.skipif(sys.platform != "linux", reason="concerns glibc")
def test_large_arrays_are_not_mapped_anew(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    faults = {how: int(run(how, folder=tmp_path, script=tmp_path / "program.py")) for how in ("keep", "system")}
    assert faults["keep"] < 16 < faults["system"]
