"""The table of results/campaign/samplers_*.json: latent samplers."""

from __future__ import annotations

import shlex

from pages.experiments.quality import CLOSE_UP, by_source, taken_on
from pages.markdown import table
from pages.stored import Results

HEADS = ["sampler", "overrides", "images seen", "loss, training", "held-out", "lowest held-out"]


def lines(document: Results) -> list[str]:
    """A comparison of latent samplers: images seen, losses, and the quality of those that were measured."""
    results, measured = document["results"], document["results"]["samplers"]
    given = asked(document["certificate"]["command"])
    solves = dict.fromkeys(key.split(", ")[1] for key in measured)
    finished = {command["command"].split("run=")[-1] for command in results["commands"] if command["seconds"]}
    body = []
    for name, found in results["losses"].items():
        if not found["images_seen"]:
            continue
        is_finished = any(run.endswith(f"/sampler_{name}") for run in finished)
        seen = f"{found['images_seen']:,}" + ("" if is_finished else ", cut off")
        lowest = f"{found['held_out_lowest']:.3f} at {found['held_out_lowest_at']:,}"
        numbers = [f"{found['training']:.3f}", f"{found['held_out']:.3f}", lowest]
        rows = [measured.get(f"{name}, {solve}") for solve in solves]
        body.append([name, f"`{given.get(name) or 'none'}`", seen, *numbers, *map(by_source, rows)])
    return [
        *table([*HEADS, *(f"MMD, w -> z by {solve}" for solve in solves)], body),
        "",
        f"{taken_on(measured)} z of training images / of held-out images / from the sampler, {CLOSE_UP} evaluations "
        "of the flow.",
    ]


def asked(command: str) -> dict[str, str]:
    """The overrides of each sampler, by its name, as the command gave them."""
    words = shlex.split(command)
    found: dict[str, str] = {}
    for word in words[words.index("--samplers") + 1 :] if "--samplers" in words else []:
        if word.startswith("--"):
            break
        name, _, overrides = word.partition("=")
        found[name] = overrides.replace(",", " ")
    return found
