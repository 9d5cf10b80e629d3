"""Makes a folder that is ready to upload: weights, their card, and a page that describes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from iodine_pl import pretrained
from iodine_pl.checkpoints.exporting import export_weights
from iodine_pl.checkpoints.finding import find_weights
from iodine_pl.checkpoints.loading import DEFAULT_CLASS, class_path_of
from iodine_pl.checkpoints.reading import read_checkpoint
from iodine_pl.files.atomic import folder_written_beside
from iodine_pl.files.download import sha256_of

__all__ = ["Published", "publish"]


class Published(NamedTuple):
    """Describes a published folder."""

    weights: Path
    card: Path
    page: Path
    updates: int
    """Number of updates that the weights were trained for."""
    sha256: str
    """SHA-256 of the weights."""


def publish(wanted: str | Path, folder: Path) -> Published:
    """Writes a folder with weights ``NAME.ckpt``, their card ``NAME.yaml`` and ``README.md``; NAME is the folder's.

    The card is the YAML file of the checkpoint's name beside it, as for the weights that come with the package. If it
    is missing, a card is made from the checkpoint: model, data, seed, updates, and the score that made it the best.

    Args:
        wanted: path, ``last``, ``best``, name or address, see :func:`iodine_pl.checkpoints.finding.find_weights`.
        folder: the folder to make.

    Raises:
        FileExistsError: if the folder already exists.
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if the file is not a checkpoint of a model, the file beside it is not a card, or an address has no
            digest.
        DownloadError: if it cannot be downloaded.
    """
    path, name = find_weights(wanted), folder.resolve().name
    content = read_checkpoint(path)
    beside = path.with_suffix(".yaml")
    card = beside.read_text() if beside.is_file() else yaml.safe_dump(_card_of(content, path), sort_keys=False)
    facts = yaml.safe_load(card)
    if not isinstance(facts, Mapping) or not isinstance(facts.get("data", ""), str):  # perhaps a configuration
        raise ValueError(
            f"{beside} is not a card of weights: move it away, or write one like those in {pretrained.FOLDER}"
        )
    with folder_written_beside(folder) as partial:
        weights = partial / f"{name}.ckpt"
        updates = export_weights(path, weights)
        digest = sha256_of(weights)
        (partial / f"{name}.yaml").write_text(card)
        (partial / "README.md").write_text(_page(name, content, facts, digest))
    return Published(folder / f"{name}.ckpt", folder / f"{name}.yaml", folder / "README.md", updates, digest)


def _card_of(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Returns a card made from a checkpoint."""
    card: dict[str, Any] = {}
    data = content.get("data")
    if data:
        given = {name: value for name, value in data.get("init_args", {}).items() if value is not None}
        arguments = ", ".join(f"{name}={value}" for name, value in given.items())
        card["data"] = f"{data['class_path'].rsplit('.', 1)[-1]}({arguments})"
    card["updates"] = int(content.get("global_step", 0))
    card["seed"] = content["hyper_parameters"].get("seed", 0)
    for state in content.get("callbacks", {}).values():
        score = state.get("best_model_score") if isinstance(state, Mapping) else None
        if score is not None and Path(state["best_model_path"]).name == path.name:  # not that of another checkpoint
            card["validation"] = {state["monitor"].removeprefix("val/"): round(float(score), 4)}
    return card


def _page(name: str, content: Mapping[str, Any], card: Mapping[str, Any], digest: str) -> str:
    """Returns the text of ``README.md``."""
    class_path = class_path_of(content)
    weights = sum(x.numel() for x in content["state_dict"].values())
    facts = {
        "model": f"`{class_path}`, {weights:,} weights",
        "trained on": card.get("data", "not known"),
        "updates": f"{card['updates']:,}" if "updates" in card else None,
        "images seen": f"{card['images']:,}" if "images" in card else None,
        "seed": card.get("seed"),
        "hardware": card.get("hardware"),
        "weak": card.get("weak"),
    }
    for part in ("test", "validation"):
        facts |= {f"{part}: {score}": value for score, value in (card.get(part) or {}).items()}
    rows = "\n".join(f"| {fact} | {value} |" for fact, value in facts.items() if value is not None)
    own = class_path == DEFAULT_CLASS
    imported = "from iodine_pl import IODINE" if own else "from iodine_pl.checkpoints.loading import load_model"
    function = "IODINE.from_pretrained" if own else "load_model"
    channels = content["hyper_parameters"].get("image_channels", 3)
    return f"""---
library_name: iodine-pl
tags: [object-centric-learning, image-segmentation, iodine]
---

# {name}

Weights for iodine-pl, which is [IODINE](https://arxiv.org/abs/1903.00450) for PyTorch Lightning. The model splits an
image into objects and describes each by a latent vector. It was trained without labels.

| | |
|---|---|
{rows}

These facts are from the card `{name}.yaml`.

```python
import torch
{imported}

model = {function}("{name}.ckpt")  # or "hf://OWNER/REPOSITORY/{name}.ckpt@REVISION"
images = torch.rand(1, {channels}, 64, 64)  # yours: float in [0, 1] or uint8, best of the size it was trained on
masks = model(images).masks  # (B, K, H, W)
```

SHA-256 of `{name}.ckpt`, for an address `https://.../{name}.ckpt#sha256=...`:

```
{digest}
```
"""
