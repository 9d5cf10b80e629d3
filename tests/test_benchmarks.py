"""The benchmarks run, and say what they measured in the form that they promise."""

import csv
import json
import sys
from pathlib import Path

import pytest
from command import run

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPT = BENCHMARKS / "engine.py"
LEARNING = BENCHMARKS / "learning.py"


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


def test_learning_compares_variants_and_goes_on_where_it_was(tmp_path):
    plan = tmp_path / "plan.yaml"
    flags = "data.num_train: 64, data.num_val: 4, data.num_test: 1, trainer.val_check_interval: 1"
    plan.write_text(
        f"base: configs/quickstart.yaml\nimages: 48\nseeds: [3]\nruns:\n"
        f"  full: {{{flags}}}\n  stopped: {{{flags}, model.input_gradients: stopped}}\n"
    )
    table, plot = tmp_path / "a.csv", tmp_path / "a.png"
    arguments = [plan, "--csv", table, "--plot", plot]
    said = run(*arguments, folder=tmp_path, script=LEARNING)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == 2 * 3
    assert [row["images"] for row in rows if (row["run"], row["seed"]) == ("stopped", "3")] == ["16", "32", "48"]
    assert f"{'stopped':32s}     1 " in said
    assert plot.stat().st_size > 10_000
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:-3]))  # the last run is lost
    run(*arguments, folder=tmp_path, script=LEARNING)
    assert len(table.read_text().splitlines()) == len(lines)
    assert table.read_text().startswith("".join(lines[:-3]))
