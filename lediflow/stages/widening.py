"""Options of a stage that starts from the learned prior, widened to N(mu, (k sigma)^2 + s^2).

Such a stage declares `widens_prior` (lediflow/stages/protocol.py) and has the options `prior_widening` for s and
`prior_scale` for k. With `auto` the width is measured on prior and data when the run begins
(lediflow/config/building/prior_width.py).
"""

from __future__ import annotations

from typing import Protocol

from lediflow.errors import UserError
from lediflow.flow.widening import Width

AUTO = "auto"  # measure the width on the prior and the data when the run begins
AUTO_SCALE = 3.0  # the value of prior_scale=auto if prior_widening=auto


class WideningOptions(Protocol):
    """The two options, both `auto` or a number."""

    @property
    def prior_widening(self) -> int | float | str: ...
    @property
    def prior_scale(self) -> int | float | str: ...


def scale_of(options: WideningOptions) -> float:
    """k in N(mu, (k sigma)^2 + s^2); `auto` is 1 if s is a number: prior_widening=s gives N(mu, sigma^2 + s^2)."""
    if options.prior_scale != AUTO:
        return float(options.prior_scale)
    return AUTO_SCALE if options.prior_widening == AUTO else 1.0


def given_width(options: WideningOptions) -> Width | None:
    """The width given by the options; None for `auto`, which is measured at the start of the run."""
    if options.prior_widening == AUTO:
        return None
    return Width(scale_of(options), float(options.prior_widening))


def check_unwidened(options: WideningOptions) -> None:
    """Reject a width of the learned prior where there is none."""
    widening, scale = options.prior_widening, options.prior_scale
    if widening in (0, AUTO) and scale in (1, AUTO):
        return
    asked = f"stage.prior_scale={scale}" if widening in (0, AUTO) else f"stage.prior_widening={widening}"
    raise UserError(
        f"{asked} widens the learned prior, and prior=gaussian has none; leave "
        f"stage.prior_widening at 0 or {AUTO}, which is 0 there, and stage.prior_scale at 1 or {AUTO}"
    )
