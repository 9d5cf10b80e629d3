"""Two processes compute what one computes on the joined batch, and share the images without loss or repetition."""

import json
from pathlib import Path

import pytest
import torch
from command import run
from train_in_double import MODES, SIZES, make_model

from iodine_pl.datamodules import TetrominoesDataModule


@pytest.mark.parametrize("mode", MODES)
def test_two_processes(tmp_path, mode):
    run(str(tmp_path), 2, mode, folder=tmp_path, script=Path(__file__).parent / "train_in_double.py")
    seen = [json.loads((tmp_path / f"seen_{rank}.json").read_text()) for rank in range(2)]
    for epoch in range(2):
        images = [i for part in seen for e, batch in part if e == epoch for i in batch]
        assert len(images) == len(set(images)) == 24  # 26 make 3 batches of 4 on 2 processes
        assert set(images) <= set(range(26))
    assert seen[0][0] != seen[0][3]  # another order in the second epoch

    data = TetrominoesDataModule(data_dir=tmp_path, **SIZES)
    data.setup("fit")
    batch = data.dataset[seen[0][0][1] + seen[1][0][1]]
    model = make_model(mode)
    loss, _ = model.loss(batch["image"].float() / 255, noise=model.evaluation_noise(batch, 0))
    loss.backward()
    for rank in range(2):
        gradients = torch.load(tmp_path / f"gradients_{rank}.pt")
        for name, parameter in model.named_parameters():
            error = (gradients[name] - parameter.grad).norm() / parameter.grad.norm()
            assert error < 1e-12, (name, float(error))
