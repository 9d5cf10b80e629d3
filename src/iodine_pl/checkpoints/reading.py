"""Reads checkpoint files. Damaged files are refused, and no code that they name is run."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch

__all__ = ["CheckpointError", "read_checkpoint", "read_file"]

_BLOCK = 1 << 20  # bytes


class CheckpointError(ValueError):
    """Says what is wrong with a checkpoint, and what to do."""


def read_file(path: str | Path, mapped: bool = True, map_location: Any = "cpu") -> dict[str, Any]:
    """Returns the content of a file that ``torch.save`` wrote, after comparing every byte with its checksum.

    PyTorch does not check them, so that damaged weights would be loaded as other weights.

    Args:
        path: the file.
        mapped: leave tensors in the file until they are used; not for tensors that outlive the file.
        map_location: where tensors go, as ``torch.load`` takes it.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if it cannot be read, is damaged or of another kind, or holds anything but tensors, numbers,
            strings and collections of them.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        _compare_checksums(path)
        content = torch.load(path, map_location=map_location, weights_only=True, mmap=mapped)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except CheckpointError:
        raise
    except Exception as error:  # the unpickler raises errors of any class on damaged bytes
        code = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it holds {code[1]}, which is not called, as that may run code" if code else "PyTorch cannot read it"
        raise CheckpointError(f"{path} is not a checkpoint: {reason}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a checkpoint: it holds a {type(content).__name__}")
    return content


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Returns the content of a model's checkpoint on the CPU; tensors are read when they are used, where possible.

    Raises:
        FileNotFoundError, CheckpointError: as :func:`read_file`; also if it is not a checkpoint of a model.
    """
    content = read_file(path)
    missing = [name for name in ("state_dict", "hyper_parameters") if not isinstance(content.get(name), dict)]
    if missing:
        raise CheckpointError(f"{path} is not a checkpoint of a model: it has no {' and no '.join(missing)}")
    return content


def _compare_checksums(path: Path) -> None:
    """Reads all members of a zip file.

    Raises:
        OSError: if the file cannot be read.
        CheckpointError: if it is not a zip file, is damaged, or is compressed, which PyTorch never does.
    """
    if not zipfile.is_zipfile(path):
        path.open("rb").close()  # raises if the file may not be read
        raise CheckpointError(f"{path} is not a checkpoint: it is cut off, or of another kind. Give a whole one")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise CheckpointError(f"{path} is not a checkpoint: PyTorch writes no compressed files")
            for member in members:
                with archive.open(member) as file:
                    while file.read(_BLOCK):
                        pass
    except OSError:
        raise
    except CheckpointError:
        raise
    except Exception as error:  # zipfile raises errors of any class on damaged bytes
        raise CheckpointError(
            f"{path} is damaged ({error}). Restore a copy of it, or use another checkpoint"
        ) from error
