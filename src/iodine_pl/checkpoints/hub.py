"""Downloads checkpoints from the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from lightning_utilities.core.rank_zero import rank_zero_info

from iodine_pl.files.download import DownloadError

__all__ = ["SCHEME", "at_hub"]

SCHEME = "hf://"
_ADDRESS = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)/(?P<file>[^@#?]+)(?:@(?P<revision>[^@#?]+))?")


def at_hub(address: str) -> Path:
    """Downloads a file of a model repository, once, to the cache of huggingface_hub (``$HF_HOME``).

    If the revision is a commit, the file is always the same, and no network is needed after the first download. A tag
    or a branch is looked up each time. Without a revision the newest commit of the main branch is taken, and a message
    names it.

    Args:
        address: ``hf://OWNER/REPOSITORY/FILE@REVISION``. The file may be in folders; the revision is a commit, a tag or
            a branch, and may be left out.

    Raises:
        ValueError: if it is not of this form.
        ImportError: if huggingface_hub is not installed. The message is one line that names the extra.
        DownloadError: if the hub does not send the file.
    """
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise ValueError(f"{address} is no file at the hub: write hf://OWNER/REPOSITORY/FILE@REVISION")
    try:
        from huggingface_hub import hf_hub_download
    except ModuleNotFoundError as error:
        raise ImportError(f'{address} needs huggingface_hub: pip install "iodine-pl[hub]"') from error
    try:
        path = Path(hf_hub_download(parts["repository"], parts["file"], revision=parts["revision"]))
    except Exception as error:  # its classes differ between releases, and all are about this download
        said = " ".join(str(error).split())
        raise DownloadError(
            f"{address}: the hub does not give this file ({said}). Check owner, repository, file and revision, and for "
            "a private repository the login"
        ) from error
    if parts["revision"] is None:
        commit = path.parts[path.parts.index("snapshots") + 1]
        rank_zero_info(
            f"{address} names no revision: this is the file of commit {commit}, the newest. {address}@{commit} will "
            "always be this one."
        )
    return path
