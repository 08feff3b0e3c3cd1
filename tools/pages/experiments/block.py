"""The block of one experiment's results file: its tables, where they come from, and the command."""

from __future__ import annotations

from collections.abc import Callable

from pages import origins
from pages.experiments import (
    comparison,
    flow_maps,
    joint_decoder,
    memorising,
    samplers,
    shift,
    small_sets,
    temperatures,
    widths,
)
from pages.markdown import folded
from pages.stored import Results

# by the beginning of a file's name
LINES: dict[str, Callable[[Results], list[str]]] = {
    "widths_": widths.lines,
    "samplers_": samplers.lines,
    "small_": small_sets.lines,
    "shift_": shift.lines,
    "memorising_": memorising.lines,
    "joint_": joint_decoder.lines,
    "flow_maps_": flow_maps.lines,
    "temperatures_": temperatures.lines,
    "comparison_": comparison.lines,
}


def block(document: Results, lines: Callable[[Results], list[str]]) -> str:
    """The tables of an experiment, and where they come from."""
    certificate = document["certificate"]
    where = f"{origins.about_run(certificate)}. {origins.of_experiment(document['results'])}".rstrip()
    command = folded("command", "```bash", certificate["command"], "```")
    return "\n".join([*lines(document), "", where, "", *command])
