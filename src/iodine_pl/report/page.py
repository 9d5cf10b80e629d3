"""Writes the page of a run, or of two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml
from jinja2 import Environment, FunctionLoader, StrictUndefined

from iodine_pl import __version__
from iodine_pl.checkpoints.classes import make_data
from iodine_pl.files.atomic import written_beside
from iodine_pl.report.curves import charts_of
from iodine_pl.report.experiments import experiments_of, shown
from iodine_pl.report.run import Run, facts_of, find_run, given
from iodine_pl.report.scores import scores_of, with_interval
from iodine_pl.report.slots import steps_of
from iodine_pl.report.traversals import traversals_of

__all__ = ["write_report"]


def write_report(
    source: str | Path,
    out: str | Path | None = None,
    config: str | Path | None = None,
    num_images: int = 6,
    beside: str | Path | None = None,
    num_scored: int = 64,
) -> Path:
    """Writes the page of a run or of a checkpoint, or of two.

    The scores are those of the experiment ``segmentation`` if it was run with this checkpoint, else those of some test
    images. The page is self-contained.

    Args:
        source: folder of a run (``runs/NAME/version_N``; its best checkpoint is shown, else its last, else the one that
            was tested there), or a checkpoint (path, ``last``, ``best``, shipped name or address).
        out: the file; None: ``report.html`` in the run's folder, ``comparison.html`` for two. For a checkpoint outside
            of a run, the file is beside it, or in the current folder if the checkpoint was given by name or address.
        config: configuration that names the data, or the name of one that comes with the package; None: the run's own,
            or the data that the checkpoint names.
        num_images: number of test images to show.
        beside: another run or checkpoint, to compare with.
        num_scored: number of test images to score.

    Returns:
        The file.

    Raises:
        FileNotFoundError: if there is no such run or checkpoint, or no configuration.
        ValueError, TypeError: if an address has no digest, a file is damaged or cut off, or it names a class that is
            neither of this package nor imported.
        DownloadError: if the server does not send the file that has this digest.
    """
    runs = [find_run(each, config) for each in (source, beside) if each is not None]
    parts = [_parts(run, num_images, num_scored) for run in runs]
    experiments = [experiments_of(run.folder) if run.folder is not None else {} for run in runs]
    page = (
        _environment()
        .get_template("page.html")
        .render(
            version=__version__,
            title=" and ".join(run.title for run in runs),
            names=[run.title for run in runs],
            facts={name: facts for name, facts in _joined([facts_of(run) for run in runs]).items() if any(facts)},
            scores=_joined([part["scores"] for part in parts]),
            images=[part["images"] for part in parts],
            charts=charts_of([run.events for run in runs]),
            slots=[part["slots"] for part in parts],
            traversals=[part["traversals"] for part in parts],
            experiments=_joined(experiments),
            differences=_differences(runs),
            settings=[yaml.safe_dump(given(run.settings), sort_keys=False) for run in runs],
        )
    )
    target = Path(out) if out is not None else _target(source, runs)
    with written_beside(target) as partial:
        partial.write_text(page, encoding="utf-8")
    return target


def _environment() -> Environment:
    folder = resources.files("iodine_pl.report")
    environment = Environment(
        loader=FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    return environment


def _target(source: str | Path, runs: Sequence[Run]) -> Path:
    run = runs[0]
    if run.folder is not None:
        return run.folder / ("report.html" if len(runs) == 1 else "comparison.html")
    folder = run.checkpoint.parent if run.checkpoint == Path(source) else Path()
    return folder / f"{run.checkpoint.stem}.html"


def _parts(run: Run, num_images: int, num_scored: int) -> dict[str, Any]:
    """Decomposes test images.

    The noise is keyed by the images' index, so these are the decompositions that the test of this checkpoint scored.
    """
    data = make_data(run.settings, run.file)
    data.only_evaluates = True
    data.prepare_data()
    data.setup("test")
    batch = data.scenes(data.splits["test"][:num_images])
    with torch.no_grad():
        result = run.model.decompose(batch, return_steps=True)
    scores = scores_of(run, data, num_scored)
    return {
        "images": scores.images,
        "scores": {name: with_interval(*score) for name, score in scores.table.items()},
        "slots": steps_of(batch, result),
        "traversals": traversals_of(run.model, batch, result),
    }


def _joined(tables: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Returns name -> the value in each of the tables, None where it is missing."""
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: [table.get(name) for table in tables] for name in names}


def _differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Returns setting -> its value in each run, for the settings that differ."""
    if len(runs) < 2:
        return {}
    joined = _joined([_flat(given(run.settings)) for run in runs])
    return {name: values for name, values in joined.items() if values[0] != values[1]}


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(settings, dict):
        return {prefix: settings}
    inner: dict[str, Any] = {}
    for name, value in settings.items():
        below = prefix if name == "init_args" else f"{prefix}.{name}" if prefix else str(name)
        inner |= _flat(value, below)
    return inner
