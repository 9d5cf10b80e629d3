"""The report, read by a browser."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from command import BAR, ROOT, TINY
from helpers import counted_masks

from iodine_pl.cli import run_command
from iodine_pl.cli import run_command as train
from iodine_pl.evaluation.panels import slot_panel
from iodine_pl.report.page import write_report


def main(arguments):
    run_command(["report", *map(str, arguments)])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """Trains for six updates and makes two experiments, one of them with a name that begins like the other's."""
    folder = tmp_path_factory.mktemp("report")
    before = Path.cwd()
    os.chdir(folder)
    try:
        train([*TINY, BAR, "--trainer.max_steps=6", "--trainer.val_check_interval=3", "--model.num_iterations=2"])
        train(["test", "--ckpt_path=best", f"--config={ROOT}/configs/experiments/segmentation.yaml", BAR])
        experiments = folder / "runs/tetrominoes/version_0/experiments"
        other = json.loads((experiments / "segmentation.json").read_text())
        other["table"] = [{"what": "<b>bold</b>", "number": 0.123456}]
        other["pictures"] = [{"name": "again", "file": "segmentation_again.png", "caption": "One <i>more</i>."}]
        (experiments / "segmentation_again.json").write_text(json.dumps(other))
        shutil.copy(experiments / "segmentation.png", experiments / "segmentation_again.png")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def page(run_folder, monkeypatch, capsys):
    monkeypatch.chdir(run_folder)
    main(["runs/tetrominoes/version_0", "--images", "2"])
    target = Path("runs/tetrominoes/version_0/report.html")
    assert capsys.readouterr().out.splitlines()[-1] == f"Wrote {target}"
    return target


@pytest.fixture
def browser():
    driver = shutil.which("chromedriver")
    if driver is None or shutil.which("chromium") is None:
        pytest.skip("no Chromium with ChromeDriver on this machine: install the packages chromium and chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def test_the_slider_changes_the_picture(page, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.get(page.resolve().as_uri())
    box = browser.find_element(By.CSS_SELECTOR, "[data-steps]")
    slider, picture = box.find_element(By.TAG_NAME, "input"), box.find_element(By.TAG_NAME, "img")
    number = box.find_element(By.TAG_NAME, "output")
    seen = {}
    for step in ("2", "1", "0"):
        assert number.text == slider.get_attribute("value") == step
        browser.execute_async_script("arguments[0].decode().then(arguments[1])", picture)
        assert picture.get_property("naturalWidth") == (3 + 4) * (35 * 3 + 2) + 2
        seen[step] = picture.screenshot_as_base64
        slider.send_keys(Keys.LEFT)
    assert len(set(seen.values())) == 3
    others = browser.find_elements(By.CSS_SELECTOR, "section img")
    assert len(others) == 1 + 3 + 1
    assert all(image.get_property("naturalWidth") > 0 for image in others)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_has_all_there_is(page):
    text = page.read_text()
    assert re.findall(r"<h2>(.*?)</h2>", text) == [
        "Slots",
        "Curves",
        "Segmentation",
        "Segmentation again",
        "Configuration",
    ]
    assert "after 3 updates" in text or "after 6 updates" in text
    assert "val/elbo" in text
    assert "<svg" in text
    assert "<td>&lt;b&gt;bold&lt;/b&gt;<td>0.1235" in text
    assert "class_path: iodine_pl.IODINE" in text
    captions = re.findall(r"<figcaption[^>]*>(.*?)</figcaption>", text)
    assert len(captions) == 3 + 1
    assert captions[0].startswith("Test images: input, reconstruction, ")
    assert captions[-1] == "One &lt;i&gt;more&lt;/i&gt;."
    assert not re.search(r'(src|href)="(?!data:|#)', text)  # nothing from elsewhere
    assert not list(page.parent.glob(".*"))


def test_shows_what_the_test_counted(run_folder, monkeypatch):
    """The report decomposes fewer images at once, so the last digits may differ."""
    scored, drawn = counted_masks(monkeypatch), []

    def panel(images, result):
        drawn.append(result.masks)
        return slot_panel(images, result)

    monkeypatch.setattr("iodine_pl.report.page.slot_panel", panel)
    monkeypatch.chdir(run_folder)
    train(["test", "--ckpt_path=best", "--name=tetrominoes", BAR])
    page = write_report("runs/tetrominoes/version_0", out=run_folder / "counted.html", num_images=3)
    assert page.is_file()
    assert len(drawn) == 3  # T = 2
    torch.testing.assert_close(drawn[-1], scored[0][:3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({"experiment": "old"}, r"old\.json has no list of its pictures: run the experiment again"),
        (
            {"images": 1, "data": "", "model": "", "checkpoint": "", "table": []}
            | {"pictures": [{"name": "old", "file": "old.png", "caption": ""}]},
            r"No such file.*old\.png",
        ),
    ],
)
def test_says_what_is_no_experiment(run_folder, monkeypatch, content, error):
    monkeypatch.chdir(run_folder)
    file = Path("runs/tetrominoes/version_0/experiments/old.json")
    file.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=error) as ended:
        main(["runs/tetrominoes/version_0", "--images", "1", "--out", "none.html"])
    file.unlink()
    assert "\n" not in str(ended.value)
    assert not Path("none.html").exists()


def test_of_a_checkpoint_elsewhere(run_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(run_folder)
    run = Path("runs/tetrominoes/version_0")
    alone = shutil.copy(run / "checkpoints" / "last.ckpt", tmp_path / "mine.ckpt")
    assert "Slots" in write_report(alone, num_images=1).read_text()  # it knows its data
    content = torch.load(alone, weights_only=True)
    del content["data"]
    torch.save(content, alone)
    with pytest.raises(FileNotFoundError, match="give --config FILE"):
        write_report(alone)
    page = write_report(alone, config=run / "config.yaml", num_images=1)
    assert page == tmp_path / "mine.html"
    assert "data-steps" in page.read_text()
    assert "<h2>Curves" not in page.read_text()
    monkeypatch.chdir(tmp_path)  # a name says no folder: the page is written here, not into the package
    named = write_report("tetrominoes", config=run_folder / run / "config.yaml", num_images=1)
    assert named.resolve() == tmp_path / "tetrominoes.html"


def test_says_what_is_no_run(tmp_path):
    with pytest.raises(SystemExit, match="is no folder of a run"):
        main([str(tmp_path)])
    with pytest.raises(SystemExit, match="there is no checkpoint"):
        main([str(tmp_path / "none.ckpt")])
