"""The folders of runs, ``runs/NAME/version_N``, and the checkpoints in them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["RUNS", "find_checkpoint", "run_of"]

RUNS = Path("runs")
_ALIASES = ("last", "best")


def run_of(checkpoint: Path) -> Path | None:
    """Returns the folder of the run that wrote a checkpoint, or None if it does not lie in one."""
    run = checkpoint.parent.parent
    return run if checkpoint.parent.name == "checkpoints" and (run / "config.yaml").is_file() else None


def find_checkpoint(wanted: str, name: str | None = None) -> Path:
    """Returns the checkpoint that a user means: a path, or ``last`` or ``best`` of the newest run.

    The newest run is the one that saved a checkpoint latest, among those called ``name`` if that is given.

    Raises:
        FileNotFoundError: if there is none; it says which there are.
    """
    if wanted not in _ALIASES:
        path = Path(wanted)
        if not path.is_file():
            raise FileNotFoundError(f"there is no checkpoint {path}")
        return path
    saved = sorted(RUNS.glob(f"{name or '*'}/*/checkpoints/*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    if not saved:
        raise FileNotFoundError(f"there is no checkpoint in any run of {RUNS / (name or '*')}: train first")
    path = saved[-1].with_name(f"{wanted}.ckpt")
    if not path.is_file():
        there = ", ".join(sorted(other.name for other in path.parent.glob("*.ckpt")))
        raise FileNotFoundError(f"the newest run, {path.parent.parent}, has no {path.name} yet, only {there}")
    return path
