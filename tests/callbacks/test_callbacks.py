import csv
import resource
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from helpers import Images, Other, counted_masks, loader, small, trainer
from PIL import Image
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from iodine_pl import adjusted_rand_index
from iodine_pl.callbacks import (
    AdjustedRandIndex,
    ImagesPerSecond,
    LastCheckpoint,
    PredictionWriter,
    SegmentationScores,
    SlotPanels,
)
from iodine_pl.cli.errors import sentence_of
from iodine_pl.evaluation.matching import mean_best_overlap, mean_iou
from iodine_pl.evaluation.panels import refinement_panel, slot_rows

ROW = 96 + 2 + 4  # 8 pixels enlarged to 96, a frame, a gap
HEADS = 26  # pixels of the heads of the columns
CALLBACKS = [AdjustedRandIndex, SegmentationScores, SlotPanels, PredictionWriter]


def shown_in(pixels, row):
    """Tells whether the first tile of a row is the image with this number."""
    shown = pixels[HEADS + 1 + ROW * row :, 5:][:96:12, :96:12]
    return np.array_equal(shown, (Images().images[row].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))


class Unannotated(Other):
    def forward(self, batch):
        return batch


class Wrong(Other):
    def forward(self, batch) -> torch.Tensor:
        return batch["image"]


@pytest.mark.parametrize("make", [small, Other])
def test_adjusted_rand_index_is_the_mean_over_images(tmp_path, make):
    module, data = make(), Images()
    results = trainer(tmp_path, AdjustedRandIndex()).validate(module, loader())[0]
    tested = trainer(tmp_path, AdjustedRandIndex()).test(module, loader())[0]
    predicted = trainer(tmp_path).predict(module, loader())
    assignment = torch.cat([result.masks for result in predicted]).argmax(1)
    for name, foreground in (("ari_fg", True), ("ari", False)):
        each = adjusted_rand_index(data.labels, assignment, foreground)
        expected = float(each[~each.isnan()].mean())
        assert results[f"val/{name}"] == pytest.approx(expected, abs=1e-6)
        assert tested[f"test/{name}"] == pytest.approx(expected, abs=1e-6)
    assert results["val/ari_fg_skipped"] == 1


@pytest.mark.parametrize("make", [small, Other])
def test_segmentation_scores_are_means_over_images(tmp_path, make):
    module, data = make(), Images()
    results = trainer(tmp_path, SegmentationScores()).validate(module, loader())[0]
    tested = trainer(tmp_path, SegmentationScores()).test(module, loader())[0]
    masks = torch.cat([result.masks for result in trainer(tmp_path).predict(module, loader())])
    for name, score in (("miou", mean_iou), ("mbo", mean_best_overlap)):
        each = score(data.labels, masks)
        assert int(each.isnan().sum()) == 1
        assert results[f"val/{name}"] == pytest.approx(float(each.nanmean()), abs=1e-6)
        assert tested[f"test/{name}"] == results[f"val/{name}"]


def test_adjusted_rand_index_can_be_monitored(tmp_path):
    best = pl.callbacks.ModelCheckpoint(tmp_path, monitor="val/ari_fg", mode="max")
    trainer(tmp_path, AdjustedRandIndex(), best, enable_checkpointing=True).fit(small(), loader(), loader())
    assert best.best_model_score is not None


@pytest.mark.parametrize(
    ("kinds", "named", "names"),
    [
        ([AdjustedRandIndex], "adjusted Rand index", ["val/ari_fg"]),
        ([SegmentationScores, AdjustedRandIndex], "mIoU, mBO, adjusted Rand index", ["val/ari_fg", "val/miou"]),
    ],
)
def test_one_warning_names_all_scores_that_need_labels(tmp_path, kinds, named, names):
    callbacks = [kind() for kind in kinds]
    with pytest.warns(UserWarning, match="no labels") as said:
        results = trainer(tmp_path, *callbacks).validate(small(), loader(labeled=False))[0]
    messages = [str(warning.message) for warning in said if "label" in str(warning.message)]
    assert messages == [f"The images have no labels, so these scores are not logged: {named}"]
    assert not set(names) & set(results)
    assert set(names) <= set(trainer(tmp_path, *callbacks).validate(small(), loader())[0])


@pytest.mark.parametrize("make", [small, Other])
def test_panels_are_drawn_without_a_logger_and_leave_the_random_state(tmp_path, make):
    panels = SlotPanels(num_images=2)
    after = []
    for callbacks in ([], [panels]):
        torch.manual_seed(3)
        trainer(tmp_path, *callbacks).validate(make(), loader())
        after.append(torch.rand(2))
    assert torch.equal(*after)
    names = sorted(path.name for path in (tmp_path / "panels").iterdir())
    assert names == (["refinement_0000000.png"] if make is small else []) + ["slots_0000000.png"]
    assert panels.latest == tmp_path / "panels" / "slots_0000000.png"
    with Image.open(panels.latest) as picture:
        pixels = np.array(picture)
    assert pixels.shape[0] == HEADS + 2 * ROW
    assert shown_in(pixels, 0)


def test_panels_collect_images_from_several_batches(tmp_path):
    panels = SlotPanels(num_images=5)
    trainer(tmp_path, panels).validate(Other(), torch.utils.data.DataLoader(Images(), batch_size=2))
    with Image.open(panels.latest) as picture:
        pixels = np.array(picture)
    assert pixels.shape[0] == HEADS + 5 * ROW
    assert all(shown_in(pixels, row) for row in range(5))


@pytest.mark.parametrize("keyed_by", ["index", "batch"])
def test_panels_show_what_the_index_counted(tmp_path, monkeypatch, keyed_by):
    """Both use the decomposition that the step returned; it is also the last refinement step."""
    scored, drawn, refined = counted_masks(monkeypatch), [], []

    def rows(images, result, label):
        drawn.append(result.masks)
        return slot_rows(images, result, label)

    def panel(images, steps, label, mean):
        refined.append(steps[-1].masks)
        return refinement_panel(images, steps, label, mean)

    monkeypatch.setattr("iodine_pl.callbacks.slot_panels.slot_rows", rows)
    monkeypatch.setattr("iodine_pl.callbacks.slot_panels.refinement_panel", panel)
    index = AdjustedRandIndex()
    batches = list(loader()) if keyed_by == "index" else [{k: b[k] for k in ("image", "label")} for b in loader()]
    trainer(tmp_path, index, SlotPanels(num_images=5)).validate(small(), DataLoader(batches, batch_size=None))
    by_masks = scored[:: len(index._metrics)]  # the first metric of each batch, which has the masks
    assert len(by_masks) == 3
    assert len(drawn) == 2
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(drawn, by_masks, strict=False))
    assert len(refined) == 1
    assert torch.equal(refined[0], by_masks[0])
    slots, refinement = (
        np.array(Image.open(tmp_path / "panels" / f"{name}_0000000.png")) for name in ("slots", "refinement")
    )
    assert slots.shape[0] == HEADS + 5 * ROW
    assert refinement.shape[0] == HEADS + 4 * ROW
    name = refinement.shape[1] - slots.shape[1]  # the number of the step, before the row
    assert np.array_equal(refinement[-2 * ROW : -ROW, name:], slots[HEADS : HEADS + ROW])
    assert not np.array_equal(refinement[-ROW:, name:], slots[HEADS : HEADS + ROW])  # decoded from the mean


def test_panels_are_drawn_after_every_nth_validation(tmp_path):
    trainer(tmp_path, SlotPanels(1, every_n_validations=2), max_epochs=3, num_sanity_val_steps=2).fit(
        Other(), loader(), loader()
    )
    assert sorted(path.name for path in (tmp_path / "panels").iterdir()) == ["slots_0000003.png", "slots_0000009.png"]


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_panels_of_test_and_predict_have_their_own_names(tmp_path, stage):
    panels = SlotPanels(1)
    getattr(trainer(tmp_path, panels), stage)(small(), loader())
    names = sorted(path.name for path in (tmp_path / "panels").iterdir())
    assert names == [f"{stage}_refinement_0000000.png", f"{stage}_slots_0000000.png"]
    assert panels.latest.name == f"{stage}_slots_0000000.png"


@pytest.mark.parametrize("kind", CALLBACKS)
@pytest.mark.parametrize("module", [Unannotated, Wrong])
def test_other_modules_are_refused_before_anything_runs(tmp_path, kind, module):
    with pytest.raises(
        MisconfigurationException, match=rf"{kind.__name__} needs .* the fields .*masks.*{module.__name__}.forward"
    ):
        trainer(tmp_path, kind()).predict(module(), loader())
    assert list(tmp_path.iterdir()) == []


def test_predictions_are_not_named_like_a_folder(tmp_path):
    with pytest.raises(MisconfigurationException, match=rf"^{tmp_path} is a folder: name the file, such as"):
        trainer(tmp_path, PredictionWriter(tmp_path)).predict(small(), loader())


def test_predictions_of_a_failed_run_are_deleted(tmp_path):
    class Breaks(Other):
        def predict_step(self, batch, batch_idx):
            if batch_idx:
                raise KeyError("broken")
            return self(batch)

    with pytest.raises(KeyError):
        trainer(tmp_path, PredictionWriter(tmp_path / "p.h5")).predict(Breaks(), loader())
    assert list(tmp_path.iterdir()) == []


def test_predictions_that_do_not_fit_on_the_disk_are_deleted(tmp_path):
    path = tmp_path / "p.h5"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*\.p\.h5\.part0'") as error:
            trainer(tmp_path, PredictionWriter(path)).predict(Other(), loader())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert ".p.h5.part0: it is larger than this user" in sentence_of(error.value)
    assert list(tmp_path.iterdir()) == []


def test_speed_counts_all_images_and_no_pauses(tmp_path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr("iodine_pl.callbacks.images_per_second.time.monotonic", lambda: next(clock))
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            seen.append(trainer.callback_metrics.get("train/images_per_second"))

    trainer(tmp_path, ImagesPerSecond(), Watch(), log_every_n_steps=1).fit(Other(), loader(), loader())
    assert [float(x) for x in seen] == [3.0, 3.0, 1.0]  # 3, 3 and 1 images, each in one tick


def test_last_checkpoint_is_saved_by_time_by_steps_and_before_a_validation(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(pl.Trainer, "save_checkpoint", lambda self, path, **options: saved.append(self.global_step))
    trainer(tmp_path, LastCheckpoint(every_n_minutes=0.0), enable_checkpointing=True).fit(Other(), loader(), loader())
    trainer(tmp_path, LastCheckpoint(None, every_n_train_steps=2), enable_checkpointing=True, max_epochs=2).fit(
        Other(), loader(), loader()
    )
    trainer(tmp_path, LastCheckpoint(), enable_checkpointing=True, max_steps=2, max_epochs=-1).fit(
        Other(), loader(), loader()
    )
    assert saved == [1, 2, 3, 2, 3, 4, 6, 2]


def test_speed_reaches_the_logger_in_every_epoch(tmp_path):
    """Lightning writes logged values at its own logging steps, which do not restart with an epoch."""
    logger = CSVLogger(tmp_path)
    trainer(tmp_path, ImagesPerSecond(), max_epochs=2, log_every_n_steps=2, logger=logger).fit(
        Other(), loader(), loader()
    )
    with open(Path(logger.log_dir) / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["train/images_per_second"]] == ["1", "3", "5"]


def test_speed_is_not_logged_where_nothing_is(tmp_path):
    made = trainer(tmp_path, ImagesPerSecond(), log_every_n_steps=0)
    made.fit(small(), loader(), loader())
    assert "train/images_per_second" not in made.callback_metrics
