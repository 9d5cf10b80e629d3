"""The facts about a run or a checkpoint in its report: identity, training and settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from iodine_pl.checkpoints.configuration import read_configuration
from iodine_pl.checkpoints.finding import find_weights, run_of
from iodine_pl.checkpoints.loading import OF_READING, model_in
from iodine_pl.checkpoints.reading import read_checkpoint
from iodine_pl.configs import find_configuration
from iodine_pl.report.curves import Events, read_events
from iodine_pl.scene_model import SceneModel

__all__ = ["Run", "facts_of", "find_run", "given"]

_NOT_OF_IMAGES = ("batch_size", "data_dir", "generated_seed", *OF_READING)


class Run(NamedTuple):
    """Holds a checkpoint and the facts about it."""

    title: str
    checkpoint: Path
    folder: Path | None
    """Folder of its run."""
    content: Mapping[str, Any]
    """Content of the checkpoint."""
    card: Mapping[str, Any]
    """Card of exported weights; empty if there is none."""
    settings: dict[str, Any]
    """Settings that name the data."""
    file: Path
    """The file with these settings."""
    model: SceneModel
    events: Events


def find_run(source: str | Path, config: str | Path | None) -> Run:
    """Finds and loads a run or a checkpoint; arguments and errors are those of ``write_report``."""
    if Path(source).is_dir():
        folder: Path | None = Path(source)
        kept = [Path(source) / "checkpoints" / f"{name}.ckpt" for name in ("best", "last")]
        checkpoint = next((path for path in kept if path.is_file()), None) or _tested(Path(source))
        if checkpoint is None:
            raise FileNotFoundError(f"{source} has no checkpoints/best.ckpt or last.ckpt: it is no folder of a run")
    else:
        checkpoint = find_weights(source)
        folder = run_of(checkpoint)
    model = model_in(checkpoint, SceneModel)  # type: ignore[type-abstract]
    content = read_checkpoint(checkpoint)
    settings, file = _settings(checkpoint, content, folder, config)
    card = {} if folder is not None else _card(checkpoint)
    events = read_events(folder) if folder is not None else Events({}, 0.0, None)
    return Run(str(folder or source), checkpoint, folder, content, card, settings, file, model, events)


def _tested(run: Path) -> Path | None:
    """Returns the checkpoint given to the command of a run without training; None if there was none."""
    file = run / "config.yaml"
    wanted = read_configuration(file).get("ckpt_path") if file.is_file() else None
    return find_weights(wanted) if wanted else None


def _settings(
    checkpoint: Path, content: Mapping[str, Any], run: Path | None, config: str | Path | None
) -> tuple[dict[str, Any], Path]:
    """Returns settings that name the data, and their file."""
    file = find_configuration(str(config)) if config is not None else run and run / "config.yaml"
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


def _card(checkpoint: Path) -> Mapping[str, Any]:
    file = checkpoint.with_suffix(".yaml")
    card = yaml.safe_load(file.read_text()) if file.is_file() else None
    return card if isinstance(card, Mapping) and "updates" in card else {}


def facts_of(run: Run) -> dict[str, str]:
    """Returns the facts about the training of a run, by name, in the order of the page; "" for unknown ones."""
    arguments, origin = run.content.get("hyper_parameters", {}), run.content.get("origin", {})
    data = run.settings["data"]
    inner = data.get("init_args") or {}
    named = ", ".join(f"{name}={value}" for name, value in given(inner).items() if name not in _NOT_OF_IMAGES)
    seconds = run.events.seconds or run.card.get("seconds", 0.0)
    seed = run.settings.get("seed_everything", run.card.get("seed", arguments.get("seed")))
    seeds = [f"{seed} of training" if seed is not None else ""]
    if inner.get("path") is None and "generated_seed" in inner:
        seeds.append(f"{inner['generated_seed']} of the generated data")
    facts = {
        "model": _model(run.model),
        "data": run.card.get("data") or f"{str(data['class_path']).rsplit('.', 1)[-1]}({named})",
        "training": _training(run, arguments.get("batch_size")),
        "duration": f"{_duration(seconds)} of training and validation" if seconds else "",
        "speed": f"{run.events.speed:,.0f} images per second" if run.events.speed else "",
        "seeds": ", ".join(filter(None, seeds)),
        "hardware": origin.get("hardware") or run.card.get("hardware", ""),
        "versions": origin.get("versions") or _version_of_lightning(run.content),
        "commit": origin.get("commit", ""),
        "weak": run.card.get("weak", ""),
        "written by": origin.get("command", ""),
        "repeated by": _repeated(run),
    }
    return {name: str(fact).strip() for name, fact in facts.items()}


def _repeated(run: Run) -> str:
    if run.folder is not None and (run.folder / "checkpoints").is_dir():
        return f"iodine fit --config {shlex.quote(str(run.folder / 'config.yaml'))}"
    return str(run.card.get("command", ""))


def _model(model: SceneModel) -> str:
    words = [f"{type(model).__name__}, {sum(p.numel() for p in model.parameters()):,} parameters"]
    words += [f"K = {model.num_slots} slots"] if hasattr(model, "num_slots") else []
    steps = model.num_iterations
    if steps:
        tested = model.evaluation_iterations
        words.append(f"T = {steps} steps" + (f", {tested} in evaluation" if tested not in (None, steps) else ""))
    return ", ".join(words)


def _training(run: Run, batch_size: Any) -> str:
    updates = run.content.get("global_step") or run.card.get("updates", 0)
    each = f" of {batch_size} images per device" if batch_size else ""
    return f"{run.checkpoint.name}, after {int(updates):,} updates{each}"


def _version_of_lightning(content: Mapping[str, Any]) -> str:
    version = content.get("pytorch-lightning_version")
    return f"lightning {version}" if version else ""


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def given(settings: Any) -> Any:
    """Leaves out the settings that a configuration leaves at their default."""
    if isinstance(settings, dict):
        return {name: given(value) for name, value in settings.items() if value is not None}
    return settings
