"""All numbers that the event log of a run may hold, for the views that see whole logs: sync, dashboards, CSV.

The table joins what training records (`tracking/metrics.py:VALUES`), what the stages declare besides (`STAGES`), and
what `evaluate --watch` adds to the log of a run: the metrics of images (`METRICS`), their cost, and diagnostics of a
prior. It is built when it is asked for, so that entries added from outside the package are in it.
"""

from __future__ import annotations

from lediflow.evaluation.metrics import METRICS
from lediflow.stages import STAGES
from lediflow.tracking.metrics import (
    PRIOR,
    QUALITY,
    VALUES,
    LoggedValue,
    Values,
    higher,
    lower,
    neutral,
    of_stage,
)

# under evaluation/SOLVER_STEPS, besides the metrics
COSTS: Values = {
    "ms_per_image": lower(QUALITY, "time for an image, {}", "ms"),
    "nfe": neutral(QUALITY, "calls of the network for an image, {}"),
}
# under evaluation/prior: what evaluation/prior.py measures and the log keeps
DIAGNOSTICS: Values = {
    "nll_nats": lower(PRIOR, "negative log-likelihood of the prior", "nats per pixel and channel"),
    "nll_bits_per_byte": lower(PRIOR, "negative log-likelihood of the prior", "bits per byte"),
    "kl_nats_per_image": neutral(PRIOR, "KL of the latents", "nats per image"),
    "z_mean": neutral(PRIOR, "mean of the prior's z-scores"),
    "z_variance": neutral(PRIOR, "variance of the prior's z-scores"),
    "z_kurtosis": neutral(PRIOR, "kurtosis of the prior's z-scores"),
    "ence": lower(PRIOR, "calibration error of sigma (ENCE)"),
    "coverage_error": lower(PRIOR, "coverage error of sigma"),
    "sigma_mean": neutral(PRIOR, "mean sigma"),
    "sigma_geometric_mean": neutral(PRIOR, "geometric mean of sigma"),
    "sigma_rms": neutral(PRIOR, "root mean square of sigma"),
    "share_at_floor": neutral(PRIOR, "share of evaluated pixels at the floor of sigma", "", "max", "last"),
    "psnr": higher(PRIOR, "PSNR of the prior's mean", "dB"),
    "psnr_of_mean_error": higher(PRIOR, "PSNR of the mean error", "dB"),
}


def logged_values(stage: str | None = None) -> Values:
    """Entries by name or pattern, of the runs of a stage.

    Without a stage those of any run, with the common entry where stages differ.
    """
    declared: dict[str, LoggedValue] = {}
    for name, kind in STAGES.items():
        if stage in (None, name):
            declared |= of_stage(kind.values)
    common = evaluation_values() | VALUES
    return declared | common if stage is None else common | declared


def evaluation_values() -> dict[str, LoggedValue]:
    """The entries of the event `evaluation`."""
    prior = {f"evaluation/prior/{key}": value for key, value in DIAGNOSTICS.items()}
    rows = {f"evaluation/*/{key}": value for key, value in (metric_values() | dict(COSTS)).items()}
    return prior | rows


def metric_values() -> dict[str, LoggedValue]:
    """The entries of the metrics of images, under every key that the log keeps."""
    found: dict[str, LoggedValue] = {}
    for metric in METRICS.values():
        for key in metric.logged:
            found[key] = neutral(QUALITY, f"{metric.name}: {key.replace('_', ' ')}, {{}}")
        make = lower if metric.direction == "lower" else higher
        found[metric.shown_key] = make(QUALITY, f"{metric.name}, {{}}")
    return found
