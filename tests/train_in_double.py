"""Trains an IODINE in float64 on several processes, by one of three loops; notes images and gradients."""

import json
import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from lightning_fabric import Fabric
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from iodine_pl import IODINE
from iodine_pl.datamodules import TetrominoesDataModule

IN_ALL = 8  # images in the batches of all processes together


class Double(IODINE):
    """Draws the noise of an image by its index, so that the process does not matter."""

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


def data_of(folder, processes):
    return TetrominoesDataModule(data_dir=folder, num_train=26, num_val=1, num_test=1, batch_size=IN_ALL // processes)


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


def by_trainer(folder, mode, processes):
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp",  # without find_unused_parameters
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        limit_val_batches=0,
        default_root_dir=folder,
        callbacks=[Note(folder)],
    )
    trainer.fit(make_model(mode), data_of(folder, processes))


def by_fabric(folder, mode, processes):
    fabric = Fabric(accelerator="cpu", devices=processes, strategy="ddp")
    fabric.launch()
    data = data_of(folder, processes)
    if fabric.local_rank == 0:
        data.prepare_data()
    fabric.barrier()
    data.setup("fit")
    model = make_model(mode)
    shared, optimizer = fabric.setup(model, model.configure_optimizers()["optimizer"])
    shared.mark_forward_method("loss")
    loader = fabric.setup_dataloaders(data.train_dataloader())
    train(folder, fabric.global_rank, data, model, shared.loss, optimizer, loader, fabric.backward)


def by_torch(folder, mode, processes):
    """Trains with DistributedDataParallel alone, as torchrun starts it."""
    distributed.init_process_group("gloo")
    train_wrapped(folder, mode, processes)
    # The wrapper is gone by now. If it outlived the group, it would end the group's thread, which may wait for Python's
    # lock, and would not give the lock away: about one run in fifty waited for ever.
    distributed.destroy_process_group()


def train_wrapped(folder, mode, processes):
    data = data_of(folder, processes)
    if distributed.get_rank() == 0:
        data.prepare_data()
    distributed.barrier()
    data.setup("fit")
    model = make_model(mode)
    optimizer = model.configure_optimizers()["optimizer"]
    shared = DistributedDataParallel(model)

    def loss(batch, noise):
        return model.objective(shared(batch, noise=noise).trace), None

    train(folder, distributed.get_rank(), data, model, loss, optimizer, data.train_dataloader(), torch.Tensor.backward)


def train(folder, rank, data, model, loss_of, optimizer, loader, backward):
    """Trains for two epochs, and notes what :class:`Note` does."""
    folder, seen, step = Path(folder), [], 0
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            seen.append([epoch, batch["index"].tolist()])
            batch = data.on_after_batch_transfer(batch, 0)
            loss, _ = loss_of(batch, noise=model.evaluation_noise(batch, 0))
            optimizer.zero_grad()
            backward(loss)
            gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
            torch.nn.utils.clip_grad_norm_(model.parameters(), model.gradient_clip_norm)
            optimizer.step()
            step += 1
            if step == 1:
                torch.save(gradients, folder / f"gradients_{rank}.pt")
                torch.save(model.state_dict(), folder / f"weights_{rank}.pt")
    (folder / f"seen_{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    {"trainer": by_trainer, "fabric": by_fabric, "torch": by_torch}[sys.argv[2]](
        sys.argv[1], sys.argv[3], int(sys.argv[4])
    )
