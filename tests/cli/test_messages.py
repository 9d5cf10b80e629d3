"""Warnings as a user of the command sees them: one line, without the place in the code."""

import warnings

import numpy as np
import pytest
from command import TINY, run
from PIL import Image

from iodine_pl.cli.messages import show_warnings_in_one_line


def test_images_without_labels_are_said_in_one_line_once(tmp_path):
    (tmp_path / "pictures").mkdir()
    for i in range(4):
        picture = np.random.default_rng(i).integers(256, size=(9, 9, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{i}.png")
    data = ["--data=SceneDataModule", "--data.path=pictures", "--data.num_val=1", "--data.num_test=1"]
    model = [argument for argument in TINY if not argument.startswith("--data")]
    output = run("fit", *data, "--data.batch_size=1", "--trainer.max_steps=2", *model, folder=tmp_path)
    scores = "adjusted Rand index, mIoU, mBO"
    said = f"warning: The images have no labels, so these scores are not logged: {scores}"
    assert output.splitlines().count(said) == 1
    assert output.count("label") == 1
    assert "Warning" not in output
    assert ".py" not in output


@pytest.fixture
def in_one_line(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # set back at the end
    show_warnings_in_one_line()


def test_a_warning_of_many_lines_is_shown_in_one(in_one_line):
    assert warnings.formatwarning(UserWarning("first\n  second"), UserWarning, "a.py", 3) == "warning: first second\n"


def test_a_warning_about_code_keeps_its_place(in_one_line):
    shown = warnings.formatwarning(FutureWarning("old name"), FutureWarning, "a.py", 3, "name()")
    assert shown == "warning: old name (a.py:3)\n"
