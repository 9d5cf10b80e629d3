import numpy as np
import pytest
import torch
from helpers import small

from iodine_pl.evaluation.drawing import Column, as_pixels, draw_table, outlined
from iodine_pl.evaluation.order import slot_order
from iodine_pl.evaluation.palette import as_rgb, ink_on, mask_image, slot_palette
from iodine_pl.evaluation.panels import refinement_panel, slot_images, slot_panel, slot_rows

GRAY, BLUE, ORANGE = (tuple(round(255 * part) for part in as_rgb(color)) for color in ("c4c4c4", "0072b2", "e69f00"))


def one_hot(slots, count):
    return torch.nn.functional.one_hot(slots, count).permute(2, 0, 1).float()


def colors_in(tile):
    return {tuple(color) for color in tile.reshape(-1, 3).tolist()}


def test_slots_are_on_white_where_their_mask_is_low():
    result = small()(torch.rand(2, 3, 8, 8)).detach()
    masks = torch.zeros_like(result.masks)
    masks[:, 0, :4] = 1.0
    masks[:, 1, 4:] = 1.0
    pictures = slot_images(result._replace(masks=masks))
    assert (pictures[:, 0, :, 4:] == 1.0).all()
    assert (pictures[:, 2] == 1.0).all()
    assert torch.equal(pictures[:, 0, :, :4], result.means[:, 0, :, :4])
    colors = slot_palette(3)
    assert torch.equal(mask_image(masks, colors)[0, :, 0, 0], colors[0])


def test_the_colors_are_apart_in_hue_and_in_a_gray_print():
    colors = slot_palette(22)
    assert len({tuple(color) for color in colors.tolist()}) == 22
    lightness = colors[:5].pow(2.2) @ torch.tensor([0.2126, 0.7152, 0.0722])
    assert float((lightness[:, None] - lightness).abs().add(torch.eye(5)).min()) > 0.08
    assert all(len(set(color)) > 1 for color in colors[1:].tolist())  # gray is the background's alone
    assert len(slot_palette(0)) == 0
    assert [ink_on(color) for color in torch.tensor([[1.0, 1.0, 0.4], [0.0, 0.2, 0.5]])] == ["#000000", "#ffffff"]


LABEL = torch.tensor([[0, 0, 0, 0, 0, 0], [0, 1, 1, 0, 2, 0], [0, 1, 1, 0, 2, 0], [0, 0, 0, 0, 0, 0]])


def test_the_background_comes_first_and_then_the_objects_of_the_labels():
    masks = one_hot(torch.tensor([3, 1, 0])[LABEL], 4)
    order = slot_order(masks, LABEL)
    assert order.slots == [3, 1, 0, 2]
    assert order.background
    assert list(order.numbers) == [0, 1, 2, 3]
    assert order.entities == [0, 1, 2]
    assert slot_order(masks).slots == [3, 1, 0, 2]  # by area: four pixels, two, none
    assert slot_order(masks.flip(0)).slots == [0, 2, 3, 1]


def test_slots_that_share_the_background_are_all_of_objects():
    slots = torch.where(torch.arange(6) < 3, 1, 0).expand(4, 6)
    for label in (LABEL, None):
        order = slot_order(one_hot(slots, 2), label)
        assert not order.background
        assert list(order.numbers) == [1, 2]
    assert slot_order(one_hot(slots, 2), LABEL).slots == [1, 0]


def test_an_object_without_a_slot_has_a_color_of_its_own():
    order = slot_order(one_hot(torch.tensor([0, 0, 1])[LABEL], 2), LABEL)  # object 1 is in the background's
    assert order.slots == [0, 1]
    assert order.entities == [0, 2, 1]
    nothing = slot_order(torch.full((3, 4, 6), 1 / 3), torch.zeros_like(LABEL))
    assert sorted(nothing.slots) == [0, 1, 2]


@pytest.mark.parametrize("labeled", [True, False])
def test_panel_has_a_row_for_each_image(labeled):
    images = torch.rand(2, 3, 40, 50)
    label = torch.randint(0, 3, (2, 40, 50)) if labeled else None
    result = small()(images, return_steps=True).detach()
    panel = slot_panel(images, result, label)
    row = 40 * 2 + 2 + 4  # enlarged to 96 pixels at least, a frame, a gap
    assert panel.dtype == np.uint8
    assert panel.shape[0] - 2 * row == 28  # the heads
    assert panel.shape[1] // (50 * 2 + 6) == 6 + labeled
    first = panel[29 : 29 + 80 : 2, 5 : 5 + 100 : 2]
    assert np.array_equal(first, (images[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    mean = result._replace(reconstruction=torch.zeros_like(result.reconstruction))
    steps = refinement_panel(images, result.steps, label, mean, image=1)
    assert steps.shape[0] == 28 + 4 * row
    name = steps.shape[1] - panel.shape[1]
    assert np.array_equal(steps[-2 * row : -row, name:], panel[-row:])  # the last step is the result
    assert (steps[-row + 1 : -6, name + 111 : name + 210] == 0).all()


def test_truth_and_slots_share_their_colors():
    """The two images have their slots in different orders, and only one has a background slot."""
    images = torch.rand(2, 3, 4, 6)
    result = small(num_slots=2)(images).detach()
    masks = torch.stack([one_hot((LABEL == 0).long(), 2), one_hot((torch.arange(6) < 3).long().expand(4, 6), 2)])
    rows = slot_rows(images, result._replace(masks=masks), torch.stack([(LABEL > 0).long(), LABEL]))
    first, second = ([colors_in(as_pixels(x.numpy())) for x in (row.truth, row.found)] for row in rows)
    assert first == [{GRAY, BLUE}, {GRAY, BLUE}]
    assert second == [{GRAY, BLUE, ORANGE}, {BLUE, ORANGE}]
    assert [row.background for row in rows] == [True, False]
    assert rows[0].ari == 1.0
    panel = slot_panel(images, result._replace(masks=masks), torch.stack([(LABEL > 0).long(), LABEL]))
    tile = panel[-68:, -302:-208]  # in the second row the background's column is empty
    assert (tile == 255).all()
    assert not (panel[-140:-72, -302:-208] == 255).all()
    unlabeled = slot_rows(images, result)
    assert [(row.truth, row.ari) for row in unlabeled] == [(None, None)] * 2


def test_an_image_without_objects_has_no_ari():
    images = torch.rand(1, 3, 8, 8)
    (row,) = slot_rows(images, small()(images).detach(), torch.zeros(1, 8, 8, dtype=torch.uint8))
    assert row.ari != row.ari
    slot_panel(images, small()(images).detach(), torch.zeros(1, 8, 8, dtype=torch.uint8))


def test_one_channel_images():
    model = small(image_channels=1, pixel_distribution="bernoulli")
    images = torch.rand(1, 1, 8, 8).round()
    panel = slot_panel(images, model(images))
    assert (panel[..., 0] == panel[..., 1])[29:125, 5:101].all()


def test_an_outline_is_around_the_region():
    region = np.zeros((8, 8), bool)
    region[2:4, 3:6] = True
    tile = as_pixels(np.full((3, 8, 8), 0.5))
    drawn = outlined(tile, region)
    changed = (drawn != tile).any(axis=2)
    inside = region.repeat(12, axis=0).repeat(12, axis=1)
    assert not (changed & inside).any()
    assert changed[23, 40]
    assert (drawn[22:24, 40] == 255).all()
    assert (drawn[20:22, 40] == 0).all()
    assert not changed[10, 40]


def test_a_table_keeps_its_text_apart():
    tile = as_pixels(np.zeros((3, 96, 96)))
    columns = [Column("a long name"), Column("head", "#0072b2", "#ffffff", apart=True)]
    drawn = draw_table(columns, [["0.5", tile], ["1.0", None]], title="what it is")
    assert drawn.shape[0] > 2 * 96
    assert (drawn == (0, 114, 178)).all(axis=2).any()  # the bar
    dark = (drawn < 100).all(axis=2)
    assert dark[:20].any()  # the title
    assert dark[-102:, :90].any()  # the word of the last row
    assert not dark[-102:, 100:].any()
