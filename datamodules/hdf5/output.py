"""Writes HDF5 files to a disk that may become full."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from types import TracebackType

import h5py

__all__ = ["OutputFile"]


class OutputFile(h5py.File):  # type: ignore[misc]
    """Writes a new HDF5 file. Errors of the disk are raised later, by :meth:`check`.

    HDF5 itself ends the process if it cannot write its buffers when a file is closed.

    Args:
        path: the file.

    Raises:
        OSError: if it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._disk = _Disk(path)
        super().__init__(self._disk, "w")

    def check(self) -> None:
        """Raises the first error of the disk.

        Raises:
            OSError: if there was one.
        """
        if self._disk.error is not None:
            raise self._disk.error

    def close(self) -> None:
        super().close()
        self._disk.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if error is None:
            self.check()


class _Disk(io.RawIOBase):
    """Accepts every write and keeps the first error, after which nothing is written."""

    def __init__(self, path: Path) -> None:
        self.error: OSError | None = None
        self._path = path
        self._number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while self.error is None and len(rest):
                done = os.write(self._number, rest)
                if not done:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                rest = rest[done:]
        except OSError as error:
            self._keep(error)
        return size

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = os.read(self._number, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._number, offset, whence)

    def truncate(self, size: int | None = None) -> int:
        length = os.lseek(self._number, 0, os.SEEK_CUR) if size is None else size
        try:
            if self.error is None:
                os.ftruncate(self._number, length)
        except OSError as error:
            self._keep(error)
        return length

    def _keep(self, error: OSError) -> None:
        self.error = OSError(error.errno, error.strerror, str(self._path))

    def close(self) -> None:
        if not self.closed:
            os.close(self._number)
        super().close()
