import numpy as np
import torch
from helpers import small

from iodine_pl.evaluation.panels import mask_image, refinement_panel, slot_images, slot_palette, slot_panel


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
    assert torch.equal(mask_image(masks)[0, :, 0, 0], colors[0])
    assert len({tuple(color) for color in slot_palette(11).tolist()}) == 11


def test_panel_has_a_tile_per_image_and_column():
    images = torch.rand(2, 3, 40, 50)
    result = small()(images, return_steps=True).detach()
    panel = slot_panel(images, result)
    scale = 2  # to 96 pixels at least
    assert panel.dtype == np.uint8
    assert panel.shape == (2 * (40 * scale + 2) + 2, (3 + 3) * (50 * scale + 2) + 2, 3)
    first = panel[2 : 2 + 80 : 2, 2 : 2 + 100 : 2]
    assert np.array_equal(first, (images[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    steps = refinement_panel(images, result.steps, image=1)
    assert steps.shape == (3 * 82 + 2, panel.shape[1], 3)
    assert np.array_equal(steps[-84:-2], panel[-84:-2])  # the last step is the result


def test_one_channel_images():
    model = small(image_channels=1, pixel_distribution="bernoulli")
    images = torch.rand(1, 1, 8, 8).round()
    panel = slot_panel(images, model(images))
    assert (panel[..., 0] == panel[..., 1])[2:90, 2:90].all()
