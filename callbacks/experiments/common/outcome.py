"""The result of an experiment: a table, pictures and numbers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from iodine_pl.callbacks.loggers import log_image, log_table
from iodine_pl.files.atomic import written_beside

__all__ = ["Outcome", "Picture", "Row", "as_text", "drawn"]

Row = Mapping[str, Any]
"""One line of a table: column -> cell."""


class Picture(NamedTuple):
    """Holds a picture and its caption."""

    image: Figure | NDArray[np.uint8]
    """A figure, or an image ``(H, W, 3)``."""
    caption: str
    """A short sentence, for the report."""


class Outcome(NamedTuple):
    """Holds the result of an experiment."""

    table: Sequence[Row]
    """Lines of the table, all with the same columns."""
    pictures: Mapping[str, Picture]
    """Name -> picture: ``steps`` is written to ``NAME_steps.png``, the empty name to ``NAME.png``."""
    numbers: Mapping[str, Any]
    """The data of the pictures, as lists and numbers."""

    def write(self, folder: Path, name: str, trainer: pl.Trainer, about: Mapping[str, Any]) -> list[Path]:
        """Writes ``NAME.json``, ``NAME.csv`` (the table) and ``NAME*.png`` to ``folder``, each atomically. Loggers that
        take images get table and pictures too.

        The JSON file lists ``name``, ``file`` and ``caption`` of each picture under ``pictures``. It is written after
        the pictures, so the files that it names exist.

        Args:
            folder: made if it does not exist.
            name: of the experiment.
            trainer: its loggers get table and pictures.
            about: describes the measurement, at the head of the JSON file.

        Returns:
            The files.
        """
        pictures, listed, files = {}, [], []
        for part, picture in self.pictures.items():
            title = f"{name}_{part}" if part else name
            pictures[title] = drawn(picture.image)
            save = partial(Image.fromarray(pictures[title]).save, format="PNG")
            files.append(_write(folder / f"{title}.png", save))
            listed.append({"name": title, "file": f"{title}.png", "caption": picture.caption})
        content = {"experiment": name, **about, "table": list(self.table), "pictures": listed, **self.numbers}
        files += [
            _write(folder / f"{name}.csv", lambda path: path.write_text(_as_csv(self.table))),
            _write(folder / f"{name}.json", lambda path: path.write_text(json.dumps(content, indent=1) + "\n")),
        ]
        log_table(trainer, f"experiments/{name}", self.table, as_text(self.table))
        for title, image in pictures.items():
            log_image(trainer, f"experiments/{title}", image)
        return files


def _write(path: Path, write: Callable[[Path], Any]) -> Path:
    with written_beside(path) as beside:
        write(beside)
    return path


def drawn(image: Figure | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draws a figure: ``(H, W, 3)`` uint8. An image is returned unchanged."""
    if isinstance(image, np.ndarray):
        return image
    canvas = FigureCanvasAgg(image)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return pixels[..., :3].copy()


def as_text(table: Sequence[Row]) -> str:
    """Formats a table in Markdown, with aligned columns."""
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
