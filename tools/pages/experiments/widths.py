"""Tables of results/campaign/widths_*.json: starts of the flow."""

from __future__ import annotations

import re

from pages.experiments.quality import BOLD, by_flow, folded_sources, taken_on
from pages.stored import Results

START = re.compile(r"(?:(?P<kind>[a-z]+)(?P<value>[\d.]+)_)?s(?P<width>auto|[\d.]+)")
WEIGHTS = re.compile(r"p(?P<exponent>[\d.]+)_cap(?P<cap>[\d.]+)")


def lines(document: Results) -> list[str]:
    """A comparison of starts of the flow: quality, sources of z, losses."""
    results = document["results"]
    flows, prior, losses = results["flows"], results["prior_held_out"], results["losses"]
    names = {name: start(name, found["width"]) for name, found in flows.items()}
    held_out = (
        f"The prior's typical sigma on {prior['images']:,} held-out images is {prior['sigma_geometric_mean']:.3f}, the "
        f"latent's KL {prior['kl_nats_per_image']:.0f} nats."
    )
    models = {name: f"flow_{name}" for name in flows}
    return [
        *by_flow(flows, names),
        "",
        f"{taken_on(flows)} {BOLD} {held_out}",
        "",
        *folded_sources(flows, names, models, ("auxiliary", "sampler", "fm"), losses),
    ]


def start(name: str, width: float) -> str:
    """A flow's name in words: `scale3_s0.1_p2_cap100` is "3 sigma, s = 0.1, weights 2 (cap 100)"."""
    weights = WEIGHTS.search(name)
    match = START.search(WEIGHTS.sub("", name))
    assert match
    parts = [f"auto: s = {width:g}" if match["width"] == "auto" else f"s = {width:g}"]
    if match["kind"] == "scale" and float(match["value"]) != 1:
        parts.insert(0, f"{match['value']} sigma")
    elif match["kind"] not in (None, "scale"):
        parts.insert(0, f"{match['kind']} {match['value']}")
    if weights:
        parts.append(f"weights {weights['exponent']} (cap {weights['cap']})")
    return ", ".join(parts)
