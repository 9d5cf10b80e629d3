import numpy as np
import pytest
import torch
from reference import DATA

from iodine_pl.datamodules.deepmind.resizing import crop_and_resize
from iodine_pl.datamodules.synthetic import clevr_render
from iodine_pl.datamodules.synthetic.clevr import ClevrGenerator
from iodine_pl.datamodules.synthetic.clevr_render import Stage
from iodine_pl.datamodules.synthetic.clevr_scenes import CUBE, CYLINDER, METAL, SPHERE, Camera, Scene, draw_scene
from iodine_pl.datamodules.synthetic.clevr_solids import Solids

RIGHT = np.array([7.4811, -6.5076, 5.3437])


def scene(*objects, camera=RIGHT, lights=None):
    """Returns a scene of given (x, y, radius, shape, material) objects, red and turned by 20 degrees."""
    x, y, radius, shape, material = (np.array(values) for values in zip(*objects, strict=True))
    ones = np.ones(len(x), int)
    lights = np.array([[6.4467, -2.9052, 4.2584], [-1.1685, 2.646, 5.8157], [-4.6711, -4.0136, 3.0112]])
    place = np.stack([x, y, radius], axis=1).astype(float)
    return Scene(
        place, radius.astype(float), 20.0 * ones, ones, material, shape, ones, Camera.at(np.array(camera)), lights
    )


def test_camera_sees_what_it_projects():
    camera = Camera.at(RIGHT)
    np.testing.assert_allclose(camera.project(np.zeros(3)), [160, 120, np.linalg.norm(RIGHT)])
    points = np.random.default_rng(0).uniform(-3, 3, (50, 3))
    column, row, depth = camera.project(points).T
    toward = camera.directions(row, column)
    distance = np.linalg.norm(points - camera.place, axis=1)
    np.testing.assert_allclose(camera.place + toward * distance[:, None], points, atol=1e-12)
    assert (depth > 0).all()
    assert camera.project(np.array([0.0, 0.0, 1.0]))[1] < 120  # up is up
    left, right = camera.directions(np.array(120.0), np.array([0.0, 320.0]))
    assert np.degrees(np.arccos(left @ right)) == pytest.approx(49.134, abs=1e-3)


def test_objects_stand_by_the_rules():
    rng = np.random.default_rng(0)
    for n in (3, 6, 10):
        for _ in range(20):
            drawn = draw_scene(rng, n)
            reach = np.where(drawn.size == 1, 0.7, 0.35)
            np.testing.assert_allclose(drawn.radius, np.where(drawn.shape == CUBE, reach / np.sqrt(2), reach))
            np.testing.assert_array_equal(drawn.place[:, 2], drawn.radius)
            assert np.abs(drawn.place[:, :2]).max() <= 3
            ahead = drawn.camera.ahead[:2] / np.linalg.norm(drawn.camera.ahead[:2])
            across = np.array([-ahead[1], ahead[0]])
            for i in range(n):
                for j in range(i):
                    offset = drawn.place[i, :2] - drawn.place[j, :2]
                    assert np.linalg.norm(offset) - reach[i] - drawn.radius[j] >= 0.25
                    assert min(abs(offset @ ahead), abs(offset @ across)) >= 0.4
            assert np.abs(drawn.camera.place - RIGHT).max() <= 0.5
    codes = {name: set() for name in ("color", "material", "shape", "size")}
    for _ in range(40):
        drawn = draw_scene(rng, 8)
        for name, seen in codes.items():
            seen |= set(getattr(drawn, name).tolist())
    assert [len(seen) for seen in codes.values()] == [8, 2, 3, 2]


def outside(point, shape, radius):
    """Returns how far points (..., 3) are outside a solid at the origin, in float64."""
    edge = radius * {CUBE: 0.2, CYLINDER: 0.1, SPHERE: 0.0}[shape]
    if shape == SPHERE:
        return np.linalg.norm(point, axis=-1) - radius
    if shape == CUBE:
        q = np.abs(point) - (radius - edge)
    else:
        across = np.hypot(point[..., 0], point[..., 1])
        q = np.stack([across, np.abs(point[..., 2])], axis=-1) - (radius - edge)
    return np.linalg.norm(np.maximum(q, 0), axis=-1) + np.minimum(q.max(-1), 0) - edge


@pytest.mark.parametrize("shape", [SPHERE, CYLINDER, CUBE])
def test_rays_meet_solids_where_they_are(shape):
    """Against a walk along each ray in steps of 0.001."""
    rng = np.random.default_rng(shape)
    place, radius, turn = np.array([0.5, -0.3, 0.7]), 0.7, 0.6
    origin = rng.normal(size=(400, 3))
    origin = place + 4 * origin / np.linalg.norm(origin, axis=1, keepdims=True)
    target = place + rng.uniform(-0.9, 0.9, (400, 3))
    direction = target - origin
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    along = np.arange(2.0, 6.0, 0.001)
    points = origin[:, None] + along[:, None] * direction[:, None] - place
    back = np.array([[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    gap = outside(points @ back.T, shape, radius)
    hits = (gap < 0).any(1)
    expected = along[(gap < 0).argmax(1)]
    clear = np.abs(gap.min(1)) > 3e-3  # a ray that just grazes may hit or miss
    solids = Solids(
        torch.tensor(place, dtype=torch.float32).view(1, 1, 3),
        torch.tensor([[radius]]),
        torch.tensor([[turn]]),
        torch.tensor([[shape]]),
    )
    rays = [torch.tensor(x, dtype=torch.float32)[None] for x in (origin, direction)]
    none = torch.full((1, 400), -1)
    hit = solids.closest(*rays, none)
    met = (hit.solid[0] == 0).numpy()
    assert 100 < hits.sum() < 390
    np.testing.assert_array_equal(met[clear], hits[clear])
    both = met & hits & clear
    np.testing.assert_allclose(hit.distance[0].numpy()[both], expected[both], atol=0.02)
    assert np.abs(hit.distance[0].numpy()[both] - expected[both]).mean() < 2e-3
    wanted = torch.ones(1, 400, dtype=torch.bool)
    far = torch.full((1, 400), 9.0)
    np.testing.assert_array_equal(solids.blocked(*rays, far, wanted, none)[0].numpy()[clear], hits[clear])
    assert not solids.blocked(*rays, far * 0.1, wanted, none).any()
    assert not solids.blocked(*rays, far, wanted, torch.zeros_like(none)).any()
    point = rays[0] + hit.distance.unsqueeze(-1) * rays[1]
    normal = solids.normal(hit.solid, point)[0].double().numpy()[both] @ back.T
    at = (point[0].double().numpy()[both] - place) @ back.T
    steps = 1e-5 * np.eye(3)
    slope = np.stack([outside(at + s, shape, radius) - outside(at - s, shape, radius) for s in steps], -1) / 2e-5
    assert np.abs((normal * slope).sum(-1) - 1).mean() < 1e-3


def test_an_empty_table_is_lit_as_the_lamps_say():
    """Against the sum over a fine grid on each lamp, in float64."""
    one = scene((-2.9, 2.9, 0.001, SPHERE, 1))
    rows, columns = np.array([60.0, 120.0, 200.0]), np.array([80.0, 160.0, 250.0])
    toward = one.camera.directions(rows, columns)
    points = one.camera.place - toward * (one.camera.place[2] / toward[:, 2:])
    total = np.full((3, 3), np.pi * clevr_render._FROM_ABOVE)
    total += clevr_render._SUN_IRRADIANCE * clevr_render._SUN[2]
    grid = (np.arange(60) + 0.5) / 60 - 0.5
    for lamp in range(3):
        center, side = one.lights[lamp], clevr_render._LAMP_SIDE[lamp]
        facing = -center / np.linalg.norm(center)
        level = np.cross(facing, [0, 0, 1])
        level /= np.linalg.norm(level)
        u, v = np.meshgrid(grid, grid)
        lit = center + side * (u[..., None] * level + v[..., None] * np.cross(facing, level))
        offset = lit[:, :, None] - points
        far = np.linalg.norm(offset, axis=-1)
        part = (offset[..., 2] / far) * np.maximum(-(offset @ facing) / far, 0) / far**2 * (side / 60) ** 2
        total += part.sum((0, 1))[:, None] * clevr_render._LAMP_RADIANCE[lamp]
    expected = total * 0.8 / np.pi
    random = torch.rand(1, 3 * 2000, 8)
    many = (np.repeat(x, 2000)[None] for x in (rows, columns))
    light = Stage([one], "cpu").colors(*many, random).reshape(3, 2000, 3).mean(1)
    np.testing.assert_allclose(light, expected, rtol=5e-3)


def test_a_cube_throws_a_shadow_up_to_its_foot():
    lone, alone = scene((0, 0, 0.5, CUBE, 1)), scene((-2.9, 2.9, 0.001, SPHERE, 1))
    points = np.array([[-1.2, -1.2, 0.0], [0.2, -0.8, 0.0], [0.2, -0.4, 0.0]])  # open, in the shadow, under the edge
    column, row, _ = lone.camera.project(points).T
    random = torch.rand(1, 3 * 400, 8)
    at = [np.repeat(x, 400)[None] for x in (row, column)]
    with_cube, without = (Stage([s], "cpu").colors(*at, random).reshape(3, 400, 3).mean((1, 2)) for s in (lone, alone))
    assert Stage([lone], "cpu").entities(row, column)[0].tolist() == [0, 0, 0]  # the cube hides none of them
    left = with_cube / without
    assert left[0] > 0.99
    assert 0.7 < left[1] < 0.85
    assert left[2] < 0.3


def test_metal_shows_what_is_around_it():
    around = (0.0, -1.6, 0.6, SPHERE, 1)
    light = {}
    for name, others in (("alone", ()), ("beside", (around,))):
        for material in (1, METAL):
            one = scene((0, 0, 0.7, SPHERE, material), *others)
            rows, columns = np.meshgrid(np.arange(60, 150) + 0.5, np.arange(120, 200) + 0.5, indexing="ij")
            stage = Stage([one], "cpu")
            seen = stage.entities(rows.ravel(), columns.ravel())[0] == 1
            values = stage.colors(rows.reshape(1, -1), columns.reshape(1, -1), torch.full((1, rows.size, 8), 0.5))
            light[name, material] = values[0], seen
    both = light["alone", 1][1] & light["beside", 1][1]
    change = {m: (light["alone", m][0] - light["beside", m][0])[both].abs().amax(1) for m in (1, METAL)}
    assert (change[METAL] > 0.02).float().mean() > 0.02
    assert (change[1] > 0.02).float().mean() < 0.005


@pytest.fixture(scope="module")
def made():
    return next(ClevrGenerator(seed=7, size=64, device="cpu").scenes(0, 8))


def test_every_object_shows_in_the_whole_image(made):
    generator = ClevrGenerator(seed=7, size=64, device="cpu")
    scenes = generator._draw([np.random.default_rng([7, i]) for i in range(8)])
    grid = np.meshgrid(np.arange(240) + 0.5, np.arange(320) + 0.5, indexing="ij")
    entities = Stage(scenes, "cpu").entities(*(axis.ravel() for axis in grid))
    for drawn, seen in zip(scenes, entities, strict=True):
        n = len(drawn.radius)
        assert 3 <= n <= 10
        assert (np.bincount(seen, minlength=n + 1)[1:] >= 200).all()


def test_labels_lie_where_the_factors_say(made):
    image, label, factors = made
    assert image.shape == (8, 64, 64, 3)
    for i in range(8):
        n = int(factors["visibility"][i].sum()) - 1
        assert label[i].max() <= n
        for k in range(1, n + 1):
            column, row, depth = factors["pixel_coords"][i, k]
            mine = np.stack(np.nonzero(label[i] == k)).T * 3.0 + np.array([29.5, 64.5])  # in pixels of the whole image
            if len(mine) > 25:
                assert np.linalg.norm(mine.mean(0) - (row, column)) < 25
                reach = 0.7 if factors["size"][i, k] == 1 else 0.35
                assert np.abs(mine - (row, column)).max() < 1.8 * reach * 350 / depth
        for name in ("color", "material", "shape", "size"):
            assert (factors[name][i, 1 : n + 1] > 0).all()
            assert (factors[name][i, n + 1 :] == 0).all()
            assert factors[name][i, 0] == 0
        assert (factors["z"][i, 1 : n + 1] > 0.2).all()


def test_a_scene_depends_on_seed_and_position_alone(made):
    generator = ClevrGenerator(seed=7, size=64, device="cpu")
    image, label, _ = next(generator.scenes(5, 7))
    np.testing.assert_array_equal(image, made[0][5:7])
    np.testing.assert_array_equal(label, made[1][5:7])
    generator._batch = 3  # as on a GPU, several scenes at once
    together, labels, _ = next(generator.scenes(4, 7))
    np.testing.assert_array_equal(labels, made[1][4:7])
    difference = np.abs(together.astype(int) - made[0][4:7])
    assert (difference > 1).mean() < 2e-3
    assert not np.array_equal(next(ClevrGenerator(8, 64, "cpu").scenes(0, 1))[0], made[0][:1])


def test_images_look_like_the_real_ones():
    """Within what two real scenes can tell: each of them lies among the generated ones."""
    with np.load(DATA / "clevr_two_scenes.npz") as file:
        real = crop_and_resize(file["image"], file["label"], 64)
    image, label, _ = next(ClevrGenerator(seed=1, size=64, device="cpu").scenes(0, 24))

    def corners(pictures):
        parts = pictures[:, :6, :6], pictures[:, :6, -6:], pictures[:, -6:, :6], pictures[:, -6:, -6:]
        return np.stack([np.median(part, axis=(1, 2)).mean(-1) for part in parts], axis=1)

    def table(pictures, labels):
        return np.stack([picture[owner == 0].mean(0) for picture, owner in zip(pictures, labels, strict=True)])

    np.testing.assert_allclose(np.median(corners(image), 0), corners(real[0]).mean(0), atol=12)
    np.testing.assert_allclose(table(image, label).mean(0), table(*real).mean(0), atol=6)
    assert (table(image, label).min(0) < table(*real).min(0)).all()
    assert (table(image, label).max(0) > table(*real).max(0)).all()


def test_too_small_an_image_is_refused():
    with pytest.raises(ValueError, match="size must be at least 8 pixels, got 4"):
        ClevrGenerator(size=4)
