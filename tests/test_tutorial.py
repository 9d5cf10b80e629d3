"""The cells of docs/tutorial.ipynb run one after another, with two updates of training."""

import ast
import json
import re

import pytest
from command import ROOT
from PIL import Image

NOTEBOOK = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text())
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def run(cells):
    """Runs cells in this process, and returns their names and the pictures that they end with."""
    names, pictures = {"__name__": "__main__"}, []
    for number, cell in enumerate(cells):
        source = "".join(cell["source"])
        if "parameters" in cell["metadata"].get("tags", ()):
            source = "updates = 2"
        tree = ast.parse(source)
        shown = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"cell {number}", "exec"), names)
        if shown is not None:
            pictures.append(eval(compile(ast.Expression(shown.value), f"cell {number}", "eval"), names))
    return names, [picture for picture in pictures if picture is not None]


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_cells_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names, pictures = run(CODE)
    assert names["trainer"].global_step == 2
    assert names["result"].masks.shape == (4, 3, 35, 35)
    assert len(names["result"].steps) == 9
    assert len(pictures) == 5
    assert all(isinstance(picture, Image.Image) for picture in pictures)
    trained, shipped = map(float, re.findall(r": (0\.\d+)", capsys.readouterr().out.splitlines()[-1]))
    assert shipped > 0.9 > trained


def test_outputs_are_in_the_file():
    """GitHub and the documentation show the stored outputs."""
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    kinds = [output["output_type"] for cell in CODE for output in cell["outputs"]]
    assert kinds.count("execute_result") == 5  # the pictures
    assert "error" not in kinds
