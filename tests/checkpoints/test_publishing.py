"""A folder that can be uploaded: weights, card, page."""

import hashlib
import re

import pytest
import torch
import yaml
from helpers import small

from iodine_pl.checkpoints.publishing import publish
from iodine_pl.checkpoints.writing import write_checkpoint
from iodine_pl.cli import CommandError, run_command
from iodine_pl.pretrained import FOLDER, read_card


def of_run(folder, **more):
    """Writes the checkpoint of a run, with what the command adds to it."""
    path = folder / "best.ckpt"
    write_checkpoint(small(seed=3), path, step=12)
    content = torch.load(path, weights_only=True)
    data = {"class_path": "iodine_pl.datamodules.TetrominoesDataModule", "init_args": {"objects": 2, "path": None}}
    state = {"best_model_score": torch.tensor(0.87654), "best_model_path": "/run/best.ckpt", "monitor": "val/ari_fg"}
    torch.save(content | {"data": data, "callbacks": {"BestCheckpoint": state}} | more, path)
    return path


def test_shipped_weights_are_published_with_their_card(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_command(["export", "tetrominoes", "--to", "pieces"])
    folder = tmp_path / "pieces"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["README.md", "pieces", "pieces.ckpt", "pieces.yaml"]
    assert (folder / "pieces.yaml").read_text() == (FOLDER / "tetrominoes.yaml").read_text()
    digest = hashlib.sha256((folder / "pieces.ckpt").read_bytes()).hexdigest()
    printed = capsys.readouterr().out
    assert "Wrote pieces/pieces.ckpt: " in printed
    assert printed.endswith(f" MB, after 30,000 updates\nsha256 {digest}\n")
    page, card = (folder / "README.md").read_text(), read_card("tetrominoes")
    assert yaml.safe_load(page.split("---")[1])["library_name"] == "iodine-pl"
    for words in (digest, card["data"], card["weak"], "| test: ari_fg | 0.983 |", "| images seen | 240,000 |"):
        assert words in page
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len([line for line in block.splitlines() if line]) == 5
    monkeypatch.chdir(folder)
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["masks"].shape == (1, 3, 64, 64)


def test_a_run_without_a_card_gets_one(tmp_path):
    made = publish(of_run(tmp_path), tmp_path / "mine")
    assert yaml.safe_load(made.card.read_text()) == {
        "data": "TetrominoesDataModule(objects=2)",
        "updates": 12,
        "seed": 3,
        "validation": {"ari_fg": 0.8765},
    }
    assert "| trained on | TetrominoesDataModule(objects=2) |" in made.page.read_text()
    assert "| validation: ari_fg | 0.8765 |" in made.page.read_text()


def test_the_score_of_another_checkpoint_is_not_published(tmp_path):
    path = of_run(tmp_path).rename(tmp_path / "last.ckpt")
    assert "validation" not in yaml.safe_load(publish(path, tmp_path / "mine").card.read_text())


def test_a_model_of_another_class_is_published_with_its_class(tmp_path):
    page = publish(of_run(tmp_path, class_path="iodine_pl.baselines.VAE"), tmp_path / "mine").page.read_text()
    assert "from iodine_pl.checkpoints.loading import load_model" in page
    assert "`iodine_pl.baselines.VAE`" in page


@pytest.mark.parametrize("text", ["data: {class_path: iodine_pl.datamodules.ClevrDataModule}", "- 1", ""])
def test_an_unrelated_file_beside_the_weights_is_not_taken_as_a_card(tmp_path, text):
    path = of_run(tmp_path)
    path.with_suffix(".yaml").write_text(text)
    with pytest.raises(ValueError, match=r"best.yaml is not a card of weights: move it away, or write one like"):
        publish(path, tmp_path / "mine")


def test_an_error_leaves_nothing(tmp_path, monkeypatch):
    path = of_run(tmp_path)
    monkeypatch.setattr("iodine_pl.checkpoints.publishing.sha256_of", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        publish(path, tmp_path / "mine")
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileExistsError, match="is there already"):
        publish(path, tmp_path)


@pytest.mark.parametrize("options", [[], ["--out", "a.ckpt", "--to", "a"]])
def test_export_takes_either_out_or_to(options):
    with pytest.raises(CommandError, match="export needs either --out FILE or --to FOLDER"):
        run_command(["export", "tetrominoes", *options])
