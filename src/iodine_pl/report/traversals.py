"""Scenes decoded in advance with one latent at other values, for the page's slider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from iodine_pl.decoder import SpatialBroadcastDecoder
from iodine_pl.evaluation.order import slot_order
from iodine_pl.evaluation.traversal import kl_of_latents
from iodine_pl.report.pictures import atlas, packed
from iodine_pl.report.slots import heads_of
from iodine_pl.result import Decomposition
from iodine_pl.scene_model import SceneModel

__all__ = ["traversals_of"]

_BUDGET = 700_000  # bytes
_LATENTS, _VALUES, _WIDTH = 8, 13, 3.0  # the latents of a slot with the largest KL; standard deviations of the prior
_SIDE = 64  # pixels; larger scenes are shown smaller
_AT_ONCE = 64  # scenes


def traversals_of(model: SceneModel, batch: Mapping[str, Any], result: Decomposition) -> dict[str, Any] | None:
    """Returns the page's data for changing a latent; None if the model does not decode each slot independently.

    All other latents are at the posterior's mean.

    Returns:
        ``height``, ``width``: of a tile; ``values``: in standard deviations of the prior; ``thumbs``: a picture with a
        row of tiles for each image, which is the image, its reconstruction and each slot on white; ``scenes``: for each
        image ``frames``, a picture with a row for each latent of each slot and a tile for each value, and ``slots``:
        name, colors and ``latents``, each with its number, its KL and its posterior mean.
    """
    decoder = getattr(model, "decoder", None)
    if not isinstance(decoder, SpatialBroadcastDecoder):
        return None
    height, width = result.reconstruction.shape[-2:]
    factor = -(-max(height, width) // _SIDE)
    images = batch["image"] if batch["image"].ndim == 4 else batch["image"][:, -1]
    count = min(len(images), 4 if factor == 1 else 2)
    scale = float(model.prior_scale)  # type: ignore[arg-type]
    values = torch.linspace(-_WIDTH, _WIDTH, _VALUES)
    scenes, thumbs = [], []
    for i in range(count):
        order = slot_order(result.masks[i], _label(batch, i))
        scene = Scene(model, result.mean[i, order.slots], (height, width))
        kl = kl_of_latents(result.mean[i, order.slots], result.std[i, order.slots], scale)  # (K, D)
        chosen = kl.argsort(dim=1, descending=True)[:, :_LATENTS]
        frames = torch.stack([scene.traverse(k, int(z), values * scale) for k, row in enumerate(chosen) for z in row])
        slots = heads_of(order.numbers)
        for k, slot in enumerate(slots):
            slot["latents"] = [  # type: ignore[assignment]
                {"number": z, "kl": f"{kl[k, z]:.1f}", "mean": round(float(scene.latents[k, z]) / scale, 2)}
                for z in chosen[k].tolist()
            ]
        scenes.append({"frames": packed(atlas(_smaller(frames, factor)), _BUDGET // count), "slots": slots})
        thumbs.append(torch.cat([_color(images[i : i + 1]), scene.whole(), scene.on_white()]))
    small = _smaller(torch.stack(thumbs), factor)
    return {
        "height": small.shape[3],
        "width": small.shape[4],
        "values": [round(value, 2) for value in values.tolist()],
        "thumbs": packed(atlas(small), _BUDGET // 4),
        "scenes": scenes,
    }


class Scene:
    """Decodes a scene in which one slot changes."""

    def __init__(self, model: Any, latents: Tensor, size: tuple[int, int]) -> None:
        self.model, self.latents, self.size = model, latents, size
        decoded = self._decode(latents)
        self.logits, self.means = decoded  # (K, 1, H, W), (K, C, H, W)

    def _decode(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits (N, 1, H, W) and means (N, C, H, W) of latents (N, D)."""
        with torch.no_grad():
            parts = [self.model.decoder(part[:, None], *self.size) for part in torch.split(latents, _AT_ONCE)]
        parameters = torch.cat([part.parameters for part in parts])
        return torch.cat([part.mask_logits for part in parts]), self.model.distribution.mean(parameters)[:, 0]

    def traverse(self, slot: int, latent: int, values: Tensor) -> Tensor:
        """Returns the scene with a latent at each of the values, (N, 3, H, W)."""
        changed = self.latents[slot].repeat(len(values), 1)
        changed[:, latent] = values
        logits, means = self._decode(changed)
        all_logits = self.logits[:, 0].repeat(len(values), 1, 1, 1)
        all_means = self.means.repeat(len(values), 1, 1, 1, 1)
        all_logits[:, slot], all_means[:, slot] = logits[:, 0], means
        return _color(torch.einsum("nkhw,nkchw->nchw", all_logits.softmax(dim=1), all_means))

    def whole(self) -> Tensor:
        """Returns the scene itself, (1, 3, H, W)."""
        return _color((self.logits.softmax(dim=0) * self.means).sum(dim=0, keepdim=True))

    def on_white(self) -> Tensor:
        """Returns every slot on white, (K, 3, H, W)."""
        masks = self.logits.softmax(dim=0)
        return _color(masks * self.means + (1.0 - masks))


def _label(batch: Mapping[str, Any], image: int) -> Tensor | None:
    label = batch.get("label")
    if label is None:
        return None
    found: Tensor = label[image] if label.ndim == 3 else label[image, -1]
    return found


def _color(images: Tensor) -> Tensor:
    return images.float().cpu().expand(-1, 3, -1, -1)


def _smaller(tiles: Tensor, factor: int) -> Tensor:
    """Averages tiles (rows, columns, 3, H, W) over squares of side ``factor`` pixels."""
    if factor == 1:
        return tiles
    pooled = F.avg_pool2d(tiles.flatten(0, 1), factor, ceil_mode=True)
    return pooled.reshape(*tiles.shape[:2], *pooled.shape[1:])
