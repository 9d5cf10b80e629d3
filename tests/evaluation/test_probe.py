"""The linear probe gives the reference code's numbers and fits least squares."""

import numpy as np
import pytest
import torch
from reference import DATA

from iodine_pl.evaluation.matching import slot_of_entity
from iodine_pl.evaluation.probe import LinearProbe, factor_sizes

KINDS = {"scalar": "scalar", "angle": "angle", "categorical": "category"}


@pytest.fixture(params=["tetrominoes", "multi_dsprites", "clevr6"])
def official(request):
    """Returns what the reference code was given and what it computed."""
    with np.load(DATA / "factor.npz") as file:
        names = [name for name in file if name.startswith(f"{request.param}/")]
        return request.param, {name.split("/", 1)[1]: file[name] for name in names}


def visible_objects(official):
    """Returns the latents and factors of the visible entities, matched to slots by our rule."""
    true, predicted = official["true_mask"][..., 0], official["pred_mask"][..., 0]
    slots = slot_of_entity(torch.from_numpy(true.argmax(axis=1)), torch.from_numpy(predicted), true.shape[1]).numpy()
    visible = official["visibility"] > 0
    latents = np.take_along_axis(official["z"], slots[..., None], axis=1)[visible]
    factors = {name.removeprefix("latent/"): x[visible] for name, x in official.items() if name.startswith("latent/")}
    return slots, visible, latents, factors


def test_matching_equals_the_reference_code(official):
    _, official = official
    slots, visible, _, _ = visible_objects(official)
    covers = official["true_mask"].sum(axis=(2, 3, 4)) > 0
    shown = visible & covers
    assert shown.sum() >= 8
    assert (slots[shown] == official["assignment"].argmax(axis=2)[shown]).all()


def test_probe_scores_equal_the_reference_code(official):
    dataset, official = official
    _, _, latents, factors = visible_objects(official)
    kinds = {name: KINDS[kind] for name, _, kind in official["mapping"]}
    sizes = {name: int(size) for name, size, _ in official["mapping"]}
    probe = LinearProbe(kinds, sizes, official["w"].astype(float), official["b"].astype(float))
    scores = probe.score(latents, factors)
    categories = [name for name, kind in kinds.items() if kind == "category"]
    if dataset == "clevr6":
        # The reference code reads the size from the color; codes above 2 then have no output, and no loss.
        categories.remove("size")
    else:
        assert probe.loss(latents, factors) == pytest.approx(float(official["loss"]), rel=1e-5)
    for name in categories:
        assert scores[name] == pytest.approx(float(official[f"scalar/{name}"]), abs=1e-6)


def objects(count=400, seed=0):
    random = np.random.default_rng(seed)
    latents = random.normal(size=(count, 6)) * [1, 2, 3, 1, 1, 0] + 1.0
    factors = {
        "place": latents[:, :2] @ [[1.0, 2.0], [0.5, -1.0]] + 3.0,
        "turn": np.arctan2(latents[:, 2], latents[:, 3]),
        "kind": 1 + (latents[:, 4] > 1.0).astype(int) + 2 * (latents[:, 0] > 1.0),
        "two": 2 * (latents[:, 4] > 1.2).astype(int),
        "one": np.full(count, 3),
        "noise": random.normal(size=count),
    }
    return latents, factors


OWN_KINDS = {
    "place": "scalar",
    "turn": "angle",
    "kind": "category",
    "two": "category",
    "one": "category",
    "noise": "scalar",
}


def test_the_probe_finds_linear_factors():
    probe = LinearProbe.fit(*objects(), OWN_KINDS)
    assert probe.sizes == {"place": 2, "turn": 2, "kind": 5, "two": 3, "one": 4, "noise": 1}
    scores = probe.score(*objects(seed=1))
    assert scores["place"] == pytest.approx(1.0, abs=1e-9)
    assert 0.4 < scores["turn"] < 0.95
    assert scores["kind"] > 0.9
    assert scores["two"] > 0.95
    assert scores["one"] == 1.0
    assert abs(scores["noise"]) < 0.1


def test_the_probe_fits_least_squares():
    """No small change of the weights lowers the squared error on the data that were fitted."""
    latents, factors = objects(60)
    kinds = {"noise": "scalar", "turn": "angle"}
    probe = LinearProbe.fit(latents, factors, kinds)
    best = probe.loss(latents, factors)
    random = np.random.default_rng(3)
    for _ in range(20):
        weight = probe.weight + 1e-3 * random.normal(size=probe.weight.shape)
        assert LinearProbe(kinds, probe.sizes, weight, probe.bias).loss(latents, factors) > best


def test_a_number_that_never_changes_has_no_score():
    probe = LinearProbe({"x": "scalar"}, {"x": 1}, np.ones((2, 1)), np.zeros(1))
    assert np.isnan(probe.score(np.zeros((3, 2)), {"x": np.ones(3)})["x"])


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="3 outputs"):
        LinearProbe({"x": "scalar"}, {"x": 3}, np.ones((2, 2)), np.zeros(2))
    with pytest.raises(ValueError, match="an angle is one"):
        factor_sizes({"x": np.zeros((3, 2))}, {"x": "angle"})
