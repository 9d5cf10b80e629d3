"""What an experiment leaves: a table, pictures and numbers."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger

__all__ = ["Outcome", "Picture", "Row", "as_text"]

Picture = Figure | NDArray[np.uint8]
"""A figure, or an image (H, W, 3)."""

Row = Mapping[str, Any]
"""One line of a table: what stands in each column."""


class Outcome(NamedTuple):
    """Holds what an experiment found."""

    table: Sequence[Row]
    """Lines to be printed, all with the same columns."""
    pictures: Mapping[str, Picture]
    """By name; under the empty name the one that shows most."""
    numbers: Mapping[str, Any]
    """All that the pictures were drawn from, as lists and numbers."""

    def write(self, folder: Path, name: str, trainer: pl.Trainer, about: Mapping[str, Any]) -> list[Path]:
        """Writes ``NAME.json``, ``NAME.csv`` (the table) and ``NAME*.png`` to ``folder``, each whole or not at all;
        TensorBoard gets table and pictures too.

        Args:
            folder: made if it is not there.
            name: of the experiment.
            trainer: whose loggers are told.
            about: what the numbers are of; stands at the head of the JSON file.

        Returns:
            The files.
        """
        folder.mkdir(parents=True, exist_ok=True)
        content = {"experiment": name, **about, "table": list(self.table), **self.numbers}
        files = [
            _write(folder / f"{name}.json", lambda path: path.write_text(json.dumps(content, indent=1) + "\n")),
            _write(folder / f"{name}.csv", lambda path: path.write_text(_as_csv(self.table))),
        ]
        pictures = {"_".join(filter(None, (name, part))): drawn(x) for part, x in self.pictures.items()}
        for title, picture in pictures.items():
            files.append(_write(folder / f"{title}.png", Image.fromarray(picture).save))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text(f"experiments/{name}", as_text(self.table), trainer.global_step)
                for title, picture in pictures.items():
                    logger.experiment.add_image(f"experiments/{title}", picture, trainer.global_step, dataformats="HWC")
        return files


def _write(path: Path, write: Callable[[Path], Any]) -> Path:
    beside = path.with_name(f".{path.stem}.part{path.suffix}")
    write(beside)
    os.replace(beside, path)
    return path


def drawn(picture: Picture) -> NDArray[np.uint8]:
    """Draws a figure: ``(H, W, 3)`` uint8."""
    if isinstance(picture, np.ndarray):
        return picture
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(picture)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return pixels[..., :3].copy()


def as_text(table: Sequence[Row]) -> str:
    """Lays a table out in Markdown, its columns aligned."""
    lines = [list(table[0]), *([_shown(value) for value in row.values()] for row in table)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _as_csv(table: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()
