"""Writes the page of a run: configuration, curves, slots over the refinement steps, experiments."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image

from iodine_pl.checkpoints.classes import make_data
from iodine_pl.checkpoints.configuration import read_configuration
from iodine_pl.checkpoints.finding import find_weights, run_of
from iodine_pl.checkpoints.loading import load_model
from iodine_pl.checkpoints.reading import read_checkpoint
from iodine_pl.evaluation.extra import require_experiments
from iodine_pl.evaluation.panels import COLUMNS, slot_panel
from iodine_pl.files.atomic import written_beside
from iodine_pl.scene_model import SceneModel

__all__ = ["write_report"]

_CURVES = (
    "val/ari_fg",
    "val/ari_fg_responsibilities",
    "val/miou",
    "val/mbo",
    "val/elbo",
    "val/mse",
    "val/kl",
    "train/loss",
    "val/mask_entropy",
    "val/slots_used",
)


def write_report(
    source: str | Path, out: str | Path | None = None, config: str | Path | None = None, num_images: int = 6
) -> Path:
    """Writes the page of a run or of a checkpoint.

    Args:
        source: folder of a run (``runs/NAME/version_N``; its best checkpoint is shown, else its last, else the one that
            was tested there), or a checkpoint (path, ``last``, ``best``, shipped name or address).
        out: the file; None: ``report.html`` in the run's folder. For a checkpoint in no run: beside it, or in the
            current folder if the checkpoint was given by name or address.
        config: configuration that says what the data are; None: the run's own, or those that the checkpoint names.
        num_images: test images that are shown.

    Returns:
        The file.

    Raises:
        FileNotFoundError: if there is no such run or checkpoint, or no configuration.
        ValueError, TypeError: if an address has no digest, a file is damaged or cut off, or it names a class that is
            neither of this package nor imported.
        DownloadError: if the server does not send the file that has this digest.
    """
    if Path(source).is_dir():
        run: Path | None = Path(source)
        kept = [Path(source) / "checkpoints" / f"{name}.ckpt" for name in ("best", "last")]
        checkpoint = next((path for path in kept if path.is_file()), None) or _tested(Path(source))
        if checkpoint is None:
            raise FileNotFoundError(f"{source} has no checkpoints/best.ckpt or last.ckpt: it is no folder of a run")
    else:
        checkpoint = find_weights(source)
        run = run_of(checkpoint)
    model = load_model(checkpoint)
    content = read_checkpoint(checkpoint)
    settings, file = _settings(checkpoint, content, run, config)
    step = int(content.get("global_step", 0))
    sections = {
        "Slots": _slots(model, make_data(settings, file), num_images),
        "Curves": _curves(run) if run is not None else "",
        **(_experiments(run / "experiments") if run is not None else {}),
        "Configuration": f"<pre>{escape(yaml.safe_dump(_given(settings), sort_keys=False))}</pre>",
    }
    sections = {name: content for name, content in sections.items() if content}
    weights = sum(p.numel() for p in model.parameters())
    page = Template(resources.files("iodine_pl.report").joinpath("page.html").read_text(encoding="utf-8")).substitute(
        title=escape(str(run or checkpoint)),
        subtitle=f"{type(model).__name__}, {weights:,} parameters, {escape(checkpoint.name)} after {step:,} updates",
        links="".join(f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name in sections),
        sections="\n".join(
            f'<section id="{_anchor(name)}"><h2>{escape(name)}</h2>\n{content}</section>'
            for name, content in sections.items()
        ),
    )
    beside = checkpoint.parent if checkpoint == Path(source) else Path()
    target = Path(out) if out is not None else run / "report.html" if run else beside / f"{checkpoint.stem}.html"
    with written_beside(target) as partial:
        partial.write_text(page, encoding="utf-8")
    return target


def _tested(run: Path) -> Path | None:
    """Returns the checkpoint that the command of a run without training was given; None if there was none."""
    file = run / "config.yaml"
    wanted = read_configuration(file).get("ckpt_path") if file.is_file() else None
    return find_weights(wanted) if wanted else None


def _anchor(name: str) -> str:
    return escape(name.lower().replace(" ", "-"))


def _settings(
    checkpoint: Path, content: Mapping[str, Any], run: Path | None, config: str | Path | None
) -> tuple[dict[str, Any], Path]:
    """Returns settings that name the data, and the file that they are from."""
    file = Path(config) if config is not None else run and run / "config.yaml"
    if file is None and "data" in content:
        return {"data": content["data"]}, checkpoint
    if not file or not file.is_file():
        raise FileNotFoundError(
            f"{checkpoint} does not say what its data are: give --config FILE, such as configs/tetrominoes.yaml"
        )
    settings = read_configuration(file)
    if "data" not in settings:
        raise FileNotFoundError(f"{file} has no data: give --config with a file that names them")
    return settings, file


def _given(settings: Any) -> Any:
    """Leaves out what a configuration leaves to its default."""
    if isinstance(settings, dict):
        return {name: _given(value) for name, value in settings.items() if value is not None}
    return settings


def _slots(model: SceneModel, datamodule: Any, num_images: int) -> str:
    """Shows the slots of some test images, with a slider over the refinement steps.

    The noise is keyed by the images' index, so the last step is what the test scores of this checkpoint counted.
    """
    datamodule.prepare_data()
    datamodule.setup("test")
    batch = datamodule.scenes(datamodule.splits["test"][:num_images])
    with torch.no_grad():
        steps = model.decompose(batch, return_steps=True).steps
    images = batch["image"]
    frames = [images] * len(steps) if images.ndim == 4 else images.unbind(dim=1)  # a sequence has one for each step
    panels = [_png(slot_panel(frame, step)) for frame, step in zip(frames, steps, strict=True)]
    last = len(panels) - 1
    return (
        f"<p>Each row is a test image: {COLUMNS}."
        f'</p>\n<div data-steps><label>Refinement step <input type="range" min="0" max="{last}" value="{last}"> '
        f'<output>{last}</output> of {last}</label>\n<p><img alt="slots at the chosen refinement step"></p>\n'
        f'<script type="application/json">{json.dumps(panels)}</script></div>'
    )


def _curves(run: Path) -> str:
    """Draws the scalars of a run's event files."""
    require_experiments("a report's curves", "matplotlib")
    from matplotlib.figure import Figure
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    points: dict[str, dict[int, float]] = {}
    for file in sorted(run.glob("events.out.tfevents.*")):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0})
        events.Reload()
        for name in set(_CURVES) & set(events.Tags()["scalars"]):
            points.setdefault(name, {}).update({event.step: event.value for event in events.Scalars(name)})
    names = [name for name in _CURVES if name in points]
    if not names:
        return ""
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(4.0 * columns, 2.6 * lines), layout="constrained")
    for axes, name in zip(figure.subplots(lines, columns, squeeze=False).flat, names, strict=False):
        steps = sorted(points[name])
        values = [points[name][step] for step in steps]
        axes.plot(steps, values, linewidth=1, marker="." if len(steps) < 40 else None)
        axes.set_title(name, fontsize="medium")
        axes.set_xlabel("updates")
        axes.grid(alpha=0.3)
        finite = np.asarray(values)[np.isfinite(values)]
        if len(finite) > 10:  # the first losses are far above all others
            low, high = np.quantile(finite, [0.0, 0.97] if "loss" in name or "mse" in name else [0.03, 1.0])
            axes.set_ylim(low - 0.05 * (high - low) - 1e-9, high + 0.05 * (high - low) + 1e-9)
    for axes in figure.axes[len(names) :]:
        axes.remove()
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg")
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]


def _experiments(folder: Path) -> dict[str, str]:
    """Shows the table and the pictures of each experiment that the run has.

    Raises:
        ValueError: if a JSON file lists no pictures.
        OSError: if a picture that it lists cannot be read.
    """
    found = {}
    for file in sorted(folder.glob("*.json")):
        content = json.loads(file.read_text())
        if "pictures" not in content:
            raise ValueError(f"{file} has no list of its pictures: run the experiment again, or move the file away")
        about = f"{content['images']} images of {content['data']}, {content['model']}, {content['checkpoint']}"
        images = "\n".join(
            f'<figure><img src="{_as_uri(_beside(file, picture["file"]))}" alt="{escape(picture["name"])}">'
            f'<figcaption class="quiet">{escape(picture["caption"])}</figcaption></figure>'
            for picture in content["pictures"]
        )
        title = file.stem.replace("_", " ").capitalize()
        found[title] = f'<p class="quiet">{escape(about)}</p>\n{_table(content["table"])}\n{images}'
    return found


def _beside(file: Path, name: str) -> bytes:
    """Returns the content of a picture that a JSON file lists: no other folder's may get into the page."""
    return (file.parent / Path(name).name).read_bytes()


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    def cell(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else escape(str(value))

    head = "".join(f"<th>{escape(str(name))}" for name in rows[0]) if rows else ""
    body = "\n".join("<tr>" + "".join(f"<td>{cell(value)}" for value in row.values()) for row in rows)
    return f"<table>\n<tr>{head}\n{body}\n</table>"


def _png(picture: NDArray[np.uint8]) -> str:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "png", optimize=True)
    return _as_uri(data.getvalue())


def _as_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
