"""Commands about trained models: ``convert``, ``export`` and ``report``."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from iodine_pl.checkpoints.exporting import export_weights
from iodine_pl.checkpoints.publishing import publish
from iodine_pl.checkpoints.writing import write_checkpoint
from iodine_pl.errors import require
from iodine_pl.files.atomic import move_into_place
from iodine_pl.files.download import DownloadError, download_zip, sha256_of
from iodine_pl.iodine import IODINE
from iodine_pl.official.reading import read_official
from iodine_pl.report.page import write_report

__all__ = ["convert", "export", "report"]


def convert(source: str, *, out: Path, folder: str | None = None, num_slots: int | None = None) -> None:
    """Converts a checkpoint of DeepMind's released IODINE to one of Lightning.

    Args:
        source: a checkpoint (its path without .index), a folder, a zip file, or the address of a zip file.
        out: the checkpoint to write, such as clevr6.ckpt.
        folder: which folder to take if the source has several, such as clevr6.
        num_slots: K; that of the released network by default.
    """
    if out.exists():
        raise FileExistsError(f"{out} is there already: delete it, or name another file by --out")
    arguments = {} if num_slots is None else {"num_slots": num_slots}
    official = read_official(_fetch(source, out.parent) if "://" in source else source, folder, **arguments)
    model = IODINE(**official.arguments)
    model.load_state_dict(official.parameters)
    write_checkpoint(model, out, official.step, official.moments)
    print(official.describe())
    print(f"Wrote {out}")


def _fetch(url: str, folder: Path) -> Path:
    """Downloads a zip file once and keeps it for its other checkpoints."""
    name = PurePosixPath(urlsplit(url).path).name
    if name in ("", ".."):
        raise DownloadError(f"{url} names no file: give the address of the zip file itself")
    target = folder / name
    if target.exists():
        print(f"{target} is there already")
        return target
    kept = target.with_name(f"{target.name}.part")
    download_zip(url, kept)
    move_into_place(kept, target)
    return target


def export(checkpoint: str, *, out: Path | None = None, to: Path | None = None) -> None:
    """Exports the weights of a checkpoint, to share them.

    Args:
        checkpoint: path, last or best of the newest run, a shipped name, or an address (https://...#sha256=HEX,
            hf://OWNER/REPOSITORY/FILE@REVISION).
        out: the file to write, such as mine.ckpt.
        to: instead of --out, a folder to make, ready to upload: the weights, their card and a README.md.
    """
    if (out is None) == (to is None):
        raise ValueError("export needs either --out FILE or --to FOLDER")
    if to is not None:
        folder = publish(checkpoint, to)
        weights, updates, digest = folder.weights, folder.updates, folder.sha256
        print(f"Wrote {folder.page}\nWrote {folder.card}")
    else:
        assert out is not None
        weights, updates = out, export_weights(checkpoint, out)
        digest = sha256_of(out)
    print(f"Wrote {weights}: {weights.stat().st_size / 1e6:.1f} MB, after {updates:,} updates\nsha256 {digest}")


def report(runs: list[str], out: Path | None = None, config: Path | None = None, images: int = 6) -> None:
    """Writes one self-contained HTML page about a run or a checkpoint, or about two.

    Args:
        runs: folder of a run, such as runs/quickstart/version_0, or a checkpoint; two are shown side by side.
        out: the file; report.html in the run's folder by default, comparison.html for two.
        config: configuration that names the data, or the name of a shipped one; by default that of the run.
        images: number of test images to show.
    """
    if len(runs) > 2:
        raise ValueError(f"a report is of one run or of two, got {len(runs)}")
    require("at least 1", images=images)
    other = runs[1] if len(runs) == 2 else None
    print(f"Wrote {write_report(runs[0], out, config, images, other)}")
