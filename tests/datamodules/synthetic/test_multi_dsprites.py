import numpy as np
import pytest
from reference import DATA
from scene_files import joined

from iodine_pl.datamodules.synthetic import multi_dsprites
from iodine_pl.datamodules.synthetic.multi_dsprites import MultiDSpritesGenerator, sprite

VARIANTS = {"binarized": (2, 3, 1), "colored_on_grayscale": (2, 5, 3), "colored_on_colored": (1, 4, 3)}


def best_overlap(frame):
    """Returns how well the best of all sprites fits a frame, and its shape."""
    grid = np.meshgrid((1, 2, 3), multi_dsprites.SCALES, multi_dsprites.ORIENTATIONS, indexing="ij")
    shape, scale, orientation = (axis.ravel() for axis in grid)
    rows, columns = np.nonzero(frame)
    best = (0.0, 0)
    near = [
        np.flatnonzero(np.abs(16 + 32 * multi_dsprites.POSITIONS - at.mean() - 0.5) < 2.6) for at in (rows, columns)
    ]
    for y in near[0]:
        for x in near[1]:
            place = (np.full(len(shape), multi_dsprites.POSITIONS[at]) for at in (x, y))
            mask, corner = sprite(shape, scale, orientation, *place)
            top, left = corner[0]
            patch = frame[top : top + 31, left : left + 31]
            outside = frame.sum() - patch.sum()
            overlap = (mask & patch).sum((1, 2)) / ((mask | patch).sum((1, 2)) + outside)
            best = max(best, (float(overlap.max()), int(shape[overlap.argmax()])))
    return best


def test_outlines_are_those_of_dsprites():
    with np.load(DATA / "dsprites_frames.npz") as file:
        frames = np.unpackbits(file["frames"], axis=-1).astype(bool)
    fits = [best_overlap(frame) for frame in frames[::8]]
    for code in (1, 2, 3):
        overlaps = [overlap for overlap, shape in fits if shape == code]
        assert len(overlaps) >= 4
        assert min(overlaps) >= 0.98
        assert np.mean(overlaps) >= 0.99


@pytest.mark.parametrize(("variant", "rules"), VARIANTS.items())
def test_scenes_follow_the_rules(variant, rules):
    fewest, most, channels = rules
    image, label, factors = joined(MultiDSpritesGenerator(1, variant), 400)
    assert image.shape == (400, 64, 64, channels)
    assert factors["color"].shape == (400, most + 1, channels)
    count = factors["visibility"][:, 1:].sum(1).astype(int)
    assert set(count) == set(range(fewest, most + 1))
    for k in range(1, most + 1):
        there = factors["visibility"][:, k] == 1
        assert ((label == k).sum((1, 2))[there] >= 20).all()
        assert not (label == k)[~there].any()
        assert set(factors["shape"][there, k]) == {1, 2, 3}
        for name in ("shape", "scale", "x", "y", "orientation", "color"):
            assert (factors[name][~there, k] == 0).all()
    for name in ("shape", "scale", "x", "y", "orientation"):
        assert (factors[name][:, 0] == 0).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_images_are_drawn_from_their_factors(variant):
    """Sprite by sprite, the later ones over the earlier."""
    image, label, factors = joined(MultiDSpritesGenerator(2, variant), 40)
    for i in range(40):
        picture = np.broadcast_to(factors["color"][i, 0], image[i].shape).copy()
        owner = np.zeros((64, 64), int)
        for k in range(1, int(factors["visibility"][i].sum())):
            one = (np.array([factors[name][i, k]], np.float64) for name in ("shape", "scale", "orientation", "x", "y"))
            (mask,), ((top, left),) = sprite(*one)
            picture[top : top + 31, left : left + 31][mask] = factors["color"][i, k]
            owner[top : top + 31, left : left + 31][mask] = k
        different = (owner != label[i]).mean()
        assert different < 1e-3  # factors are rounded to float32, so a pixel on an outline may change
        same = owner == label[i]
        np.testing.assert_allclose(picture[same], image[i][same] / 255, atol=1e-6)


def test_backgrounds_and_colors():
    image, label, factors = joined(MultiDSpritesGenerator(0, "binarized"), 100)
    np.testing.assert_array_equal(image[..., 0] == 255, label > 0)
    assert set(np.unique(image)) == {0, 255}
    _, _, factors = joined(MultiDSpritesGenerator(0, "colored_on_grayscale"), 500)
    gray = factors["color"][:, 0]
    assert np.ptp(gray, axis=1).max() == 0
    assert abs(gray.mean() - 0.5) < 0.05
    value = factors["color"][:, 1].max(-1)
    assert abs(value.mean() - 0.5) < 0.05  # uniform, as hue and saturation
    _, _, factors = joined(MultiDSpritesGenerator(0, "colored_on_colored"), 500)
    assert np.ptp(factors["color"][:, 0], axis=1).max() > 0.8


def test_a_scene_depends_on_seed_and_position_alone():
    generator = MultiDSpritesGenerator(5)
    long, short = joined(generator, 600)[0], joined(generator, 300)[0]
    np.testing.assert_array_equal(long[:300], short)
    np.testing.assert_array_equal(np.concatenate([x[0] for x in generator.scenes(512, 600)]), long[512:])
    assert not np.array_equal(joined(MultiDSpritesGenerator(6), 256)[0], long[:256])


def test_orientation_is_counter_clockwise():
    """A heart turned by 90 degrees has its tip, below when upright, at the right."""
    one = np.ones(1)
    for turn, axis, side in ((0.0, 0, 1), (np.pi / 2, 1, 1), (np.pi, 0, -1)):
        (mask,), _ = sprite(np.array([3]), one, turn * one, 0.5 * one, 0.5 * one)
        rows = np.stack(np.nonzero(mask))[axis]
        widths = np.bincount(rows, minlength=31)
        tip = np.flatnonzero(widths)[-1 if side == 1 else 0]
        assert widths[tip] <= 3


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match=r"variant must be one of binarized, .* got plaid"):
        MultiDSpritesGenerator(variant="plaid")
