"""Finds checkpoints: by path, in the folders of runs (``runs/NAME/version_N``), by a shipped name, at an address."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urldefrag

from iodine_pl import pretrained
from iodine_pl.checkpoints.hub import SCHEME, at_hub
from iodine_pl.files.atomic import written_beside
from iodine_pl.files.download import DownloadError, download_zip, sha256_of

__all__ = ["RUNS", "find_weights", "name_of", "run_of"]

RUNS = Path("runs")


def run_of(checkpoint: Path) -> Path | None:
    """Returns the folder of the run that a checkpoint is in, or None if it is not in a run."""
    run = checkpoint.parent.parent
    return run if checkpoint.parent.name == "checkpoints" and (run / "config.yaml").is_file() else None


def name_of(checkpoint: str | Path) -> str:
    """Returns the name of a checkpoint for results: that of shipped weights, or the path as given."""
    path = Path(checkpoint)
    return path.stem if path.parent == pretrained.FOLDER else str(checkpoint)


def find_weights(wanted: str | Path, run: str | None = None, root: str | Path | None = None) -> Path:
    """Returns the path of the checkpoint that a user means.

    Args:
        wanted: ``last`` or ``best`` of the newest run, which is the one that saved a checkpoint latest; the name of
            weights that come with the package (:func:`iodine_pl.pretrained.available`); an address
            ``https://...#sha256=HEX``, which is downloaded once, to ``$XDG_CACHE_HOME/iodine-pl`` or
            ``~/.cache/iodine-pl``; a file at the Hugging Face Hub, ``hf://OWNER/REPOSITORY/FILE@REVISION`` (see
            :func:`iodine_pl.checkpoints.hub.at_hub`); or a path.
        run: name of the runs among which the newest is chosen; None: all runs.
        root: where the runs are; None: ``runs``.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if an address has no digest, or does not begin with ``https://``, ``http://`` or ``hf://``.
        DownloadError: if the server does not send the file that has this digest, or the hub has no such file.
        ImportError: if an address of the hub needs the extra ``hub``.
    """
    text = str(wanted)
    if text in ("last", "best"):
        return _of_newest_run(text, run or "*", Path(root or RUNS))
    if text.startswith(SCHEME):
        return at_hub(text)
    if "://" in text:
        return _at_address(text)
    if text in pretrained.available():
        return pretrained.FOLDER / f"{text}.ckpt"
    if not Path(wanted).is_file():
        raise FileNotFoundError(
            f"there is no checkpoint {text}: give a path, last, best, an address with #sha256=HEX, or one of "
            f"{', '.join(pretrained.available())}"
        )
    return Path(wanted)


def _of_newest_run(alias: str, name: str, root: Path) -> Path:
    saved = sorted(root.glob(f"{name}/*/checkpoints/*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    if not saved:
        raise FileNotFoundError(
            f"there is no checkpoint in any run of {root / name}: train first, or give the path of a checkpoint"
        )
    path = saved[-1].with_name(f"{alias}.ckpt")
    if not path.is_file():
        there = ", ".join(sorted(other.name for other in path.parent.glob("*.ckpt")))
        raise FileNotFoundError(f"the newest run, {path.parent.parent}, has no {path.name} yet, only {there}")
    return path


def _at_address(wanted: str) -> Path:
    """Downloads a checkpoint, unless it is in the cache, where its name is the digest of its content."""
    address, fragment = urldefrag(wanted)
    if not address.startswith(("https://", "http://")):
        raise ValueError(
            f"{address} cannot be downloaded: write an address that begins with https://, http:// or hf://"
        )
    digits = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if digits is None:
        raise ValueError(
            f"{wanted} has no digest: write {address}#sha256=HEX with the 64 digits that `sha256sum FILE` prints"
        )
    digest = digits[1].lower()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iodine-pl"
    path = cache / f"{digest}.ckpt"
    if path.is_file():
        return path
    with written_beside(path, shared=True) as partial:  # every process of a multi-device run may download it
        download_zip(address, partial)
        came = sha256_of(partial)
        if came != digest:
            raise DownloadError(
                f"{address} sent a file with SHA-256 {came} instead of {digest}, and it was deleted. Check the address "
                "and the digest"
            )
    return path
