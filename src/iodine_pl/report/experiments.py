"""The tables and pictures of a run's experiments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from iodine_pl.report.pictures import packed

__all__ = ["experiments_of", "shown"]

_BUDGET = 150_000  # bytes for a picture


def experiments_of(run: Path) -> dict[str, dict[str, Any]]:
    """Returns for each experiment, by its title, the text ``about``, the ``table``, and the ``pictures``, each with
    address, name and caption.

    Raises:
        ValueError: if a JSON file lists no pictures.
        OSError: if a listed picture cannot be read.
    """
    found = {}
    for file in sorted((run / "experiments").glob("*.json")):
        content = json.loads(file.read_text())
        if "pictures" not in content:
            raise ValueError(f"{file} has no list of its pictures: run the experiment again, or move the file away")
        found[file.stem.replace("_", " ").capitalize()] = {
            "about": f"{content['images']} images of {content['data']}, {content['model']}, {content['checkpoint']}",
            "table": content["table"],
            "pictures": [
                picture | {"address": packed(_beside(file, picture["file"]), _BUDGET)}
                for picture in content["pictures"]
            ],
        }
    return found


def shown(value: Any) -> str:
    """Returns the text of a table's cell."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _beside(file: Path, name: str) -> bytes:
    """Returns the content of a picture that a JSON file lists; only pictures of its own folder are allowed."""
    return (file.parent / Path(name).name).read_bytes()
