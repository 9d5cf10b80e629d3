"""The LightningDataModule of every dataset: prepare, split, stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import distributed
from torch.utils.data import DataLoader

from iodine_pl.datamodules.deepmind.releases import Release
from iodine_pl.datamodules.hdf5.dataset import SceneDataset
from iodine_pl.datamodules.hdf5.errors import SceneFileError
from iodine_pl.datamodules.hdf5.resizing import ANTIALIASED, CropResize, Filter
from iodine_pl.datamodules.loader import ResumableLoader, SceneLoader, live_with_parent, to_tensors, unchanged
from iodine_pl.datamodules.origins import Converted, Generated, Given, Origin, is_records, naming_remedy
from iodine_pl.datamodules.sampler import BatchSampler, FileOrderSampler
from iodine_pl.datamodules.splits import Selection, all_for_test, cut, excluded_codes
from iodine_pl.datamodules.synthetic.generator import Generator

__all__ = ["SceneDataModule"]


class SceneDataModule(pl.LightningDataModule):
    """Streams scenes from HDF5 files, or images from a folder. A batch is a dict: ``image`` (B, C, H, W), uint8 until
    it is on the device and float in [0, 1] there; ``index`` (B,), the position in the data; and, if known, ``label``
    (B, H, W) uint8, 0 for the background; ``num_objects`` (B,); ``factors``, a dict of (B, L, ...) with entity 0 for
    the background.

    Without a Trainer, call ``prepare_data`` on one process of each machine and ``setup("fit")`` on all. The processes
    of ``torch.distributed`` share the images. ``on_after_batch_transfer(batch, 0)`` turns a batch's images into floats.

    Use this class for your own data; the datasets of the paper derive from it.

    Args:
        path: an HDF5 file, a pattern for several (``clevr-*.h5``), a folder of them or of images (docs/data.md lists
            the layouts); or a TFRecord file of the dataset (gzip or not). That is converted to an HDF5 file beside it,
            and again only if it changes or more of it is needed. None: a generated set in ``data_dir``, made at the
            first use.
        data_dir: folder of generated sets.
        batch_size: images per device.
        pixel_stride: keep every n-th pixel of every n-th row of images and labels; 2 turns 64x64 into 32x32.
        crop: ``center``, the largest part in the middle with the shape of ``resize``, or a square; or top, left, height
            and width in pixels. Images are cropped before they are resized; CLEVR's crop is ``[29, 64, 192, 192]``.
        resize: height and width in pixels, or one number for the shorter side. Images are resized by an antialiasing
            bilinear filter (CLEVR: as in the released code), labels by the nearest pixel.
        frames: length of a sequence: the folders in ``path`` are clips, which are cut into sequences of this length.
        num_train: records for training. None: the published number of a dataset; for other data all but those of
            validation and test.
        num_val, num_test: numbers of images for validation and test, which follow those for training. They are ignored
            when a folder of images is predicted: all its images are.
        min_objects, max_objects: only scenes with a number of objects in this range.
        exclude: combination of factors that no object may have, such as ``{shape: sphere, color: green}``.
        test_split: ``excluded``: test only on scenes with such an object.
        num_workers: processes that read ahead; 0 is best on few cores.
        multiprocessing_context: how these start; None: the platform's default.
        worker_timeout: seconds after which a worker without a batch is an error.
        seed: of the order in training.
        generated_seed: of the generated set, which is the same for all seeds of training.

    Raises:
        SceneFileError: if a file is missing or damaged, or has too few images.
    """

    dataset_name: str = "scenes"
    published_train: int | None = None
    spare: int = 1
    """Records reserved for each image of validation and test, as a selection may skip many."""
    release: Release | None = None
    generator: Generator | None = None
    size: int | None = None
    filter: Filter = ANTIALIASED
    only_evaluates: bool = False
    """Set it if nothing is trained and there is no Trainer to tell; a generated set then has no training files."""
    factor_kinds: ClassVar[Mapping[str, Literal["scalar", "angle", "category"]]] = {}
    """The factors that the paper's probes predict from a latent."""

    def __init__(
        self,
        path: str | Path | None = None,
        data_dir: str | Path = "data",
        batch_size: int = 128,
        pixel_stride: int = 1,
        crop: Literal["center"] | tuple[int, int, int, int] | None = None,
        resize: int | tuple[int, int] | None = None,
        frames: int | None = None,
        num_train: int | None = None,
        num_val: int = 320,
        num_test: int = 320,
        min_objects: int | None = None,
        max_objects: int | None = None,
        exclude: Mapping[str, Any] | None = None,
        test_split: Literal["same", "excluded"] = "same",
        num_workers: int = 0,
        multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None = None,
        worker_timeout: float = 300.0,
        seed: int = 0,
        generated_seed: int = 0,
    ) -> None:
        super().__init__()
        self.path = None if path is None else Path(path)
        self.data_dir = Path(data_dir)
        self.batch_size = batch_size
        self.pixel_stride = pixel_stride
        self.view = CropResize(crop, resize, self.filter)
        self._frames = frames
        self.num_train = self.published_train if num_train is None else num_train
        self.num_val, self.num_test = num_val, num_test
        self.selection = Selection(min_objects, max_objects, exclude, test_split)
        self.num_workers = num_workers
        self.multiprocessing_context = multiprocessing_context
        self.worker_timeout = worker_timeout
        self.seed = seed
        self.generated_seed = generated_seed
        for key, value, least in (
            ("batch_size", batch_size, 1),
            ("pixel_stride", pixel_stride, 1),
            ("frames", 1 if frames is None else frames, 1),
            ("num_train", 1 if self.num_train is None else self.num_train, 1),
            ("num_val", num_val, 0),
            ("num_test", num_test, 0),
            ("num_workers", num_workers, 0),
            ("worker_timeout", worker_timeout, 0),
            ("seed", seed, 0),
            ("generated_seed", generated_seed, 0),
        ):
            if value < least:
                raise ValueError(f"{key} must be at least {least}, got {value}")

    @property
    def excluded_codes(self) -> dict[str, Any]:
        """``exclude`` with codes instead of names; known after ``setup``."""
        return excluded_codes(self.dataset, self.selection)

    @property
    def total(self) -> int:
        """Records of a converted or generated set."""
        return (self.num_train or 0) + self.spare * (self.num_val + self.num_test)

    @property
    def origin(self) -> Origin:
        """Where the scenes come from, by ``path``."""
        name = type(self).__name__
        if self.path is None:
            if self.generator is None:
                raise SceneFileError(f"{name} needs data: give --data.path FILE_OR_FOLDER")
            first = self._first(self.generator.shard)
            return Generated(name, self.generator, self.data_dir, self.total, first, self.release)
        remedy = "Give another path" if self.generator is None else "Leave path out to generate"
        if is_records(self.path):
            return Converted(name, self.path, remedy, self.release, self.size, self.total)
        return Given(name, self.path, remedy)

    @property
    def files(self) -> list[Path]:
        """The files to read. Generated and converted ones need not exist before ``prepare_data``."""
        return self.origin.files

    def _first(self, shard: int) -> int:
        """Returns the first scene to read, since without training a generated set has no training files."""
        evaluates = self.trainer is not None and self.trainer.state.fn not in (None, TrainerFn.FITTING)
        return (self.num_train or 0) // shard * shard if evaluates or self.only_evaluates else 0

    def image_size(self) -> tuple[int, int]:
        """Returns (H, W) of the images as a model gets them, without preparing any data.

        Raises:
            SceneFileError: if the data are not generated, and their files are missing or damaged.
        """
        origin = self.origin
        if isinstance(origin, Generated):
            made = next(iter(origin.generator.scenes(0, 1)))[0].shape[1:3]
            shape: tuple[int, ...] = self.view.kept(made[0], made[1], "a generated image")
        else:
            shape = SceneDataset(origin.files, view=self.view, frames=self._frames).image_shape[-3:-1]
        height, width = (-(-side // self.pixel_stride) for side in shape)
        return height, width

    def prepare_data(self) -> None:
        """Generates or converts missing data. Lightning calls it on one process of each machine."""
        self.origin.prepare()

    def setup(self, stage: str) -> None:
        """Opens the files and makes the splits. If a folder of images is predicted, all its images are."""
        origin = self.origin
        with naming_remedy(origin):
            self.dataset = SceneDataset(origin.files, origin.first, self.view, self._frames)
        if stage == "predict" and all(path.is_dir() for path in self.dataset.files):
            self.splits = all_for_test(self.dataset)
        else:
            self.splits = cut(self.dataset, self.num_train, self.num_val, self.num_test, self.selection)
        module = self.trainer.lightning_module if self.trainer is not None else None
        expected, given = getattr(module, "image_channels", None), self.dataset.image_shape[-1]
        if expected not in (None, given):
            raise SceneFileError(
                f"{self.dataset.files[0]} has images of {given} channel(s), but the model is made for {expected}: give "
                f"--model.image_channels {given}, or another file"
            )

    def train_dataloader(self) -> DataLoader[Any]:
        """Returns shuffled batches; in the order of the file for ``Trainer(overfit_batches=...)``."""
        sampler = self._sampler("train", shuffle=not getattr(self.trainer, "overfit_batches", 0))
        if not len(sampler):
            raise SceneFileError(
                f"{len(sampler.indices)} training images do not make one batch of {self.batch_size} on each of "
                f"{sampler.num_replicas} process(es). Lower batch_size or raise num_train."
            )
        if self.trainer is not None:
            # The Trainer has counted the batches of the epoch it stopped in, all of them if it stopped at its end.
            epochs, batches = divmod(self.trainer.fit_loop.epoch_loop.batch_progress.current.ready, len(sampler))
            sampler.resume = (self.trainer.current_epoch + epochs, batches)
            sampler.set_epoch(sampler.resume[0])
        return self._loader(ResumableLoader, sampler)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(SceneLoader, self._sampler("val"))

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader(SceneLoader, self._sampler("test"))

    def predict_dataloader(self) -> DataLoader[Any]:
        """Returns batches of the test images, or of all images of a folder."""
        return self.test_dataloader()

    def _sampler(self, split: str, shuffle: bool = False) -> BatchSampler:
        rank, processes = self._process()
        indices = self.splits[split]
        if not shuffle and 0 < len(indices) < processes:
            raise SceneFileError(
                f"{len(indices)} image(s) for {split} are too few for {processes} processes, each of which needs one: "
                f"raise num_{split}, set it to 0, or take fewer devices"
            )
        return (BatchSampler if shuffle else FileOrderSampler)(
            indices,
            self.batch_size,
            blocks=self.dataset.block_of(indices),
            window=self.dataset.window,
            shuffle=shuffle,
            seed=self.seed,
            rank=rank,
            processes=processes,
        )

    def _process(self) -> tuple[int, int]:
        """Returns rank and number of the processes, from the Trainer, else from ``torch.distributed``."""
        if self.trainer is not None:
            return self.trainer.global_rank, self.trainer.world_size
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1

    def _loader(self, kind: type[SceneLoader], sampler: BatchSampler) -> SceneLoader:
        return kind(
            self.dataset,
            batch_size=None,
            sampler=sampler,
            collate_fn=unchanged,
            worker_init_fn=live_with_parent,
            num_workers=self.num_workers,
            multiprocessing_context=self.multiprocessing_context if self.num_workers else None,
            timeout=self.worker_timeout if self.num_workers else 0,
            persistent_workers=self.num_workers > 0,
        )

    def scenes(self, indices: Sequence[int]) -> dict[str, Any]:
        """Returns the scenes at these positions of the data as the model gets them, on the CPU; after ``setup``."""
        return self.on_after_batch_transfer(to_tensors(self.dataset[indices]), 0)

    def transfer_batch_to_device(self, batch: dict[str, Any], device: torch.device, dataloader_idx: int) -> Any:
        """Moves a batch except ``index``, which keys the noise on the CPU, where reading it does not wait for a GPU."""
        moved: dict[str, Any] = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return moved | ({"index": batch["index"]} if "index" in batch else {})

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Turns the images into floats on the device and applies ``pixel_stride``."""
        step = self.pixel_stride
        kept = {name: batch[name][..., ::step, ::step] for name in ("image", "label") if name in batch}
        return batch | kept | {"image": kept["image"].float() / 255}
