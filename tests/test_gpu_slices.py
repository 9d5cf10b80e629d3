"""The benchmark of a GPU runs from the start to its report, also if it is interrupted and continues elsewhere."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from command import run

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.py"
TINY = ("--device", "cpu", "--tiny", "--out", "out", "--work", "work")
KILLED = json.dumps({"class_path": "kill_at.KillAt", "init_args": {"step": 5, "rank": 0}})

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="tells processes as Linux does that nobody waits")


def slice_of(folder, *arguments):
    folder.mkdir(exist_ok=True)
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    return run(*arguments[:cut], *TINY, *arguments[cut:], folder=folder, script=SCRIPT, PYTHONPATH=str(ROOT / "tests"))


def found_in(folder):
    return json.loads((folder / "out" / "gpu.json").read_text())


def test_the_benchmark_reaches_its_report_after_a_kill(tmp_path):
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    slice_of(cut, "tests", "engine/tetrominoes", "data/tetrominoes")
    before = found_in(cut)
    said = slice_of(cut, "training/tetrominoes", "--", f"--trainer.callbacks+={KILLED}")
    assert "training/tetrominoes: to be continued" in said
    assert found_in(cut)["trainings"]["tetrominoes"]["updates"] == 4
    shutil.rmtree(cut / "work")  # the next machine has only the files in --out
    slice_of(cut, "training/tetrominoes")
    (whole / "out").mkdir(parents=True)
    (whole / "out" / "gpu.json").write_text(json.dumps(before))
    slice_of(whole, "training/tetrominoes")

    found, expected = found_in(cut), found_in(whole)
    assert found["results"] | before["results"] == found["results"]  # nothing is done twice
    assert found["results"]["tests"] == {"passed": 1, "failed": 0, "skipped": 0, "failures": {}}
    ours, theirs = (each["trainings"]["tetrominoes"] for each in (found, expected))
    assert [row["updates"] for row in ours["rows"]] == [2, 4, 6]
    for mine, other in zip(ours["rows"], theirs["rows"], strict=True):
        assert mine | {"seconds": 0} == other | {"seconds": 0}
    assert ours["test"] == theirs["test"]
    weights, others = (
        torch.load(each / "out" / "tetrominoes.ckpt", weights_only=True)["state_dict"] for each in (cut, whole)
    )
    torch.testing.assert_close(weights, others, rtol=0, atol=0)

    files = list((cut / "out").iterdir())
    assert {file.name for file in files} == {"gpu.json", "report.md", "curves.png", "tetrominoes.ckpt"}
    page = (cut / "out" / "report.md").read_text()
    for part in ("## Tests", "## Engine", "## Data", "## Training", "6 of 6", "tetrominoes, fp32, stopped"):
        assert part in page
    rows = found["results"]["engine/tetrominoes/fp32"]["rows"]
    assert rows["stopped"]["error of the gradient"]["holds"]
    assert rows["stopped"]["operations"] < rows["full"]["operations"] < rows["plain"]["operations"]


@pytest.fixture
def slices(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import gpu_slices

    return gpu_slices


def test_what_is_cut_off_is_given_up_at_the_second_time_and_errors_are_lines(slices, tmp_path, monkeypatch):
    monkeypatch.setattr(slices, "GRACE", 5.0)

    def endless(record):
        while True:
            pass

    def wrong(record):
        raise ValueError("one\ntwo")

    def right(record):
        return {"after": sorted(record.results)}

    jobs = [slices.Job("wrong", wrong), slices.Job("right", right), slices.Job("endless", endless)]
    for _ in range(2):
        record = slices.Record(tmp_path / "gpu.json")
        slices.work_off(jobs, record, 0.5)
    results = slices.Record(tmp_path / "gpu.json").results
    assert results["wrong"] == {"error": "ValueError: one"}
    assert results["right"] == {"after": ["wrong"]}
    assert results["endless"]["error"].startswith("ended twice without a result")
    assert [each["jobs"] for each in record.content["slices"]] == [["wrong", "right", "endless"], ["endless"]]


def test_a_job_that_resumes_is_asked_to_save_before_the_end(slices, tmp_path, monkeypatch):
    monkeypatch.setattr(slices, "GRACE", 20.0)

    def saves(record):
        import signal

        def save(number, frame):
            (tmp_path / "saved").touch()
            raise SystemExit(143)

        signal.signal(signal.SIGTERM, save)
        while True:
            pass

    record = slices.Record(tmp_path / "gpu.json")
    slices.work_off([slices.Job("training", saves, resumes=True)], record, 0.5)
    assert (tmp_path / "saved").exists()
    assert "training" not in record.results
    assert list(record.content["cut"]) == ["training"]


def test_bfloat16_is_chosen_where_its_errors_hold_and_it_is_faster(slices, tmp_path):
    from gpu_data import choices
    from gpu_recipes import Settings

    def row(seconds, holds):
        errors = {f"error of the {name}": {"holds": holds} for name in ("likelihood", "gradient")}
        return {"rows": {"stopped": {"seconds": seconds, **errors}}}

    results = {"data/rendering": {"scenes_per_second": 100.0}, "engine/clevr6/bf16, graphs": {"error": "out of luck"}}
    for network, fast in (("tetrominoes", row(0.5, True)), ("multi_dsprites", row(0.5, False))):
        results |= {f"engine/{network}/TF32, graphs": row(1.0, True), f"engine/{network}/bf16, graphs": fast}
    made = choices(Settings(tmp_path, tmp_path), results)
    assert made == {
        "tetrominoes": "bf16-mixed",
        "multi_dsprites": "32-true",
        "clevr6": "32-true",
        "clevr scenes": (150 * 100 - 2 * 128 * 8) // 256 * 256,
    }
    results["engine/tetrominoes/TF32, graphs"] = row(0.4, True)
    assert choices(Settings(tmp_path, tmp_path), results)["tetrominoes"] == "32-true"
