"""What the README shows runs, and the files it names are there."""

import re

from command import ROOT

README = (ROOT / "README.md").read_text()


def test_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 3
    names = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["result"].masks.shape == (2, 4, 35, 35)


def test_data_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), flags=re.DOTALL)
    names = {}
    exec(compile(block, "docs/data.md", "exec"), names)
    assert names["batch"]["image"].shape == (8, 3, 32, 32)
    assert names["batch"]["num_objects"].tolist() == [1] * 8


def test_files_exist():
    named = re.findall(r"\]\(((?!http)[^)#]+)\)", README)
    experiments = (ROOT / "docs" / "experiments.md").read_text()
    named += re.findall(r"(?:configs|benchmarks)/[\w/]+\.(?:yaml|py)", README + experiments)
    named += [f"configs/experiments/{name}" for name in re.findall(r"`(\w+\.yaml)`", experiments)]
    assert len(named) >= 20
    for name in named:
        assert (ROOT / name).exists(), name
    assert {f"configs/experiments/{file.name}" for file in (ROOT / "configs" / "experiments").iterdir()} <= set(named)
