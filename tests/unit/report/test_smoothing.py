"""Thinning, smoothing and the spreading of labels, against cases whose answer is plain."""

import numpy as np
import pytest

from lediflow.report.figure import spread
from lediflow.report.smoothing import finite, smooth, spans_decades, thin
from lediflow.tracking.event_log import Curve


def make_curve(values) -> Curve:
    values = np.asarray(values, dtype=np.float64)
    return Curve(np.arange(len(values)) * 100, values)


def test_smoothing_keeps_a_constant_and_the_middle_of_a_straight_line():
    assert np.allclose(smooth(make_curve(np.full(50, 3.0))).values, 3.0)
    line = np.linspace(0, 1, 201)
    inner = slice(20, -20)  # beyond four standard deviations of the window from either end
    assert np.allclose(smooth(make_curve(line)).values[inner], line[inner])


def test_smoothing_does_not_lag_behind():
    step = np.repeat([1.0, 0.0], 100)
    smoothed = smooth(make_curve(step)).values
    assert (smoothed[99] + smoothed[100]) / 2 == pytest.approx(0.5)
    assert np.allclose(smoothed, 1 - smoothed[::-1])


def test_smoothing_in_logs_takes_geometric_means():
    logs = smooth(make_curve(np.log([1.0, 100.0, 1.0, 100.0, 1.0])), window=0.5).values
    geometric = smooth(make_curve([1.0, 100.0, 1.0, 100.0, 1.0]), window=0.5, in_logs=True).values
    assert np.allclose(geometric, np.exp(logs))


def test_thinning_keeps_the_mean_and_does_not_change_short_curves():
    long = make_curve(np.arange(4000.0))
    thinned = thin(long, most=400)
    assert len(thinned.values) == 400
    assert thinned.values.mean() == pytest.approx(long.values.mean())
    assert thin(make_curve([1.0, 2.0]), most=400).values.tolist() == [1.0, 2.0]


def test_points_that_are_not_finite_are_left_out():
    kept = finite(make_curve([1.0, np.nan, 3.0, np.inf]))
    assert kept.images_seen.tolist() == [0, 200]
    assert kept.values.tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("values", "is_log"), [([1.0, 100.0], True), ([1.0, 5.0], False), ([-1.0, 100.0], False), ([], False)]
)
def test_a_log_scale_is_for_positive_values_far_apart(values, is_log):
    assert spans_decades([make_curve(values)]) is is_log


def test_distant_labels_are_not_moved():
    assert spread([0.9, 0.1, 0.5], gap=0.1).tolist() == [0.9, 0.1, 0.5]


def test_labels_that_overlap_move_apart_around_their_mean():
    assert spread([0.5, 0.5], gap=0.2) == pytest.approx([0.4, 0.6])


def test_labels_moved_into_a_neighbour_move_it_too():
    places = spread([0.50, 0.52, 0.60, 0.10], gap=0.1)
    assert places == pytest.approx([0.44, 0.54, 0.64, 0.10])  # a crowd of three around 0.54


def test_labels_stay_between_the_limits():
    assert spread([-0.3, 0.5, 1.2], gap=0.1, low=0.0, high=1.0).tolist() == [0.0, 0.5, 1.0]
    assert spread([0.97, 1.0, 0.3], gap=0.1, low=0.0, high=1.0) == pytest.approx([0.9, 1.0, 0.3])
    assert spread([0.5] * 3, gap=0.6, low=0.0, high=1.0) == pytest.approx([0.0, 0.6, 1.2])  # they do not fit
