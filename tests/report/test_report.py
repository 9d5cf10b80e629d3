"""The report, read by a browser."""

import base64
import io
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command import BAR, ROOT, TINY
from helpers import counted_masks, working_in
from PIL import Image

from iodine_pl.checkpoints.loading import load_model
from iodine_pl.cli import run_command
from iodine_pl.cli import run_command as train
from iodine_pl.datamodules.synthetic.tetrominoes import TetrominoesGenerator
from iodine_pl.evaluation.traversal import traverse
from iodine_pl.report.page import write_report
from iodine_pl.report.pictures import packed
from iodine_pl.report.scores import with_interval
from iodine_pl.report.slots import steps_of
from iodine_pl.report.traversals import Scene, traversals_of


def main(arguments):
    run_command(["report", *map(str, arguments)])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """Trains for six updates and makes two experiments; the name of one begins with that of the other."""
    folder = tmp_path_factory.mktemp("report")
    with working_in(folder):
        often = ["--trainer.val_check_interval=3", "--trainer.log_every_n_steps=2"]
        train([*TINY, BAR, "--trainer.max_steps=6", *often, "--model.num_iterations=2"])
        train(["test", "--ckpt_path=best", f"--config={ROOT}/configs/experiments/segmentation.yaml", BAR])
        experiments = folder / "runs/tetrominoes/version_0/experiments"
        other = json.loads((experiments / "segmentation.json").read_text())
        other["table"] = [{"what": "<b>bold</b>", "number": 0.123456}]
        other["pictures"] = [{"name": "again", "file": "segmentation_again.png", "caption": "One <i>more</i>."}]
        (experiments / "segmentation_again.json").write_text(json.dumps(other))
        shutil.copy(experiments / "segmentation.png", experiments / "segmentation_again.png")
    return folder


@pytest.fixture(scope="module")
def page(run_folder):
    target = run_folder / "runs/tetrominoes/version_0/report.html"
    with working_in(run_folder):
        main(["runs/tetrominoes/version_0", "--images", "2"])
    return target


@pytest.fixture(scope="module")
def chromium():
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


@pytest.fixture(scope="module", params=[(1280, 900), (390, 844)], ids=["wide", "phone"])
def browser(request, chromium):
    width, height = request.param
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    return chromium


def opened(browser, page):
    """Opens a page and waits until its scripts have drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(page.resolve().as_uri())
    WebDriverWait(browser, 20).until(lambda _: browser.find_elements("css selector", ".choices.latents label"))


def drawn(browser, canvas):
    return browser.execute_script("return arguments[0].toDataURL()", canvas)


def dragged(browser, slider, offset):
    """Drags the handle of a slider from its middle value by a part of its width."""
    from selenium.webdriver import ActionChains

    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", slider)
    pixels = round(slider.size["width"] * offset)
    ActionChains(browser).move_to_element(slider).click_and_hold().move_by_offset(pixels, 0).release().perform()


def test_the_page_works_in_a_browser(page, browser):
    """The slider over the steps and the explorer are dragged; nothing is wider than the window."""
    opened(browser, page)
    steps = browser.find_element("css selector", "[data-steps]")
    slider, number = steps.find_element("css selector", "input"), steps.find_element("css selector", "output")
    canvases, ari = steps.find_elements("css selector", "canvas"), steps.find_element("css selector", "td.ari")
    assert len(canvases) == 2 * (4 + 4)  # two images; input, reconstruction, truth, masks and four slots
    seen = {}
    for offset, step in ((0.5, "2"), (0.0, "1"), (-0.5, "0")):
        dragged(browser, slider, offset)
        assert number.text == slider.get_attribute("value") == step
        seen[step] = (drawn(browser, canvases[0]), drawn(browser, canvases[1]), ari.text)
    assert len({image for image, _, _ in seen.values()}) == 1
    assert len({reconstruction for _, reconstruction, _ in seen.values()}) == 3
    assert all(re.fullmatch(r"-?\d\.\d\d", text) for _, _, text in seen.values())

    box = browser.find_element("css selector", "[data-traversals]")
    slider, said = box.find_element("css selector", "input[type=range]"), box.find_element("css selector", ".value")
    image, mean, changed = box.find_elements("css selector", ".scenes canvas")
    assert drawn(browser, image) == seen["2"][0]
    for offset, value in ((-0.5, "\u22123"), (0.5, "+3")):
        dragged(browser, slider, offset)
        assert f" = {value} standard deviations" in said.text
        seen[value] = drawn(browser, changed)
    assert seen["\u22123"] != seen["+3"]
    number = said.text.split()[0]
    for kind in ("latents", "slots", "images"):  # each menu resets those that depend on it
        second = box.find_elements("css selector", f".{kind} input")[1]
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", second)
        second.click()
        assert second.is_selected()
        if kind == "latents":
            assert said.text.split()[0] != number
    assert drawn(browser, image) == drawn(browser, canvases[8])  # the second image
    assert drawn(browser, mean) != drawn(browser, image)

    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    pictures = browser.find_elements("css selector", "section img")
    assert len(pictures) == 3 + 1
    assert all(picture.get_property("naturalWidth") > 0 for picture in pictures)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_two_runs_stand_side_by_side(run_folder, browser, monkeypatch, capsys):
    monkeypatch.chdir(run_folder)
    main(["runs/tetrominoes/version_0", "runs/tetrominoes/version_0/checkpoints/last.ckpt", "--images", "1"])
    page = Path("runs/tetrominoes/version_0/comparison.html")
    assert capsys.readouterr().out.splitlines()[-1] == f"Wrote {page}"
    opened(browser, page)
    title = browser.find_element("css selector", "h1").text.split("\n")
    assert title == ["runs/tetrominoes/version_0", "runs/tetrominoes/version_0"]
    assert all(len(browser.find_elements("css selector", f"[data-{part}]")) == 2 for part in ("steps", "traversals"))
    assert len(browser.find_elements("css selector", "#curves figure:first-child polyline")) == 2
    boxes = [box.rect for box in browser.find_elements("css selector", "[data-steps]")]
    wide = browser.execute_script("return innerWidth") > 1000
    assert (boxes[1]["x"] > boxes[0]["x"]) is wide
    assert (boxes[1]["y"] == boxes[0]["y"]) is wide
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_more_than_two_runs_are_refused(run_folder, monkeypatch):
    monkeypatch.chdir(run_folder)
    with pytest.raises(SystemExit, match="a report is of one run or of two, got 3"):
        main(["last", "last", "last"])


def test_a_report_has_every_section(page):
    text = page.read_text()
    assert re.findall(r"<h2>(.*?)</h2>", text) == [
        "Slots",
        "Traversals",
        "Curves",
        "Segmentation",
        "Segmentation again",
        "Configuration",
    ]
    facts = dict(re.findall(r"<dt>(.*?)</dt>\s*<dd[^>]*>(?:<code>)?(.*?)(?:</code>)?</dd>", text))
    assert re.fullmatch(r"best.ckpt, after [36] updates of 4 images per device", facts["training"])
    assert facts["model"].startswith("IODINE, ")
    assert facts["model"].endswith(" parameters, K = 4 slots, T = 2 steps")
    assert facts["data"].startswith("TetrominoesDataModule(size=35, objects=3, ")
    assert facts["seeds"] == "0 of training, 0 of the generated data"
    assert re.fullmatch(r"iodine-pl [\d.]+, torch \S+, lightning [\d.]+, Python [\d.]+", facts["versions"])
    assert facts["written by"].startswith("iodine fit --data.num_train=40 ")
    assert facts["repeated by"] == "iodine fit --config runs/tetrominoes/version_0/config.yaml"
    assert facts["hardware"].startswith("1 x CPU ")
    assert facts["duration"].endswith(" of training and validation")
    assert facts["speed"].endswith(" images per second")
    assert "<svg" in text
    assert "<td>&lt;b&gt;bold&lt;/b&gt;</td><td>0.1235</td>" in text
    assert "class_path: iodine_pl.IODINE" in text
    captions = re.findall(r'<figcaption class="quiet">(.*?)</figcaption>', text)
    assert len(captions) == 3 + 1
    assert captions[0].startswith("Test images: input, reconstruction, ")
    assert captions[-1] == "One &lt;i&gt;more&lt;/i&gt;."
    assert not re.search(r'(src|href)="(?!data:|#)', text)  # nothing is loaded from another file
    assert len(text) < 5_000_000
    assert not list(page.parent.glob(".*"))


def headline(text, score):
    """Returns mean and interval of a score at the top of a page."""
    pattern = rf"<h3>{score}</h3><p[^>]*>\s*(\S+?)<small>&thinsp;±&thinsp;(\S+?)</small>"
    return re.search(pattern, text).groups()


def test_the_scores_are_those_of_the_experiment_or_of_images(run_folder, page, monkeypatch):
    monkeypatch.chdir(run_folder)
    file = page.parent / "experiments/segmentation.json"
    text = page.read_text()
    table = {row["score"]: row for row in json.loads(file.read_text())["table"]}
    row = table["foreground ARI"]
    expected = with_interval(row["mean"], 1.96 * row["standard error"])
    assert (
        re.search(r"<h3>foreground ARI</h3><p[^>]*>\s*(\S+?)<small>&thinsp;±&thinsp;(\S+?)</small>", text).groups()
        == expected
    )
    assert "Mean of 11 test images" in text
    os.utime(file, ns=(0, 0))  # of an earlier checkpoint
    again = write_report(page.parent, out=page.with_name("again.html"), num_images=1, num_scored=11)
    os.utime(file)
    of_images = re.search(
        r"<h3>foreground ARI</h3><p[^>]*>\s*(\S+?)<small>&thinsp;±&thinsp;(\S+?)</small>", again.read_text()
    )
    assert [float(x) for x in of_images.groups()] == pytest.approx([float(x) for x in expected], abs=2e-3)


def test_names_and_settings_are_escaped(run_folder, tmp_path, monkeypatch):
    run = tmp_path / "<img src=x>" / "version_0"
    shutil.copytree(run_folder / "runs/tetrominoes/version_0", run)
    settings = (run / "config.yaml").read_text() + "note: '</script><script>alert(1)</script>'\n"
    (run / "config.yaml").write_text(settings.replace("data_dir: data", f"data_dir: {run_folder / 'data'}"))
    text = write_report(run, num_images=1, num_scored=1).read_text()
    assert "<img src=x>" not in text
    assert "&lt;img src=x&gt;" in text
    assert "<script>alert" not in text
    assert text.count("<script>") == 1


def test_a_report_generates_only_test_images(run_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TetrominoesGenerator, "shard", 64)
    alone = shutil.copy(run_folder / "runs/tetrominoes/version_0/checkpoints/last.ckpt", tmp_path / "mine.ckpt")
    content = torch.load(alone, weights_only=True)
    content["data"]["init_args"]["num_train"] = 150
    torch.save(content, alone)
    write_report(alone, num_images=1, num_scored=1)
    made = sorted(file.name for file in (tmp_path / "data").glob("*/*.h5"))
    assert made == ["0000128-0000165.h5"]


def test_a_decoder_of_joint_slots_has_no_explorer(run_folder):
    class Together(torch.nn.Module):
        """A decoder of slots that may see each other."""

    model = load_model(run_folder / "runs/tetrominoes/version_0/checkpoints/best.ckpt")
    model.decoder = Together()
    assert traversals_of(model, {}, model) is None


def test_traversal_frames_equal_decoding_the_whole_scene(run_folder):
    model = load_model(run_folder / "runs/tetrominoes/version_0/checkpoints/best.ckpt")
    latents, values = torch.randn(4, model.latent_size), torch.tensor([-1.0, 0.5])
    scene = Scene(model, latents, (9, 8))
    with torch.no_grad():
        expected = traverse(model, latents, 2, 1, values, (9, 8))
        masks, means = model.decode(latents[None], 9, 8)
    torch.testing.assert_close(scene.traverse(2, 1, values), expected)
    torch.testing.assert_close(scene.whole()[0], torch.einsum("khw,kchw->chw", masks[0], means[0]))


def test_pictures_are_packed_within_their_budget():
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    exact = packed(noise, 10**6)
    with Image.open(io.BytesIO(base64.b64decode(exact.partition(",")[2]))) as picture:
        assert np.array_equal(np.asarray(picture), noise)
    assert len(packed(noise, 3_000)) < 3_000 * 4 / 3 + 40


def test_a_report_shows_the_masks_that_the_test_scored(run_folder, monkeypatch):
    """The report has smaller batches than the test, so the last digits may differ."""
    scored, drawn = counted_masks(monkeypatch), []

    def rows(batch, result):
        drawn.append(result.steps[-1].masks)
        return steps_of(batch, result)

    monkeypatch.setattr("iodine_pl.report.page.steps_of", rows)
    monkeypatch.chdir(run_folder)
    train(["test", "--ckpt_path=best", "--name=tetrominoes", BAR])
    page = write_report("runs/tetrominoes/version_0", out=run_folder / "counted.html", num_images=3)
    assert page.is_file()
    torch.testing.assert_close(drawn[0], scored[0][:3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({"experiment": "old"}, r"old\.json has no list of its pictures: run the experiment again"),
        (
            {"images": 1, "data": "", "model": "", "checkpoint": "", "table": []}
            | {"pictures": [{"name": "old", "file": "old.png", "caption": ""}]},
            r"there is no file .*old\.png",
        ),
    ],
)
def test_a_file_that_is_not_an_experiment_is_named(run_folder, monkeypatch, content, error):
    monkeypatch.chdir(run_folder)
    file = Path("runs/tetrominoes/version_0/experiments/old.json")
    file.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=error) as ended:
        main(["runs/tetrominoes/version_0", "--images", "1", "--out", "none.html"])
    file.unlink()
    assert "\n" not in str(ended.value)
    assert not Path("none.html").exists()


def test_a_report_of_a_checkpoint_outside_a_run(run_folder, tmp_path, monkeypatch):
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
    monkeypatch.chdir(tmp_path)  # a name has no folder, so the page is written to the current one, not into the package
    named = write_report("tetrominoes", config=run_folder / run / "config.yaml", num_images=1)
    assert named.resolve() == tmp_path / "tetrominoes.html"


def test_a_folder_that_is_not_a_run_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match="is no folder of a run"):
        main([str(tmp_path)])
    with pytest.raises(SystemExit, match="there is no checkpoint"):
        main([str(tmp_path / "none.ckpt")])
