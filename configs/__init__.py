"""The configurations that come with the package; ``--config quickstart`` finds one of them from any folder."""

from __future__ import annotations

from pathlib import Path

__all__ = ["FOLDER", "available", "find_configuration"]

FOLDER = Path(__file__).parent


def available() -> tuple[str, ...]:
    """Returns the names of the configurations that come with the package, such as ``experiments/segmentation``."""
    return tuple(sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml")))


def find_configuration(wanted: str) -> Path:
    """Returns the path of a configuration, given by a path or by the name of one that comes with the package.

    Raises:
        FileNotFoundError: if it is neither.
    """
    if Path(wanted).is_file():
        return Path(wanted)
    if wanted in available():
        return FOLDER / f"{wanted}.yaml"
    raise FileNotFoundError(f"there is no configuration {wanted}: give a file, or one of {', '.join(available())}")
