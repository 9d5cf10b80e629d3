"""The code in the README and the pages runs, the files that they name exist, and the repository has one address."""

import re
import runpy
import subprocess
import sys

import pytest
from command import ROOT
from PIL import Image

OF_THE_SITE = sorted(ROOT.glob("docs/**/*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *OF_THE_SITE]
README = (ROOT / "README.md").read_text()
EXPERIMENTS = (ROOT / "docs" / "experiments.md").read_text()


def run_python(page):
    """Runs the blocks of Python of a page one after another, and returns their names."""
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        exec(compile(block, page.name, "exec"), names)
    return names


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((90, 60), 80).convert("RGB").save("photo.png")


def test_python_of_the_readme_runs(tmp_path):
    names = run_python(ROOT / "README.md")
    assert names["masks"].shape == (1, 6, 32, 32)
    assert names["result"].masks.shape == (2, 4, 35, 35)
    assert (tmp_path / "slots.png").exists()


def test_python_of_the_start_page_runs(tmp_path):
    run_python(ROOT / "docs" / "start.md")
    assert (tmp_path / "slots.png").exists()


def test_python_of_the_data_page_runs():
    names = run_python(ROOT / "docs" / "data.md")
    assert names["batch"]["image"].shape == (8, 3, 32, 32)
    assert names["batch"]["num_objects"].tolist() == [1] * 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target, heading in re.findall(r"\]\((?![a-z]+:)([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text()):
        if target.startswith("../../"):
            continue  # a page of the repository at GitHub
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", file.read_text(), flags=re.MULTILINE)
            assert heading in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles], heading


@pytest.fixture(scope="module")
def on_site():
    """Returns the function that turns the text of a page into that of the site."""
    return runpy.run_path(str(ROOT / "docs" / "conf.py"))["_on_site"]


@pytest.mark.parametrize("page", OF_THE_SITE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pictures_are_part_of_the_site(page, on_site):
    source = [page.read_text()]
    on_site(page.relative_to(ROOT / "docs").with_suffix("").as_posix(), source)
    for target in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", source[0]):
        assert (ROOT / "docs" / target.lstrip("/")).is_file(), target


def test_files_exist():
    named = re.findall(r"(?:configs|benchmarks)/[\w/]+\.(?:yaml|py)", "".join(page.read_text() for page in PAGES))
    named += [f"configs/experiments/{name}" for name in re.findall(r"`(\w+\.yaml)`", EXPERIMENTS)]
    assert len(named) >= 20
    for name in named:
        assert (ROOT / name).exists(), name
    assert {f"configs/experiments/{file.name}" for file in (ROOT / "configs" / "experiments").iterdir()} <= set(named)


def test_files_of_the_architecture_exist():
    text = "".join((ROOT / "docs" / f"architecture.{kind}").read_text() for kind in ("md", "svg"))
    named = set(re.findall(r"[\w/]+\.py", text))
    assert len(named) >= 40
    folders = ("", "datamodules", "callbacks", "src/iodine_pl", "src/iodine_pl/checkpoints")
    for name in named:
        assert any((ROOT / folder / name).exists() for folder in folders), name


def test_every_file_of_the_method_is_in_the_architecture():
    table = (ROOT / "docs" / "architecture.md").read_text()
    files = {file.name for file in (ROOT / "src" / "iodine_pl").glob("*.py")} - {"__init__.py", "__main__.py"}
    assert not [name for name in files if f"`{name}`" not in table]


def test_named_configurations_exist():
    commands = re.findall(r"--config ([\w/]+)(?=[\s`])", "".join(page.read_text() for page in PAGES))
    assert len(commands) >= 20
    for name in commands:
        assert (ROOT / "configs" / f"{name}.yaml").exists(), name


def test_one_address():
    """The project's own address is in many files, and is replaced in all of them at once."""
    (address,) = re.findall(r'^Repository = "(.*)"', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    texts = [page.read_text() for page in PAGES]
    texts += [
        (ROOT / name).read_text()
        for name in ("pyproject.toml", "docs/tutorial.ipynb", ".github/ISSUE_TEMPLATE/config.yml")
    ]
    found = {owner for text in texts for owner in re.findall(r"github(?:\.com)?/([\w-]+)/iodine-pl", text)}
    assert found == {address.split("/")[-2]}


def test_links_of_a_release_are_absolute(tmp_path):
    (tmp_path / "README.md").write_text(README)
    command = [sys.executable, ROOT / ".github" / "absolute_links.py", "README.md", "them/iodine-pl", "v9"]
    subprocess.run(command, check=True)
    links = re.findall(r"\]\(([^)]*)\)", (tmp_path / "README.md").read_text())
    assert all(link.startswith(("https://", "#")) for link in links)
    assert "https://raw.githubusercontent.com/them/iodine-pl/v9/docs/results/tetrominoes_full_size_slots.png" in links
    assert "https://github.com/them/iodine-pl/blob/v9/docs/data.md#your-own-data" in links
    assert "https://github.com/them/iodine-pl/actions/workflows/ci.yml/badge.svg" in links
