"""The benchmark of several processes counts the bytes that they sum, and its model computes the stated formula."""

import json
import sys
from pathlib import Path

import pytest
from command import run

from iodine_pl import IODINE

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "scaling.py"
SMALL = ("--rounds", "1", "--batch", "4", "--size", "9")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks processes")


def test_bytes_are_those_of_the_gradients_and_of_matrices(tmp_path):
    said = run(*SMALL, "--json", "found.json", folder=tmp_path, script=SCRIPT)
    found = json.loads((tmp_path / "found.json").read_text())
    for network, row in found["networks"].items():
        parameters = list(getattr(IODINE, network)(pooling="cosine").parameters())
        assert row["gradients"] == 4 * sum(p.numel() for p in parameters)
        assert row["muon"] == 4 * sum(p.numel() for p in parameters if p.ndim >= 2)
    assert [row["processes"] for row in found["updates"]] == [1, 2, 4]
    for row in found["updates"]:
        assert f"| {row['seconds']:.3f} | {row['predicted']:.3f} |" in said
        assert 0 < row["worked"] < 2 * row["seconds"]


def test_the_model(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    from scaling import line, predicted

    assert line([(1, 3.0), (2, 5.0), (4, 9.0)]) == pytest.approx((1.0, 2.0))
    constants = {"c0": 1.0, "c1": 2.0, "a": 0.1, "w": 10.0, "bytes": 5}
    assert predicted(1, 8, constants, cores=2) == pytest.approx(17.0)
    assert predicted(2, 8, constants, cores=2) == pytest.approx(9.0 + 0.1 + 0.5)
    assert predicted(4, 8, constants, cores=2) == pytest.approx(2 * 5.0 + 1.5 * (0.2 + 0.5))
