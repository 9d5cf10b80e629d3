"""The pixel scale that changes in training."""

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from iodine_pl import IODINE
from iodine_pl.cli.arguments import settings_before
from iodine_pl.distributions import ScaleSchedule

SCALES = {3: 0.6, 1: 0.2}


def test_straight_lines_between_the_given_scales():
    scale = ScaleSchedule(SCALES)
    assert [scale(updates) for updates in (0, 1, 2, 3, 4)] == pytest.approx([0.2, 0.2, 0.4, 0.6, 0.6])
    assert scale.last == 0.6


@pytest.mark.parametrize("wrong", [{}, {-1: 0.3}, {0: 0.3, 5: 0.0}, {0: float("nan")}])
def test_what_is_no_schedule_is_refused(wrong):
    with pytest.raises(ValueError, match="pixel_scale must be positive, or scales by the updates done"):
        small(wrong)


def test_a_distribution_without_scale_takes_no_schedule():
    with pytest.raises(ValueError, match=r"bernoulli.* has no scale"):
        small(SCALES, pixel_distribution="bernoulli")


def small(scale, **arguments):
    torch.manual_seed(0)
    sizes = {"latent_size": 4, "decoder_channels": (4,), "encoder_channels": (4,), "mlp_sizes": (4,)}
    return IODINE(**{"num_slots": 2, "num_iterations": 1, "pixel_scale": scale, **sizes, **arguments})


class Scales(pl.Callback):
    """Keeps the model's scale and the logged scale of every update."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.seen.append((round(module.distribution.scale, 6), float(trainer.callback_metrics["train/pixel_scale"])))


def fit(model, updates, checkpoint=None):
    scales = Scales()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=updates,
        limit_val_batches=0,
        callbacks=[scales],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    images = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    batches = DataLoader(images, 4)  # two updates an epoch
    trainer.fit(model, batches, batches, ckpt_path=checkpoint)
    return trainer, [scale for scale, logged in scales.seen if scale == pytest.approx(logged)]


def test_training_follows_it_and_goes_on_after_a_stop(tmp_path):
    model = small(SCALES)
    assert model.distribution.scale == 0.6
    path = tmp_path / "two.ckpt"
    trainer, seen = fit(model, 2)
    assert seen == pytest.approx([0.2, 0.2])
    trainer.save_checkpoint(path)
    assert fit(small(SCALES), 5, path)[1] == pytest.approx([0.4, 0.6, 0.6])

    outside = IODINE.load_from_checkpoint(path)
    assert outside.distribution.scale == 0.6
    settings, _ = settings_before([f"--ckpt_path={path}"])
    assert settings["model"]["init_args"]["pixel_scale"] == SCALES


def test_it_changes_the_loss():
    batch = torch.rand(2, 3, 8, 8)
    trained, _ = fit(small(SCALES), 1)
    early = trained.lightning_module
    late = small(0.2)
    late.load_state_dict(early.state_dict())
    noise = torch.randn(early.noise_shape(2))
    torch.testing.assert_close(early.loss(batch, noise)[0], late.loss(batch, noise)[0])
