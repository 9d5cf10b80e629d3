"""Finds and reads a checkpoint in a folder or a zip file. Nothing is unpacked to the disk."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from iodine_pl.files.tensorflow.tensor_bundle import LARGEST_INDEX, Bundle, BundleError, read_bundle

__all__ = ["read_checkpoint"]

Folder = Path | zipfile.Path

_LARGEST_FILE = 1 << 28  # bytes, unpacked; IODINE's largest has 14 million
_MOST_MEMBERS = 1000  # of a zip file
_DEPTH = 3  # of folders that are searched for checkpoints


def read_checkpoint(source: str | Path, folder: str | None = None) -> tuple[str, Bundle]:
    """Reads a TensorFlow checkpoint.

    Args:
        source: a checkpoint's index file, with or without ``.index``, a folder, or a zip file. In a folder or zip file
            the newest checkpoint is taken according to the file ``checkpoint``, else the only one.
        folder: name of the subfolder to take, if several have checkpoints.

    Returns:
        Where it was found, and its tensors.

    Raises:
        FileNotFoundError: if ``source`` does not exist.
        BundleError: if a folder or zip file has no checkpoint, or several to choose from; if a checkpoint is damaged,
            too large or of another kind.
    """
    path = Path(source)
    if path.is_dir():
        return _read(*_choose(path, str(path), folder))
    if path.is_file() and zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                _check_names(archive, path)
                return _read(*_choose(zipfile.Path(archive), str(path), folder))
        # All errors that damage, a password or an unknown compression method can raise.
        except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError) as error:
            raise BundleError(f"{path} cannot be read: {error}. Fetch it again") from error
    prefix = re.sub(r"(\.index|\.data-\d+-of-\d+)$", "", path.name)
    if not (path.parent / f"{prefix}.index").is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}: no folder, no zip file, and no {prefix}.index")
    return _read(path.parent, prefix)


def _check_names(archive: zipfile.ZipFile, path: Path) -> None:
    names = archive.namelist()
    if len(names) > _MOST_MEMBERS:
        raise BundleError(f"{path} has {len(names)} members, {_MOST_MEMBERS} are the most that are read")
    for name in names:
        if "\\" in name or name.startswith("/") or {"", ".", ".."} & set(name.removesuffix("/").split("/")):
            raise BundleError(f"{path} has a member {name!r}, which lies outside of it: this is no honest zip file")


def _choose(root: Folder, name: str, wanted: str | None) -> tuple[Folder, str]:
    """Returns the chosen folder, and the checkpoint in it."""
    found = {relative: (folder, indices) for relative, folder, indices in _folders(root, "", _DEPTH)}
    if not found:
        raise BundleError(f"{name} has no checkpoint: no file that ends in .index, {_DEPTH} folders deep")
    if wanted is not None:
        meant = [relative for relative in found if relative == wanted or relative.split("/")[-1] == wanted]
    else:
        meant = list(found)
    if len(meant) != 1:
        there = ", ".join(relative or "(itself)" for relative in found)
        raise BundleError(f"{name} has checkpoints in these folders: {there}. Name one of them as the folder")
    folder, indices = found[meant[0]]
    prefixes = [index.removesuffix(".index") for index in indices]
    newest = _newest(folder)
    if newest in prefixes:
        return folder, newest
    if len(prefixes) > 1:
        raise BundleError(f"{folder} has several checkpoints: {', '.join(prefixes)}. Name one of them")
    return folder, prefixes[0]


def _folders(folder: Folder, relative: str, depth: int) -> Iterator[tuple[str, Folder, list[str]]]:
    """Yields every folder with an index: its path below the first one, the folder, the names of its indices."""
    inside: list[Folder] = [*folder.iterdir()]
    inside.sort(key=lambda child: child.name)
    if indices := [child.name for child in inside if child.name.endswith(".index") and child.is_file()]:
        yield relative, folder, indices
    for child in inside:
        if depth and child.is_dir():
            yield from _folders(child, f"{relative}/{child.name}".lstrip("/"), depth - 1)


def _newest(folder: Folder) -> str:
    """Returns the base name of the newest checkpoint according to the file ``checkpoint``, or an empty string.

    A folder in that file is ignored, since it was on the writer's machine.
    """
    file = folder / "checkpoint"
    if not file.is_file():
        return ""
    text = _content(file, LARGEST_INDEX).decode(errors="replace")
    found = re.search(r'^model_checkpoint_path: "([^"]*)"', text, re.MULTILINE)
    return re.split(r"[/\\]", found[1])[-1] if found else ""


def _read(folder: Folder, prefix: str) -> tuple[str, Bundle]:
    where = str(folder / prefix)
    left = _LARGEST_FILE

    def read_shard(number: int, shards: int) -> bytes:
        nonlocal left
        data = _content(folder / f"{prefix}.data-{number:05d}-of-{shards:05d}", left)
        left -= len(data)
        return data

    try:
        return where, read_bundle(_content(folder / f"{prefix}.index", LARGEST_INDEX), read_shard)
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from error


def _content(file: Folder, limit: int) -> bytes:
    """Returns the bytes of a file; at most ``limit`` bytes are unpacked."""
    if not file.is_file():
        raise BundleError(f"{file.name} is missing beside its index")
    with file.open("rb") as stream:
        data: bytes = stream.read(limit + 1)
    if len(data) > limit:
        raise BundleError(f"{file.name} is larger than {limit} bytes, the most that are read")
    return data
