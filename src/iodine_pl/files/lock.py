"""A lock that is released when its process ends, in any way."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Lock", "LockedError"]


class LockedError(RuntimeError):
    """Says which process holds a lock."""


class Lock:
    """Holds a lock file, which names this process. The system releases the lock when the process ends.

    On a file system without locks it has no effect.
    """

    def __init__(self, path: Path, number: int) -> None:
        self._path = path
        self._number = number  # of the open file
        self._process = os.getpid()

    @classmethod
    def of(cls, path: Path) -> Lock:
        """Takes the lock ``path``.

        Raises:
            LockedError: if another process holds it.
            OSError: if the file cannot be written.
        """
        while True:
            number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _take(number)
            except OSError as error:
                holder = os.read(number, 300).decode(errors="replace").strip()
                os.close(number)
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise LockedError(holder or "another process") from error
                raise
            with suppress(FileNotFoundError):  # its last holder may have deleted it after it was opened here
                if os.path.samestat(os.fstat(number), path.stat()):
                    break
            os.close(number)
        os.truncate(number, 0)
        os.write(number, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        return cls(path, number)

    def release(self) -> None:
        """Deletes the file and releases the lock; a copy of this object in another process does nothing."""
        if self._process == os.getpid():
            self._path.unlink(missing_ok=True)
            os.close(self._number)


def _take(number: int) -> None:
    try:
        if fcntl is not None:
            # A record lock is not inherited by forked processes, such as those that load data.
            fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
