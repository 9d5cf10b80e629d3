"""Where scenes come from: generated here, converted from DeepMind's file, or files that the user has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from lightning_utilities.core.rank_zero import rank_zero_info

from iodine_pl.datamodules.deepmind.conversion import convert, serves
from iodine_pl.datamodules.deepmind.releases import Release
from iodine_pl.datamodules.hdf5.dataset import find_files
from iodine_pl.datamodules.hdf5.errors import SceneFileError
from iodine_pl.datamodules.synthetic.generator import Generator
from iodine_pl.datamodules.synthetic.shards import generate, shards_of

__all__ = ["Converted", "Generated", "Given", "Origin", "is_records", "naming_remedy"]


class Origin(Protocol):
    """Knows the files of a datamodule, and makes those that are missing."""

    @property
    def made_here(self) -> bool:
        """Whether this package makes the files, so that a damaged one may be deleted."""

    @property
    def first(self) -> int:
        """Position of the first scene to read."""

    @property
    def files(self) -> list[Path]:
        """The files to read. Those that are made here need not exist before :meth:`prepare`."""

    def prepare(self) -> None:
        """Makes missing files; raises a SceneFileError if that cannot be done."""


def is_records(path: Path) -> bool:
    """Returns whether a path is that of a TFRecord file, which has to be converted."""
    return path.suffix in (".tfrecord", ".tfrecords", ".gz")


@contextmanager
def naming_remedy(origin: Origin) -> Iterator[None]:
    """Adds to an error about a damaged file that it can be deleted, if this package made the file."""
    try:
        yield
    except SceneFileError as error:
        if origin.made_here:
            raise SceneFileError(f"{error}. It was made here: delete it, and it is made again") from error
        raise


@dataclass(frozen=True)
class Generated:
    """A generated set in ``folder``, from the file of scene ``first`` on."""

    made_here: ClassVar[bool] = True

    name: str
    """Of the datamodule, for messages."""
    generator: Generator
    folder: Path
    total: int
    """Scenes, from 0 on."""
    first: int
    """At the beginning of a file."""
    release: Release | None

    @property
    def files(self) -> list[Path]:
        return shards_of(self.generator, self.folder, self.total)[self.first // self.generator.shard :]

    def prepare(self) -> None:
        if all(file.exists() for file in self.files):
            return
        file = Path(self.release.url).name if self.release else "..."
        rank_zero_info(
            f"{self.name}: no path is given. {self.total - self.first} scenes are generated in {self.folder}; after an "
            "interruption, the same command continues. For fewer scenes set --data.num_train, num_val, num_test; for "
            f"DeepMind's dataset give its file, --data.path {file}"
        )
        generate(self.generator, self.folder, self.total, first=self.first)


@dataclass(frozen=True)
class Converted:
    """DeepMind's TFRecord file, converted to an HDF5 file beside it.

    That is reused if it has the records that are needed and its source has not changed.
    """

    made_here: ClassVar[bool] = True
    first: ClassVar[int] = 0

    name: str
    source: Path
    remedy: str
    """What to do if there is no such file."""
    release: Release | None
    size: int | None
    """Side of the converted images in pixels; None: as they are."""
    total: int
    """Records that are needed."""

    @property
    def files(self) -> list[Path]:
        size = "" if self.size is None else f".{self.size}px"
        return [self.source.with_name(f"{self.source.name}{size}.h5")]

    def prepare(self) -> None:
        (target,) = self.files
        with naming_remedy(self):
            if serves(target, self.source, self.total):
                return
        if self.release is None:
            raise SceneFileError(
                f"{self.name} does not know what is in {self.source}: name the dataset, for example "
                "--data TetrominoesDataModule"
            )
        if not self.source.exists():
            raise _not_found(self.name, self.source, self.remedy)
        convert(self.source, target, self.release, limit=self.total, size=self.size)


@dataclass(frozen=True)
class Given:
    """Files that the user has."""

    made_here: ClassVar[bool] = False
    first: ClassVar[int] = 0

    name: str
    path: Path
    remedy: str
    """What to do if there is no such file."""

    @property
    def files(self) -> list[Path]:
        return find_files(self.path)

    def prepare(self) -> None:
        if not all(file.exists() for file in self.files):
            raise _not_found(self.name, self.path, self.remedy)


def _not_found(name: str, path: Path, remedy: str) -> SceneFileError:
    return SceneFileError(f"{name}: there is no file {path}. {remedy}")
