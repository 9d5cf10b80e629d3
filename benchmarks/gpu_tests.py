"""Runs the tests that need a GPU, in this process, and counts how they ended."""

import os
from collections import Counter

import pytest
from gpu_recipes import ROOT, Settings

FILE = ROOT / "tests" / "test_on_a_gpu.py"


class Outcomes:
    """Counts what pytest reports, and keeps the last line of each failure."""

    def __init__(self):
        self.counts = Counter()
        self.failures = {}

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1
        if report.failed:
            self.failures[report.nodeid.rsplit("::", 1)[-1]] = str(report.longrepr).strip().splitlines()[-1][:300]


def tests(settings: Settings) -> dict:
    """Returns the numbers of passed, failed and skipped tests, and the messages of the failures."""
    os.environ["TESTED_DEVICE"] = settings.device
    outcomes = Outcomes()
    few = ["-k", "evaluation"] if settings.tiny else []
    # Libraries that are already loaded, or of other versions, may give any warnings.
    quiet = ["-q", "-p", "no:cacheprovider", "-W", "default"]
    pytest.main([str(FILE), "-c", str(ROOT / "pyproject.toml"), *quiet, *few], [outcomes])
    if not outcomes.counts:
        return {"error": f"no test of {FILE} could be run"}
    return {**{name: outcomes.counts[name] for name in ("passed", "failed", "skipped")}, "failures": outcomes.failures}
