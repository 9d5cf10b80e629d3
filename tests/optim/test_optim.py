import math

import pytest
import pytorch_lightning as pl
import torch
from helpers import fit, loader, small, trainer
from pytorch_lightning.tuner import Tuner

from iodine_pl import IODINE
from iodine_pl.optim import TFAdam


def test_adam_is_the_formula_of_tensorflow():
    w = torch.nn.Parameter(torch.randn(7, dtype=torch.float64))
    expected, m, v = w.detach().clone(), torch.zeros(7, dtype=torch.float64), torch.zeros(7, dtype=torch.float64)
    optimizer = TFAdam([w], lr=0.01, betas=(0.95, 0.999), eps=1e-3)  # a large epsilon, to see where it stands
    for t in range(1, 6):
        w.grad = torch.randn(7, dtype=torch.float64) * 1e-2
        m, v = 0.95 * m + 0.05 * w.grad, 0.999 * v + 0.001 * w.grad**2
        expected -= 0.01 * math.sqrt(1 - 0.999**t) / (1 - 0.95**t) * m / (v.sqrt() + 1e-3)
        optimizer.step()
        torch.testing.assert_close(w.detach(), expected, rtol=1e-12, atol=1e-12)
    assert optimizer.param_groups[0]["eps"] == 1e-3


def test_resumes_from_its_state():
    runs = []
    for stop in (None, 2):
        torch.manual_seed(1)
        w = torch.nn.Parameter(torch.ones(3))
        optimizer = TFAdam([w], lr=0.1)
        for t in range(4):
            if t == stop:
                state = optimizer.state_dict()
                optimizer = TFAdam([w], lr=0.1)
                optimizer.load_state_dict(state)
            w.grad = torch.randn(3) * 1e-6
            optimizer.step()
        runs.append(w.detach().clone())
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("network", "batch", "expected"),
    [("clevr6", 4, 3.5355e-4), ("multi_dsprites", 16, 1.0607e-4), ("tetrominoes", 128, 2.1213e-4)],
)
def test_learning_rates_of_the_released_configurations(network, batch, expected):
    made = getattr(IODINE, network)(batch_size=batch).configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-4)
    assert isinstance(optimizer, TFAdam)
    assert optimizer.param_groups[0]["betas"] == (0.95, 0.999)
    assert schedule.lr_lambdas[0](0) == 1.0
    assert schedule.lr_lambdas[0](500_000) == pytest.approx(0.1**0.5)
    assert made["lr_scheduler"]["interval"] == "step"


def test_lightnings_finder_sets_the_rate_that_it_found(tmp_path):
    model = small(batch_size=4, reference_batch_size=64, learning_rate=1e-3)
    made = trainer(tmp_path, max_steps=60)
    found = Tuner(made).lr_find(model, loader(count=60), loader(), num_training=30, early_stop_threshold=None)
    assert model.lr == pytest.approx(found.suggestion())
    assert model.learning_rate == pytest.approx(4 * found.suggestion())
    assert model.configure_optimizers()["optimizer"].param_groups[0]["lr"] == pytest.approx(found.suggestion())


def test_a_training_that_continues_takes_the_optimizers_settings_of_its_model(tmp_path):
    images = loader(count=3)  # one batch
    first = trainer(tmp_path, limit_val_batches=0)
    first.fit(small(optimizer="muon", weight_decay=0.1, learning_rate=1e-3), images, images)
    first.save_checkpoint(tmp_path / "first.ckpt")
    other = {"weight_decay": 0.5, "betas": (0.8, 0.9), "adam_epsilon": 1e-6, "adam_learning_rate": 4e-3}
    model = small(optimizer="muon", learning_rate=2e-3, decay="cosine", decay_steps=4, **other)
    made = trainer(tmp_path, limit_val_batches=0, max_epochs=2)
    made.fit(model, images, images, ckpt_path=tmp_path / "first.ckpt")
    matrices, others = made.optimizers[0].param_groups
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.5, 0)
    assert (matrices["lr"], others["lr"]) == pytest.approx((1e-3, 2e-3))
    assert (others["betas"], others["eps"]) == ((0.8, 0.9), 1e-6)
    assert len(made.optimizers[0].state) == len(list(model.parameters()))


def test_plain_adam_is_an_argument():
    made = IODINE(optimizer="adam", betas=(0.9, 0.999), learning_rate=3e-4).configure_optimizers()
    assert type(made["optimizer"]) is torch.optim.Adam
    assert made["optimizer"].param_groups[0]["lr"] == 3e-4


@pytest.mark.parametrize(
    ("model_norm", "settings", "expected"),
    [
        (5.0, {}, 5.0),
        (0.25, {}, 0.25),
        (5.0, {"gradient_clip_val": 0.5}, 0.5),
        (None, {}, None),
        (5.0, {"gradient_clip_val": 0.125, "gradient_clip_algorithm": "value"}, "value"),
    ],
)
@pytest.mark.parametrize("optimizer", ["tf_adam", "muon"])
def test_gradients_are_clipped_by_the_trainers_limit_or_the_models(tmp_path, model_norm, settings, expected, optimizer):
    seen = {}

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            gradients = torch.cat([p.grad.flatten() for p in module.parameters()])
            seen.update(norm=float(gradients.norm()), largest=float(gradients.abs().max()))
            seen["before"] = float(trainer.callback_metrics["train/gradient_norm"])

    model = small(gradient_clip_norm=model_norm, optimizer=optimizer)
    fit(model, torch.rand(2, 3, 8, 8), tmp_path, Watch(), log_every_n_steps=1, **settings)
    assert seen["before"] > 100
    if expected == "value":
        assert seen["largest"] == 0.125
    else:
        assert seen["norm"] == pytest.approx(seen["before"] if expected is None else expected, rel=1e-4)
