import numpy as np
import pytest
from reference import DATA

from iodine_pl.datamodules.deepmind.resizing import CROP, crop_and_resize, legacy_at, legacy_bilinear

TOP, LEFT, SIDE, _ = CROP


@pytest.fixture(scope="module")
def clevr():
    with np.load(DATA / "data_clevr.npz") as file:
        return dict(file)


def test_resizing_equals_the_released_code(clevr):
    crop = clevr["clevr_image"][TOP : TOP + SIDE, LEFT : LEFT + SIDE]
    np.testing.assert_allclose(legacy_bilinear(crop, (128, 128)) / 255, clevr["clevr_image_out"], atol=1e-6)
    image, mask = crop_and_resize(clevr["clevr_image"], clevr["clevr_mask"][..., 0], 128)
    assert np.abs(image / 255 - clevr["clevr_image_out"]).max() <= 0.5 / 255 + 1e-6
    np.testing.assert_array_equal(mask // 255, clevr["clevr_mask_out"][..., 0])


@pytest.mark.parametrize("size", [64, 96, 100, 192, 256])
def test_resizing_to_other_sizes_follows_the_definition(size):
    """Output pixel i is at 192/size * i, interpolated linearly; beyond the last pixel its value is repeated."""
    image = np.random.default_rng(0).integers(256, size=(192, 192, 1), dtype=np.uint8)
    at = np.arange(size) * 192 / size
    columns = np.stack([np.interp(at, np.arange(192), row) for row in image[..., 0]])
    expected = np.stack([np.interp(at, np.arange(192), column) for column in columns.T], axis=1)
    np.testing.assert_allclose(legacy_bilinear(image, (size, size))[..., 0], expected, atol=2e-2)
    np.testing.assert_array_equal(legacy_at(192, size), (at + 1e-6).astype(int))
