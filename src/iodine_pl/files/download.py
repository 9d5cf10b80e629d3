"""Reads a file from a web server as a stream and keeps the received bytes, so that nothing is fetched twice."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from types import TracebackType
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from iodine_pl.files.progress import progress_bar
from iodine_pl.files.tensorflow.tfrecord import looks_like_records

__all__ = ["Download", "DownloadError", "download_zip", "sha256_of"]

_TIMEOUT = 60.0  # seconds without a byte
_ATTEMPTS = 5  # consecutive ones without a byte
_PAUSE = 1.0  # seconds before the second attempt, doubled for each further one
_LARGEST = 1 << 30  # bytes


class DownloadError(OSError):
    """Says what is wrong with a server's answer, and what to do."""


class Download:
    """Reads a file from a server like an open file, and fetches only what is read.

    The received bytes are kept in a file. After an interruption they are read from there, and the download continues
    after them. A broken connection is resumed where it ended, even if the server does not support ranges.

    Args:
        url: of the file.
        kept: where the bytes are kept. If the file exists, the download continues after it.
        looks_right: tells from the first bytes whether this can be the file; by default, whether it has TFRecords.

    Attributes:
        total: size of the whole file in bytes as the server states it; None if it does not.

    Raises:
        DownloadError: if the server does not answer, has no such file, sends something else or less than it says.
    """

    def __init__(self, url: str, kept: Path, looks_right: Callable[[bytes], bool] = looks_like_records) -> None:
        self.url, self.kept, self._looks_right = url, kept, looks_right
        self.total: int | None = None
        self._response: HTTPResponse | None = None
        self._at = 0

    @property
    def name(self) -> str:
        return self.url

    @property
    def here(self) -> int:
        """Number of bytes received so far."""
        return self._here

    def __enter__(self) -> Download:
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.kept.open("a+b")
        self._here = self.kept.stat().st_size
        try:
            self._connect()
        except BaseException:
            self._file.close()
            if not self._here:
                self.kept.unlink()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._disconnect()
        self._file.close()

    def read(self, count: int, /) -> bytes:
        """Returns up to ``count`` bytes; an empty string at the end of the file."""
        if self._at < self._here:
            self._file.seek(self._at)
            data = self._file.read(min(count, self._here - self._at))
        else:
            data = self._fetch(count)
            self._file.write(data)
            self._here += len(data)
        self._at += len(data)
        return data

    def _fetch(self, count: int) -> bytes:
        """Returns the next bytes from the network, and reconnects as long as that brings bytes."""
        for attempt in range(_ATTEMPTS):
            if self.total is not None and self._here >= self.total:
                return b""
            if attempt:
                time.sleep(_PAUSE * 2 ** (attempt - 1))
            try:
                if self._response is None:
                    self._connect()
                if self._response is None:
                    continue
                data = self._response.read(count)
            except (OSError, HTTPException) as error:
                if isinstance(error, DownloadError):
                    raise
                data = b""
            if data:
                return data
            if self.total is None and self._response is not None:
                return b""  # the server did not state a length, so this is the end
            self._disconnect()
        raise DownloadError(
            f"{self.url}: the server says that the file has {self.total} bytes, but sends {self._here} and no more. "
            f"Start again later; if that does not help, delete {self.kept} first"
        )

    def _connect(self) -> None:
        request = Request(self.url, headers={"Range": f"bytes={self._here}-"} if self._here else {})
        try:
            response = urlopen(request, timeout=_TIMEOUT)
        except HTTPError as error:
            length = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
            if error.code == 416 and length and int(length[1]) == self._here:
                self._know(self._here)
                return
            if error.code in (429, 500, 502, 503, 504) and self.total is not None:
                return  # it has worked before: try again
            raise DownloadError(
                f"{self.url}: the server answers {error.code} {error.reason}. Check the address, or name a file "
                "that you have in its place"
            ) from error
        except (URLError, OSError, HTTPException) as error:
            if self.total is not None:
                return
            raise DownloadError(
                f"{self.url}: no connection ({error}). Check the network, or name a file that you have in its place"
            ) from error
        self._response = response
        length = response.headers.get("Content-Length")
        if response.status == 206:
            whole = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            if not whole or int(whole[1]) != self._here:
                raise DownloadError(
                    f"{self.url}: asked for the rest, the server sends another part. Delete {self.kept}"
                )
            self._know(int(whole[2]))
            return
        self._know(None if length is None else int(length))
        skipped = 0
        while skipped < self._here:  # a server without ranges starts from the beginning
            data = response.read(min(1 << 20, self._here - skipped))
            if not data:
                self._disconnect()
                return
            skipped += len(data)
        if not self._here:
            self._begin(response)

    def _begin(self, response: HTTPResponse) -> None:
        """Checks the first bytes before any are kept."""
        first = response.read(1 << 10)
        if not self._looks_right(first):
            kind = response.headers.get("Content-Type", "something")
            start = first[:40].decode("ascii", errors="replace")
            raise DownloadError(
                f"{self.url} sent {kind} that begins with {start!r} instead of the file. Check the address, or "
                "give a file that you have"
            )
        self._file.write(first)
        self._here = len(first)

    def _know(self, total: int | None) -> None:
        if self.total is not None and total != self.total:
            raise DownloadError(
                f"{self.url} had {self.total} bytes and has {total} now: it was replaced. Delete {self.kept} to begin "
                "anew"
            )
        self.total = total

    def _disconnect(self) -> None:
        if self._response is not None:
            self._response.close()
        self._response = None


def download_zip(url: str, kept: Path) -> None:
    """Downloads a zip file, such as a checkpoint of PyTorch, and shows a progress bar.

    Args:
        url: of the file.
        kept: the file to write; if it exists, the download continues after it.

    Raises:
        DownloadError: as :class:`Download`, and if the file is not a zip file or has more than 1 GiB.
    """
    with (
        Download(url, kept, _looks_like_zip) as download,
        progress_bar(
            total=download.total, unit="B", unit_scale=True, desc=PurePosixPath(urlsplit(url).path).name
        ) as progress,
    ):
        while data := download.read(1 << 16):
            progress.update(len(data))
            if download.here > _LARGEST:
                raise DownloadError(f"{url} sends more than {_LARGEST} bytes: this is something else")


def sha256_of(path: Path) -> str:
    """Returns the digest of a file's content, 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _looks_like_zip(first: bytes) -> bool:
    return first.startswith(b"PK")
