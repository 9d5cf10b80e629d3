"""Charts show a run's scalars."""

import math

from iodine_pl.report.curves import Events, charts_of
from iodine_pl.report.scores import with_interval


def chart(*runs, name="val/elbo"):
    (found,) = charts_of([Events({name: points} if points else {}, 0.0, None) for points in runs])
    return found


def places(curve):
    return [tuple(float(x) for x in point.split(",")) for point in curve["line"].split()]


def test_a_curve_goes_from_low_to_high():
    found = chart({0: 1.0, 50: 2.0, 100: 3.0})
    assert found["title"] == "ELBO (nats)"
    assert places(found["curves"][0]) == [(0, 120), (135, 60), (270, 0)]
    assert len(found["curves"][0]["dots"]) == 3
    assert [text for _, text in found["x"]] == ["0", "50", "100"]
    assert [text for _, text in found["y"]] == ["1", "1.5", "2", "2.5", "3"]
    assert [y for y, _ in found["y"]] == [120, 90, 60, 30, 0]


def test_two_runs_share_the_axes():
    found = chart({100: 0.0, 200: 2.0}, {400: 4.0})
    assert [curve["run"] for curve in found["curves"]] == [0, 1]
    assert places(found["curves"][0]) == [(67.5, 120), (135, 60)]
    assert places(found["curves"][1]) == [(270, 0)]
    assert [curve["run"] for curve in chart({}, {1: 2.0})["curves"]] == [1]


def test_odd_values_do_not_spoil_a_chart():
    found = chart({1: math.nan, 2: 5.0, 3: math.inf})
    assert len(places(found["curves"][0])) == 1
    assert charts_of([Events({"val/elbo": {1: math.nan}}, 0.0, None)]) == []
    many = chart({step: 1e6 if step < 5 else step / 1000 for step in range(1000)}, name="train/loss")
    points = places(many["curves"][0])
    assert len(points) == 200
    assert len({y for _, y in points}) > 50  # the first losses do not flatten the others
    assert all(0 <= x <= 270 and 0 <= y <= 120 for x, y in points)


def test_a_score_is_told_to_two_digits_of_its_interval():
    assert with_interval(0.96812, 0.0187) == ("0.968", "0.019")
    assert with_interval(0.00634, 0.000512) == ("0.0063", "0.0005")
    assert with_interval(1.0, 0.0) == ("1.000", "0.000")
