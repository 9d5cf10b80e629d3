"""The benchmark of the engine runs, and says what it measured in the form that it promises."""

import json
import sys
from pathlib import Path

import pytest
from command import run

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "engine.py"


@pytest.mark.skipif(sys.platform != "linux", reason="reads memory where Linux tells it")
def test_engine(tmp_path):
    small = ["--size", "12", "--steps", "1", "--slots", "2", "--rounds", "1"]
    files = ["--json", "rows.json", "--plot", "plot.png"]
    shown = run("--network", "tetrominoes", "--batch", "2", *small, *files, folder=tmp_path, script=SCRIPT)
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    settings = {(5, 4), (1, 4), (5, 2)}
    modes = ("plain", "full", "recompute", "stopped")
    assert {(r["mode"], r["phase"], r["T"], r["K"]) for r in rows} == {
        (mode, phase, *setting) for mode in modes for phase in ("train", "evaluate") for setting in settings
    }
    for row in rows:
        assert (row["network"], row["batch"], row["device"]) == ("tetrominoes", 2, "cpu")
        assert row["images_per_second"] == pytest.approx(2 / row["step_seconds"])
        assert row["peak_bytes"] > 0
        assert f"| {row['phase']} | {row['mode']} | {row['step_seconds']:.3f} |" in shown
    work = {(r["mode"], r["phase"]): r["operations"] for r in rows if (r["T"], r["K"]) == (5, 4)}
    assert work["stopped", "train"] < work["full", "train"] < work["recompute", "train"] < work["plain", "train"]
    assert work["full", "evaluate"] < 0.5 * work["full", "train"]
    assert (tmp_path / "plot.png").stat().st_size > 10_000
