"""Trains an IODINE in float64 on some processes and notes images and gradients, for test_distributed."""

import json
import sys
from pathlib import Path

import pytorch_lightning as pl
import torch

from iodine_pl import IODINE
from iodine_pl.datamodules import TetrominoesDataModule

SIZES = {"num_train": 26, "num_val": 1, "num_test": 1, "batch_size": 4}


class Double(IODINE):
    """Draws the noise of an image by its index, so that it does not matter which process has it."""

    def training_step(self, batch, batch_idx):
        loss, _ = self.loss(batch, noise=self.evaluation_noise(batch, batch_idx))
        return loss


MODES = {
    "full": {},
    "recompute": {"recompute": True},
    "stopped": {"input_gradients": "stopped"},
    "stopped, recompute": {"input_gradients": "stopped", "recompute": True},
}
IN_PROCESSES = MODES | {
    "mean, Muon": {"pixel_likelihood": "mean", "bounded_means": True, "optimizer": "muon", "learning_rate": 0.01}
}


def make_model(mode):
    torch.manual_seed(0)
    small = {"num_slots": 3, "num_iterations": 2, "latent_size": 4, "mlp_sizes": (8,), "lstm_size": 5}
    return Double(decoder_channels=(6,), encoder_channels=(6,), batch_size=4, **small, **IN_PROCESSES[mode]).double()


class Note(pl.Callback):
    def __init__(self, folder):
        self.folder, self.seen = Path(folder), []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.seen.append([trainer.current_epoch, batch["index"].tolist()])
        if trainer.global_step == 1:
            torch.save(module.state_dict(), self.folder / f"weights_{trainer.global_rank}.pt")

    def on_after_backward(self, trainer, module):
        if trainer.global_step == 0:
            gradients = {name: p.grad.clone() for name, p in module.named_parameters()}
            torch.save(gradients, self.folder / f"gradients_{trainer.global_rank}.pt")

    def on_train_end(self, trainer, module):
        (self.folder / f"seen_{trainer.global_rank}.json").write_text(json.dumps(self.seen))


if __name__ == "__main__":
    folder, devices, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp",  # without find_unused_parameters
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        limit_val_batches=0,
        default_root_dir=folder,
        callbacks=[Note(folder)],
    )
    trainer.fit(make_model(mode), TetrominoesDataModule(data_dir=folder, **SIZES))
