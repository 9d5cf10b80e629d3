"""Latent traversals and DCI scores (section 4.2 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from iodine_pl import SceneModel
from iodine_pl.callbacks.contract import decompose
from iodine_pl.callbacks.experiments.common.experiment import Experiment, need
from iodine_pl.callbacks.experiments.common.objects import latents_of_entities, objects_of, scenes_of, varying
from iodine_pl.callbacks.experiments.common.outcome import Outcome, Picture, Row
from iodine_pl.callbacks.experiments.common.rows import Columns, of_all_processes
from iodine_pl.callbacks.experiments.common.training_scenes import train_rows
from iodine_pl.checkpoints.loading import load_model
from iodine_pl.evaluation.dci import dci
from iodine_pl.evaluation.drawing import Column, Pixels, as_pixels, draw_table, side_by_side
from iodine_pl.evaluation.matching import slot_of_entity
from iodine_pl.evaluation.probe import FactorKind
from iodine_pl.evaluation.traversal import kl_of_latents, traverse

__all__ = ["Disentanglement"]


class Disentanglement(Experiment):
    """Draws the effect of single latents, and scores how well they separate factors.

    ``disentanglement.png`` shows the slot of one object of a test scene. Each row changes one latent from -``width`` to
    ``width`` standard deviations of the prior, and is labeled with its number and KL; latents with the largest KL come
    first. All other latents are at the posterior's mean. Next to it is the same for another model, usually a VAE
    (:class:`iodine_pl.baselines.VAE`), whose one slot is the whole scene.

    The table has the DCI (Eastwood & Williams 2018) of each model, fitted on training scenes and reported on test
    scenes. For slots it is from the posterior mean of an object's slot to the factors of this object. A model with one
    slot does not separate objects: for it, DCI is from its posterior mean to the factors of all objects in the scene
    from left to right (as many as every scene has).

    Args:
        beside: checkpoint of the other model; None: no other model.
        num_scenes: number of training scenes to fit on.
        factors: factor -> ``scalar``, ``angle`` or ``category``; None: those of the dataset.
        num_latents: rows of the picture.
        width: of the traversal.
        folder: where to write; None: ``experiments/`` in the run's folder.
    """

    name = "disentanglement"
    fields = ("masks", "mean", "std")

    def __init__(
        self,
        beside: str | None = None,
        num_scenes: int = 2000,
        factors: Mapping[str, FactorKind] | None = None,
        num_latents: int = 8,
        width: float = 2.0,
        folder: str | Path | None = None,
    ) -> None:
        super().__init__(folder)
        self.beside = None if beside is None else Path(beside)
        self.num_scenes = num_scenes
        self.factors = factors
        self.num_latents = num_latents
        self.width = width
        self._slots: dict[str, int] = {}
        self._pictures: dict[str, Pixels] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage != "test":
            return
        self._models: dict[str, Any] = {type(pl_module).__name__: pl_module}
        if self.beside is not None:
            try:
                other: SceneModel = load_model(self.beside)
            except FileNotFoundError as error:
                raise MisconfigurationException(f"Disentanglement has no model beside this one: {error}") from error
            name = type(other).__name__
            self._models[name if name not in self._models else f"{name} of {self.beside}"] = other
        for name, model in self._models.items():
            if not hasattr(model, "decode"):
                raise MisconfigurationException(
                    f"Disentanglement decodes changed latents, but {name} has no decode(latents, height, width)"
                )

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_test_epoch_start(trainer, pl_module)
        for model in self._models.values():
            model.to(pl_module.device)
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._kinds: Mapping[str, FactorKind] = self.factors or getattr(data, "factor_kinds", {})
        if not self._kinds:
            raise MisconfigurationException(
                "Disentanglement does not know the factors of these data: give factors, such as {x: scalar}"
            )
        mine = train_rows(self, trainer, pl_module, self.num_scenes)
        self._train = of_all_processes(mine, trainer.world_size)

    def measure(self, module: pl.LightningModule, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        need(self, batch, "label", "factors")
        measured: dict[str, Tensor] = {}
        for name, model in self._models.items():
            result = decompose(model, batch, batch_idx)
            self._slots[name] = result.masks.shape[1]
            rows = latents_of_entities(result, batch, "mean")
            measured |= {f"{name}/{key}": values for key, values in rows.items()}
            if not batch_idx:
                self._pictures[name] = self._draw(name, model, batch, result)
        return measured

    def _draw(self, name: str, model: Any, batch: Any, result: Any) -> Pixels:
        """Draws the first scene, decoded from the posterior's mean: the input first, then a row for each latent."""
        image, label = batch["image"][0], batch["label"][:1]
        entities = max(int(label.max()), 1) + 1
        slot = int(slot_of_entity(label, result.masks[:1], entities)[0, 1])  # of the first object
        kl = kl_of_latents(result.mean[0, slot], result.std[0, slot], model.prior_scale)
        deviations = torch.linspace(-self.width, self.width, 7)
        values = deviations.to(result.mean) * model.prior_scale
        size = (image.shape[1], image.shape[2])
        columns = [Column("latent"), Column("KL"), Column("image", apart=True)]
        shown = [f"{value:+.1f}" for value in deviations.tolist()]
        columns += [Column(text.replace("-0.0", "0.0"), apart=not i) for i, text in enumerate(shown)]
        rows: list[list[Pixels | str | None]] = []
        for latent in kl.argsort(descending=True)[: self.num_latents].tolist():
            pictures = traverse(model, result.mean[0], slot, latent, values, size)
            tiles = [as_pixels(x.detach().float().cpu().expand(3, -1, -1).numpy()) for x in (image, *pictures)]
            rows.append([str(latent), f"{kl[latent]:.2f}", None if rows else tiles[0], *tiles[1:]])
        kind = "the slot of an object" if result.masks.shape[1] > 1 else "the whole scene"
        title = f"{name}: latents of {kind}, in standard deviations of the prior"
        return draw_table(columns, rows, title)

    def conclude(self, trainer: pl.Trainer, module: pl.LightningModule, rows: Columns) -> Outcome:
        table: list[Row] = []
        for name in self._models:
            train, test = (
                {key.removeprefix(f"{name}/"): x for key, x in part.items() if key.startswith(f"{name}/")}
                for part in (self._train, rows)
            )
            slots, kinds = self._slots[name], dict(self._kinds)
            if slots > 1:
                fitted, scored = objects_of(train), objects_of(test)
            else:
                objects = min(int(part["visible"][:, 1:].sum(axis=1).min()) for part in (train, test))
                fitted, scored = scenes_of(train, objects), scenes_of(test, objects)
                kinds = {f"{i + 1} {factor}": kind for i in range(objects) for factor, kind in kinds.items()}
            kinds = varying(self, kinds, fitted)
            found = dci((fitted.latents[:, -1], fitted.factors), (scored.latents[:, -1], scored.factors), kinds)
            table.append({"model": name, "slots": slots, "latents": fitted.latents.shape[2], **found._asdict()})
        caption = (
            f"A row for each latent of an object's slot, in {' and '.join(self._models)}, with its number and its KL "
            f"in nats: the scene with this latent from -{self.width:g} to {self.width:g} standard deviations of the "
            "prior."
        )
        return Outcome(table, {"": Picture(side_by_side(list(self._pictures.values())), caption)}, {})
