"""The LightningDataModule of every dataset: prepare, split, stream."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from torch.utils.data import DataLoader

from iodine_pl.datamodules.convert import convert
from iodine_pl.datamodules.hdf5 import SceneDataset, SceneFileError
from iodine_pl.datamodules.sampler import BatchSampler
from iodine_pl.datamodules.tfrecord import Feature

__all__ = ["ResumableLoader", "SceneDataModule"]


class ResumableLoader(DataLoader[Any]):
    """Tells Lightning that training may resume in the middle of an epoch.

    There is nothing to save: the sampler takes its position from the Trainer's own count of batches.
    """

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class SceneDataModule(pl.LightningDataModule):
    """Streams scenes from an HDF5 file. A batch is a dict: ``image`` (B, C, H, W), uint8 until it is on the device and
    float in [0, 1] there; ``label`` (B, H, W) uint8, 0 for the background; ``num_objects`` (B,); ``index`` (B,), the
    position in the file; ``factors``, a dict of (B, L, ...) with entity 0 for the background.

    The first ``num_train`` images of the file are for training, the next for validation, the next for test.

    Args:
        path: an HDF5 file of this format, or a TFRecord file of the dataset (gzip or not), which is converted once to
            an HDF5 file beside it; the ending .h5 or .hdf5 tells. None: a generated set in ``data_dir``, made at the
            first use.
        data_dir: folder of the generated set.
        batch_size: images per device.
        num_train, num_val, num_test: images of each split.
        num_workers: processes that read ahead; 0 is best on few cores.
        multiprocessing_context: how these start; None is the platform's way.
        seed: of the order in training and of the generated set.

    Raises:
        SceneFileError: if the file is missing, damaged or has fewer images than asked for.
    """

    dataset_name: ClassVar[str]
    features: ClassVar[Mapping[str, Feature]]

    def __init__(
        self,
        path: str | Path | None = None,
        data_dir: str | Path = "data",
        batch_size: int = 128,
        num_train: int = 60_000,
        num_val: int = 320,
        num_test: int = 320,
        num_workers: int = 0,
        multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for key, value in {"batch_size": batch_size, "num_train": num_train}.items():
            if value < 1:
                raise ValueError(f"{key} must be at least 1, got {value}")
        self.path = None if path is None else Path(path)
        self.data_dir = Path(data_dir)
        self.batch_size = batch_size
        self.num_images = {"train": num_train, "val": num_val, "test": num_test}
        self.num_workers = num_workers
        self.multiprocessing_context = multiprocessing_context
        self.seed = seed

    @property
    def total(self) -> int:
        """Images of all splits together."""
        return sum(self.num_images.values())

    @property
    def file(self) -> Path:
        """The HDF5 file that is read; it need not exist before ``prepare_data``."""
        if self.path is None:
            return self.data_dir / self.generated_name
        if self._must_convert():
            return self.path.with_name(f"{self.path.name}.{self.total}.h5")
        return self.path

    def _must_convert(self) -> bool:
        return self.path is not None and self.path.suffix not in (".h5", ".hdf5")

    @property
    def generated_name(self) -> str:
        """File name of the generated set; it names all that the set depends on."""
        return f"{self.dataset_name}_{self.total}_seed{self.seed}.h5"

    @abstractmethod
    def generate(self, file: Path) -> None:
        """Writes a generated set of :attr:`total` images."""

    def prepare_data(self) -> None:
        """Converts or generates where that is still to be done; Lightning calls it on one process of a machine."""
        if self.file.exists():
            return
        if self.path is None:
            rank_zero_info(
                f"{type(self).__name__}: no path given, so {self.total} scenes are generated into {self.file}. "
                f"For DeepMind's dataset give --data.path {self.dataset_name}_train.tfrecords."
            )
            self.generate(self.file)
        elif self._must_convert() and self.path.exists():
            convert(self.path, self.file, self.features, self.dataset_name, limit=self.total)
        else:
            raise SceneFileError(
                f"{type(self).__name__}: there is no file {self.path}. Leave path out to generate a set."
            )

    def setup(self, stage: str) -> None:
        """Opens the file and cuts the splits."""
        self.dataset = SceneDataset(self.file)
        if len(self.dataset) < self.total:
            wanted = ", ".join(f"num_{split}={count}" for split, count in self.num_images.items())
            raise SceneFileError(
                f"{self.file} has {len(self.dataset)} images, but {wanted} need {self.total}. Ask for fewer."
            )
        bounds = np.cumsum([0, *self.num_images.values()])
        self.splits = {split: np.arange(bounds[i], bounds[i + 1]) for i, split in enumerate(self.num_images)}

    def train_dataloader(self) -> DataLoader[Any]:
        sampler = self._sampler("train", shuffle=True)
        if not len(sampler):
            raise SceneFileError(
                f"{len(sampler.indices)} training images do not make one batch of {self.batch_size} on each of "
                f"{sampler.num_replicas} process(es). Lower batch_size or raise num_train."
            )
        if self.trainer is not None:
            # The Trainer has counted the batches of the epoch it stopped in; at the end of one it has counted them all.
            epochs, batches = divmod(self.trainer.fit_loop.epoch_loop.batch_progress.current.ready, len(sampler))
            sampler.resume = (self.trainer.current_epoch + epochs, batches)
            sampler.set_epoch(sampler.resume[0])
        return self._loader(ResumableLoader, sampler)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(DataLoader, self._sampler("val"))

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader(DataLoader, self._sampler("test"))

    def predict_dataloader(self) -> DataLoader[Any]:
        """Returns the test images."""
        return self.test_dataloader()

    def _sampler(self, split: str, shuffle: bool = False) -> BatchSampler:
        rank, processes = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
        return BatchSampler(self.splits[split], self.batch_size, shuffle, self.seed, rank, processes)

    def _loader(self, kind: type[DataLoader[Any]], sampler: BatchSampler) -> DataLoader[Any]:
        make = partial(kind, self.dataset, batch_size=None, sampler=sampler, pin_memory=torch.cuda.is_available())
        if not self.num_workers:
            return make()
        return make(
            num_workers=self.num_workers,
            multiprocessing_context=self.multiprocessing_context,
            persistent_workers=True,
        )

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Makes floats of the images, on the device."""
        return batch | {"image": batch["image"].float() / 255}
