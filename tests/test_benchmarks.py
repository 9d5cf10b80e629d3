"""The benchmarks run, and say what they measured in the form that they promise."""

import contextlib
import csv
import json
import os
import random
import runpy
import signal
import sys
import time
from pathlib import Path

import pytest
from command import run, start

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPT = BENCHMARKS / "engine.py"
LEARNING = BENCHMARKS / "learning.py"
FORKING = Path(__file__).with_name("forking.py")
FEW = "data.num_train: 64, data.num_val: 4, data.num_test: 1, model.evaluation_iterations: 1"
FEW += ", trainer.val_check_interval: 1, trainer.num_sanity_val_steps: 0"


@pytest.mark.skipif(sys.platform != "linux", reason="reads memory where Linux tells it")
def test_engine(tmp_path):
    small = ["--size", "12", "--steps", "1", "--slots", "2", "--rounds", "1"]
    files = ["--json", "rows.json", "--plot", "plot.png"]
    shown = run(SCRIPT, "--network", "tetrominoes", "--batch", "2", *small, *files, folder=tmp_path, script=FORKING)
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


def test_a_training_in_parts_is_one_curve(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    chain = runpy.run_path(str(BENCHMARKS / "chain.py"))
    rows = [{"run": run, "images": images} for run, images in (("a", "8"), ("a", "16"), ("x", "5"), ("b", "4"))]
    joined, begins = chain["curve"](rows, chain["Chain"]("", ["a", "b"]))
    assert [row["images"] for row in joined] == [8, 16, 20]
    assert begins == [0, 16]
    with pytest.raises(SystemExit, match="there is no run 'c'"):
        chain["curve"](rows, chain["Chain"]("", ["a", "c"]))
    measured = BENCHMARKS.parent / "docs" / "results" / "learning_gpu.csv"
    of_clevr = ["--title=CLEVR", "--part=CLEVR, mixture, decay 0.2", "--part=CLEVR at 64x64, from the weights of 32x32"]
    run(measured, "--plot=plot.png", *of_clevr, folder=tmp_path, script=BENCHMARKS / "chain.py")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_weights_split_real_scenes(tmp_path):
    files = ["--json=found.json", "--plots=."]
    said = run(*files, folder=tmp_path, script=BENCHMARKS / "real_scenes.py")
    found = json.loads((tmp_path / "found.json").read_text())
    assert [len(found[name]) for name in ("clevr", "tetrominoes")] == [2, 10]
    assert {row["score"]: row["mean"] for row in found["mean of tetrominoes"]}["foreground ARI"] > 0.9
    assert f"tetrominoes, scene 9: foreground ARI {found['tetrominoes'][9]['foreground ARI']:.4f}" in said
    assert all((tmp_path / f"real_{name}.png").stat().st_size > 10_000 for name in ("clevr", "tetrominoes"))


def test_learning_compares_variants_and_goes_on_where_it_was(tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        f"base: configs/quickstart.yaml\nimages: 24\nseeds: [3]\nruns:\n"
        f"  full: {{{FEW}}}\n  stopped: {{{FEW}, model.input_gradients: stopped}}\n"
    )
    table, plot = tmp_path / "a.csv", tmp_path / "a.png"
    arguments = [plan, "--csv", table, "--plot", plot]
    said = run(LEARNING, *arguments, folder=tmp_path, script=FORKING)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == 2 * 3
    assert [row["images"] for row in rows if (row["run"], row["seed"]) == ("stopped", "3")] == ["8", "16", "24"]
    assert f"{'stopped':32s}     1 " in said
    assert plot.stat().st_size > 10_000
    assert {row["end"] for row in rows} == {"", "yes"}
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:-3]))  # the last run is lost
    run(LEARNING, *arguments, folder=tmp_path, script=FORKING)
    assert len(table.read_text().splitlines()) == len(lines)
    assert table.read_text().startswith("".join(lines[:-3]))


def test_learning_goes_on_where_a_run_fails(tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        f"base: configs/quickstart.yaml\nupdates: 2\nseeds: [3]\nruns:\n"
        f"  wrong: {{{FEW}, model.pixel_scale: -1.0}}\n  right: {{{FEW}}}\n"
    )
    said = run(LEARNING, plan, "--csv", tmp_path / "a.csv", folder=tmp_path, script=FORKING)
    assert "wrong, seed 3, failed: " in said
    assert "pixel_scale must be positive" in said
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [(row["run"], row["updates"], row["end"]) for row in rows] == [("right", "1", ""), ("right", "2", "yes")]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes where Linux lists them")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_learning_ends_its_runs_when_it_is_stopped(tmp_path, kind):
    plan, table = tmp_path / "plan.yaml", tmp_path / "a.csv"
    plan.write_text(
        f"base: configs/quickstart.yaml\nseconds: 1000\nseeds: [3]\nruns:\n  long: {{{FEW}, trainer.callbacks+: "
        f"{{class_path: note_start.NoteStart, init_args: {{file: {tmp_path}/started}}}}}}\n"
    )
    tests = str(Path(__file__).parent)
    process = start(LEARNING, plan, "--csv", table, folder=tmp_path, script=FORKING, PYTHONPATH=tests)
    try:
        for _ in range(1200):
            if (tmp_path / "started").exists():
                break
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        child = int((tmp_path / "started").read_text())
        process.send_signal(kind)
        process.wait(60)
        for _ in range(600):
            if not Path(f"/proc/{child}").exists():
                return
            time.sleep(0.1)
        pytest.fail("the run goes on")
    finally:
        with contextlib.suppress(ProcessLookupError):  # all have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


FAULTS = BENCHMARKS / "faults.py"
OF_KILLS = ("kills", "generating")


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux counts it")
def test_faults(tmp_path):
    counts = {"trials": 3, "held": 2, "unnoticed": 0, "failures": [{"seed": "1/2", "what": "lost"}]}
    before = [
        {"part": part, "kind": kind, "seed": 1, **counts} for part, kind in (("pairs", "two trainings"), OF_KILLS)
    ]
    (tmp_path / "rows.json").write_text(json.dumps({"rows": before}))
    asked = ["kills/generating", "mutations/.npz, compressed", "mutations/exported weights"]
    shown = run(*asked, "--trials", "1", "--json", "rows.json", folder=tmp_path, script=FAULTS)
    written = json.loads((tmp_path / "rows.json").read_text())
    rows = written["rows"]
    assert [f"{row['part']}/{row['kind']}" for row in rows] == ["pairs/two trainings", asked[0], *asked]
    (of_kind,) = (each for each in written["sums"] if (each["part"], each["kind"]) == OF_KILLS)
    assert [of_kind[name] for name in ("trials", "held", "unnoticed", "failed")] == [4, 3, 0, 1]
    for row in rows[2:]:
        assert (row["trials"], row["held"], row["unnoticed"], row["failures"]) == (1, 1, 0, [])
        assert f"| {row['part']} | {row['kind']} | 1 | 1 | 0 | 0 |" in shown


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux counts it")
def test_faults_that_are_not_held_are_counted(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import fault_files

    path = tmp_path / "weights.ckpt"
    path.write_bytes(b"whole, and without a checksum")

    def unaware(path):
        content = path.read_bytes()
        return {"x": content} if len(content) > 9 else {}["y"]

    def hungry(path):
        return {"x": b"" if path.read_bytes() == b"whole, and without a checksum" else bytes(2 << 30)}

    wrong = {}
    for read in (unaware, hungry):
        trial = fault_files.damage(path, read, checked=True)
        for seed in range(12):
            (tmp_path / f"{read.__name__}{seed}").mkdir()
            with contextlib.suppress(AssertionError):
                trial(random.Random(seed), tmp_path / f"{read.__name__}{seed}")
                continue
            wrong[read.__name__] = wrong.get(read.__name__, 0) + 1
    assert wrong == {"unaware": 12, "hungry": 12}


def test_optimizers_on_a_cpu(tmp_path):
    rounds = ["--rounds", "2", "--seconds", "0", "--json", "rows.json"]
    shown = run(*rounds, folder=tmp_path, script=BENCHMARKS / "cpu.py")
    found = json.loads((tmp_path / "rows.json").read_text())
    for batch in ("16", "8"):
        rows = found["optimizers"][batch]
        assert all(0 < row["step"] < row["update"] for row in (rows["Adam"], rows["Muon"]))
        assert f"| Muon | {batch} | {rows['Muon']['step']:.1f} | {rows['Muon']['update']:.1f} |" in shown


def test_launches(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["launches.py", "--batch", "1", "--size", "11"])
    runpy.run_path(str(BENCHMARKS / "launches.py"), run_name="__main__")
    shown = capsys.readouterr().out
    rows = dict(line.strip("| ").split(" | ", 1) for line in shown.splitlines() if line.startswith("| `"))
    full, stopped = ([int(cell) for cell in rows[f"`{mode}`"].split(" | ")] for mode in ("full", "stopped"))
    for *parts, in_all, _ in (full, stopped):
        assert sum(parts) == in_all < 1500
        assert all(parts)
    assert stopped[-1] < full[-1]
