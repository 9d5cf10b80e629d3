import math
import re

import pytest
import torch
from helpers import Other, loader, small, trainer
from torch.utils.data import DataLoader

from iodine_pl.callbacks import AdjustedRandIndex, SlotUse
from iodine_pl.callbacks.slot_use import diagnose


class Slots(Other):
    """Explains every image by the masks and KL that it was made with."""

    def __init__(self, masks, kl):
        super().__init__()
        self.masks, self.kl = masks, kl

    def validation_step(self, batch, batch_idx):
        count = len(batch["image"])
        result = self(batch)
        return result._replace(
            masks=self.masks.expand(count, -1, -1, -1), kl=torch.as_tensor(self.kl).expand(count, -1)
        )


def validated(tmp_path, masks, kl, **arguments):
    use = SlotUse()
    run = trainer(tmp_path, use, **arguments)
    run.validate(Slots(masks, kl), loader())
    return use, {name: float(value) for name, value in run.callback_metrics.items()}


def halves():
    """Returns the masks of three slots, the first two of which win half of the 8x8 pixels each."""
    masks = torch.zeros(3, 8, 8)
    masks[0, :4] = masks[1, 4:] = 1
    return masks


def test_slots_are_counted_by_the_pixels_that_they_win(tmp_path):
    use, logged = validated(tmp_path, halves(), [3.0, 5.0, 0.5])
    assert logged == {
        "val/slots_used": 2,
        "val/mask_entropy": 0,
        "val_slots/kl_0": 5,
        "val_slots/kl_1": 3,
        "val_slots/kl_2": 0.5,
    }
    assert use.said == ""


def test_a_slot_that_wins_less_than_a_hundredth_is_not_used(tmp_path):
    masks = torch.zeros(2, 20, 20)
    masks[0], masks[1, 0, :3] = 0.5, 1
    assert validated(tmp_path, masks, [2.0, 2.0])[1]["val/slots_used"] == 1
    masks[1, 0, :4] = 1
    assert validated(tmp_path, masks, [2.0, 2.0])[1]["val/slots_used"] == 2


def test_entropy_of_flat_masks(tmp_path):
    masks = torch.full((4, 8, 8), 0.25)
    use, logged = validated(tmp_path, masks, [9.0] * 4)
    assert logged["val/mask_entropy"] == pytest.approx(1)
    assert "masks are nearly flat" in use.said
    masks[2:] = 0
    masks[:2] = 0.5
    logged = validated(tmp_path, masks, [9.0] * 4)[1]
    assert logged["val/mask_entropy"] == pytest.approx(math.log(2) / math.log(4))


@pytest.mark.parametrize(
    ("slots", "used", "entropy", "kl", "words"),
    [
        (1, 1.0, 0.0, [9.0], "^$"),
        (4, 3.6, 0.1, [9.0, 8.0, 7.0, 0.1], "^$"),
        (3, 2.0, 0.1, [9.0, 8.0, 7.0], "^$"),
        (3, 3.0, 0.6, [9.0, 8.0, 7.0], "^$"),
        (4, 1.0, 0.1, [0.2, 0.1, 0.1, 0.1], r"encode nothing \(0\.50 nats\)"),
        (4, 3.0, 0.9, [9.0] * 4, r"nearly flat \(entropy 0\.90"),
        (4, 1.1, 0.1, [9.0] * 4, "One slot wins"),
        (4, 2.0, 0.1, [9.0] * 4, "Two of 4 slots win"),
        (4, 1.1, 0.9, [0.0] * 4, "^$"),  # R-NEM has no prior, and none of the settings to change
    ],
)
def test_diagnosis(slots, used, entropy, kl, words):
    assert re.search(words, diagnose(slots, used, entropy, kl))


@pytest.mark.parametrize(("masks", "responsibilities", "words"), [(0.43, 0.84, "Slots hedge"), (0.8, 0.84, "^$")])
def test_hedging_is_diagnosed_where_responsibilities_segment_better(masks, responsibilities, words):
    assert re.search(words, diagnose(3, 3.0, 0.5, [9.0] * 3, masks, responsibilities))


def test_what_the_model_has_already_is_not_advised(tmp_path):
    """Under the mean, whatever is wrong, the words do not advise the mean."""
    for entropy in (0.5, 0.9):
        for responsibilities in (0.4, 0.9, None):
            arguments = (4, 3.0, entropy, [9.0] * 4, 0.4, responsibilities)
            assert "mean with" not in diagnose(*arguments, "mean")
            assert bool(diagnose(*arguments, "mean")) == bool(diagnose(*arguments, "mixture"))
    means = {"pixel_likelihood": "mean", "bounded_means": True}
    for model in (small(num_slots=3, **means), small(num_slots=3, pixel_distribution="bernoulli")):
        use = SlotUse()
        bits = DataLoader([scene | {"image": scene["image"].round()} for scene in loader().dataset], batch_size=3)
        trainer(tmp_path, use, num_sanity_val_steps=0).fit(model, bits, bits)
        assert "flat" in use.said  # hardly trained
        assert "mean with" not in use.said


def test_slots_that_separate_objects_may_share_the_background():
    assert "flat" in diagnose(3, 3.0, 0.9, [9.0] * 3, 0.3, 0.3)
    assert not diagnose(3, 3.0, 0.9, [9.0] * 3, 0.7, 0.7)


def test_slots_that_share_every_pixel_are_said_to_hedge(tmp_path):
    """The masks give every pixel to one slot, but the responsibilities are the true segmentation."""

    class Hedging(Slots):
        def validation_step(self, batch, batch_idx):
            label = batch["label"]
            right = torch.nn.functional.one_hot(label.long(), 3).movedim(-1, 1).float()
            return super().validation_step(batch, batch_idx)._replace(responsibilities=right)

    use = SlotUse()
    run = trainer(tmp_path, use, AdjustedRandIndex())  # the order does not matter: the diagnosis comes after all scores
    flat = torch.tensor([0.4, 0.3, 0.3]).view(3, 1, 1).expand(3, 8, 8)
    run.validate(Hedging(flat, [9.0] * 3), loader())
    assert run.callback_metrics["val/ari_fg_responsibilities"] == 1
    assert run.callback_metrics["val/ari_fg"] < 0.5
    assert "pixels are shared" in use.said


def test_slot_use_of_a_real_model(tmp_path):
    run = trainer(tmp_path, SlotUse(), num_sanity_val_steps=1)
    run.fit(small(num_slots=5), loader(), loader())
    assert {f"val_slots/kl_{rank}" for rank in range(5)} <= run.callback_metrics.keys()
    assert 1 <= run.callback_metrics["val/slots_used"] <= 5


def test_only_training_counts_updates(tmp_path, caplog):
    caplog.set_level("INFO")
    flat = Slots(torch.full((4, 8, 8), 0.25), [9.0] * 4)
    trainer(tmp_path, SlotUse()).validate(flat, loader())
    assert "Slots: The masks are nearly flat" in caplog.text
    trainer(tmp_path, SlotUse(), num_sanity_val_steps=0).fit(flat, loader(), loader())
    assert re.search("Slots after [1-9][0-9]* updates: The masks are nearly flat", caplog.text)


def test_a_lasting_fault_is_described_once(tmp_path, caplog):
    class Sharper(Slots):
        """Has masks that are less flat at each validation."""

        def validation_step(self, batch, batch_idx):
            self.masks = (1.05 * self.masks.log()).softmax(dim=0)
            return super().validation_step(batch, batch_idx)

    caplog.set_level("INFO")
    almost_flat = torch.tensor([0.3, 0.25, 0.25, 0.2]).view(4, 1, 1).expand(4, 8, 8)
    run = trainer(tmp_path, SlotUse(), num_sanity_val_steps=0, max_epochs=3)
    run.fit(Sharper(almost_flat, [9.0] * 4), loader(), loader())
    assert caplog.text.count("masks are nearly flat") == 1
