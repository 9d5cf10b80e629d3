"""Several processes compute what one does on the joined batch, and share the images without loss or repetition."""

import json
import socket
from pathlib import Path

import pytest
import torch
from command import run, start
from train_in_double import IN_PROCESSES, data_of, make_model

SCRIPT = Path(__file__).parent / "train_in_double.py"


def run_by_torch(folder, mode, processes):
    """Starts the processes as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    arguments = (folder, "torch", mode, processes)
    ranks = [{"RANK": str(rank)} for rank in range(processes)]
    for process in [start(*arguments, folder=folder, script=SCRIPT, **rank, **world) for rank in ranks]:
        output, _ = process.communicate()
        assert process.returncode == 0, output


@pytest.mark.parametrize(
    ("loop", "mode", "processes"),
    [
        *(("trainer", mode, 2) for mode in IN_PROCESSES),
        ("trainer", "mean, Muon", 4),
        ("fabric", "stopped", 2),
        ("torch", "stopped", 2),
        ("torch", "full", 2),
    ],
)
def test_processes_are_one_batch(tmp_path, loop, mode, processes):
    if loop == "torch":
        run_by_torch(tmp_path, mode, processes)
    else:
        run(tmp_path, loop, mode, processes, folder=tmp_path, script=SCRIPT)
    seen = [json.loads((tmp_path / f"seen_{rank}.json").read_text()) for rank in range(processes)]
    for epoch in range(2):
        images = [i for part in seen for e, batch in part if e == epoch for i in batch]
        assert len(images) == len(set(images)) == 24  # 26 make 3 batches of 8
        assert set(images) <= set(range(26))
    assert seen[0][0] != seen[0][3]  # another order in the second epoch

    data = data_of(tmp_path, processes)
    data.setup("fit")
    batch = data.scenes([i for part in seen for i in part[0][1]])
    model = make_model(mode)
    loss, _ = model.loss(batch["image"], noise=model.evaluation_noise(batch, 0))
    loss.backward()
    optimizer = model.configure_optimizers()["optimizer"]
    for group in optimizer.param_groups:
        group["lr"] *= processes**0.5  # by the square-root rule
    for rank in range(processes):
        gradients = torch.load(tmp_path / f"gradients_{rank}.pt")
        for name, parameter in model.named_parameters():
            error = (gradients[name] - parameter.grad).norm() / parameter.grad.norm()
            assert error < 1e-12, (name, float(error))
    torch.nn.utils.clip_grad_norm_(model.parameters(), model.gradient_clip_norm)
    optimizer.step()
    for rank in range(processes):
        weights = torch.load(tmp_path / f"weights_{rank}.pt")
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(weights[name], parameter.detach(), rtol=0, atol=1e-9)
