import numpy as np
import pytest
import scipy.ndimage
from reference import DATA

from iodine_pl.datamodules.deepmind.releases import TETROMINOES
from iodine_pl.datamodules.synthetic.tetrominoes import COLORS, SHAPES, TetrominoesGenerator
from iodine_pl.files.tensorflow.tfrecord import parse_example, read_records

CELL = np.array(
    [[191, 255, 255, 255, 223], *[[127, 159, 159, 159, 191]] * 3, [95, 63, 63, 63, 127]], np.uint8
)  # as measured on the real records


def joined(count, start=0, **arguments):
    blocks = list(TetrominoesGenerator(**arguments).scenes(start, start + count))
    image, label = (np.concatenate([block[i] for block in blocks]) for i in range(2))
    return image, label, {name: np.concatenate([block[2][name] for block in blocks]) for name in blocks[0][2]}


def drawn(x, y, shape, color, size=35):
    """Draws one piece from its factors, cell by cell."""
    image = np.zeros((size, size, 3), np.uint8)
    for r, row in enumerate(SHAPES[int(shape) - 1].split("/")):
        for c, mark in enumerate(row):
            if mark == "#":
                top, left = int(x) + 5 * r, int(y) + 5 * c
                image[top : top + 5, left : left + 5] = CELL[..., None] * color.astype(np.uint8)
    return image


def assert_drawn_from_factors(image, label, factors):
    pieces = [drawn(*(factors[name][k] for name in ("x", "y", "shape", "color"))) for k in range(1, 4)]
    np.testing.assert_array_equal(image, sum(pieces))
    for k, piece in enumerate(pieces, start=1):
        np.testing.assert_array_equal(label == k, piece.any(-1))


def test_real_records_are_what_this_generator_draws():
    for record in read_records(DATA / "tetrominoes_mini.tfrecords"):
        scene = parse_example(record, TETROMINOES.features)
        assert_drawn_from_factors(scene["image"], scene["mask"][..., 0].argmax(0), scene)


def test_generated_scenes_follow_their_factors():
    image, label, factors = joined(count=300)
    assert image.shape == (300, 35, 35, 3)
    for i in range(300):
        assert_drawn_from_factors(image[i], label[i], {name: values[i] for name, values in factors.items()})
    assert (factors["visibility"] == 1).all()
    assert all((factors[name][:, 0] == 0).all() for name in ("x", "y", "shape", "color"))


def test_all_shapes_colors_and_places_occur_evenly():
    _, _, factors = joined(count=4000)
    shapes = np.bincount(factors["shape"][:, 1:].astype(int).ravel(), minlength=20)[1:]
    assert shapes.min() > 0.85 * 12_000 / 19
    assert shapes.max() < 1.15 * 12_000 / 19
    colors = [(factors["color"][:, 1:] == color).all(-1).mean() for color in COLORS]
    np.testing.assert_allclose(colors, 1 / 6, atol=0.02)
    assert factors["x"].max() == 30  # a lying bar at the lower edge
    assert factors["y"].max() == 30


def test_a_scene_depends_on_seed_and_position_alone():
    long, short = joined(count=600, seed=3), joined(count=300, seed=3)
    np.testing.assert_array_equal(long[0][:300], short[0])
    np.testing.assert_array_equal(joined(count=88, start=512, seed=3)[0], long[0][512:])
    assert not np.array_equal(joined(count=300, seed=4)[0], short[0])
    assert len({image.tobytes() for image in long[0]}) == 600


def test_pieces_that_never_fit_together_do_not_hang():
    """On 20x20 pixels a lying and a standing bar always cross."""
    image, label, _ = joined(count=500, size=20, objects=2)
    assert image.shape == (500, 20, 20, 3)
    assert all((label == k).sum((1, 2)).tolist() == [100] * 500 for k in (1, 2))


@pytest.mark.parametrize("wrong", [{"size": 19}, {"objects": 0}, {"objects": 7}])
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError, match="do not fit"):
        TetrominoesGenerator(**wrong)


def test_ambiguous_pieces_touch_in_one_color():
    """All pieces of a scene form one connected figure on one lattice."""
    images, labels, factors = next(iter(TetrominoesGenerator(seed=3, ambiguous=True).scenes(0, 256)))
    assert TetrominoesGenerator(ambiguous=True).name != TetrominoesGenerator().name
    for image, label, color in zip(images, labels, factors["color"], strict=True):
        assert [(label == k).sum() for k in (1, 2, 3)] == [100, 100, 100]
        assert (color[1:] == color[1]).all()
        assert (image[label > 0] > 0).any(axis=0).tolist() == (color[1] > 0).tolist()
        _, pieces = scipy.ndimage.label(label > 0)
        assert pieces == 1
        top, left = (np.flatnonzero((label > 0).any(axis=axis))[0] for axis in (1, 0))
        cells = (label > 0)[top:, left:]
        cells = cells[: cells.shape[0] // 5 * 5, : cells.shape[1] // 5 * 5]
        by_cell = cells.reshape(cells.shape[0] // 5, 5, -1, 5).sum(axis=(1, 3))
        assert set(by_cell.flatten()) <= {0, 25}
    assert len({label.tobytes() for label in labels}) == 256
