"""Curves for people to read: thinned, smoothed, and with the scale that shows them better."""

from collections.abc import Sequence

import numpy as np

from lediflow.tracking.event_log import Curve

# drawn values come no nearer to the ends of float64, so that their sums and the ends of axes are finite
SMALLEST, LARGEST = 1e-300, 1e300
MAX_POINTS = 1200  # more than a plot has pixels
WINDOW = 0.015  # standard deviation of the smoothing window, as a share of the curve's length


def finite(curve: Curve) -> Curve:
    """The points whose value is finite."""
    known = np.isfinite(curve.values)
    return Curve(curve.images_seen[known], curve.values[known])


def spans_decades(curves: Sequence[Curve], factor: float = 12.0) -> bool:
    """Whether a logarithmic axis shows the curves better: all values positive, largest / smallest above `factor`."""
    values = np.concatenate([curve.values for curve in curves])
    return bool(values.size and values.min() > 0 and values.max() / factor > values.min())


def thin(curve: Curve, most: int = MAX_POINTS) -> Curve:
    """At most `most` points, each the mean of a run of neighbours."""
    if len(curve.values) <= most:
        return curve
    parts = [np.array_split(np.clip(values, -LARGEST, LARGEST), most) for values in curve]
    return Curve(*(np.array([part.mean() for part in split]) for split in parts))


def smooth(curve: Curve, window: float = WINDOW, in_logs: bool = False) -> Curve:
    """Replace each value by the mean of the values around it, weighted by a centred Gaussian, so without lag.

    `window` is the Gaussian's standard deviation as a share of the curve's length. `in_logs` takes geometric means,
    which lie in the middle of the raw points on a logarithmic axis.
    """
    if len(curve.values) < 3:
        return curve
    x = curve.images_seen.astype(np.float64)
    weights = np.exp(-0.5 * ((x[:, None] - x[None, :]) / max(window * np.ptp(x), 1e-9)) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    values = np.exp(weights @ np.log(curve.values)) if in_logs else weights @ curve.values
    return Curve(curve.images_seen, values)
