"""Markdown tables of results/campaign/*.json: a renderer for each kind of experiment in tools/campaign."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from statistics import median
from typing import Any

from markdown_tables import cell, folded, number, table

Results = dict[str, Any]
Setting = tuple[int, str]  # evaluations, solver
BASELINE = "FM (Gaussian noise)"
CLOSE_UP = 4  # evaluations at which the sources of z are compared
SOURCES = "by source of z, and losses of the models"  # summary of what is folded
BOLD = "z from the latent sampler; the best of a column is bold."
KINDS = ("training", "heldout", "sampler")
START = re.compile(r"(?:(?P<kind>[a-z]+)(?P<value>[\d.]+)_)?s(?P<width>auto|[\d.]+)")
WEIGHTS = re.compile(r"p(?P<exponent>[\d.]+)_cap(?P<cap>[\d.]+)")


def widths_lines(document: Results) -> list[str]:
    """A comparison of starts of the flow: quality, sources of z, losses."""
    results = document["results"]
    flows, prior = results["flows"], results["prior_held_out"]
    names = {name: start(name, found["width"]) for name, found in flows.items()}
    held_out = (
        f"The prior's typical sigma on {prior['images']:,} held-out images is {prior['sigma_geometric_mean']:.3f}, the "
        f"latent's KL {prior['kl_nats_per_image']:.0f} nats."
    )
    return [
        *quality(flows, names),
        "",
        f"{taken_on(flows)} {BOLD} {held_out}",
        "",
        *folded(
            SOURCES,
            *close_up(flows, names, {name: f"flow_{name}" for name in flows}, results["losses"]),
            "",
            *models({name: results["losses"][name] for name in ("auxiliary", "sampler", "fm")}),
            *verdicts(flows),
        ),
    ]


def small_lines(document: Results) -> list[str]:
    """A chain with several settings: quality for each source of z, on unseen photographs, losses of every model."""
    results = document["results"]
    cures, widths = results["cures"], results.get("widths", {})
    names = {name: with_start(name, widths.get(name)) for name in cures}
    return [
        *quality(cures, names),
        "",
        f"{taken_on(cures)} {BOLD}",
        "",
        *unseen(results, names),
        *folded(
            SOURCES,
            *close_up(cures, names, {name: f"{name}_flow" for name in cures}, results["losses"]),
            "",
            *models({name: found for name, found in results["losses"].items() if not name.endswith("_flow")}),
            *verdicts(cures),
        ),
    ]


def with_start(name: str, width: Results | None) -> str:
    """The name of a setting with the start of its flow."""
    if width is None:
        return name
    scale = "" if width["k"] == 1 else f"{width['k']:g} sigma, "
    return f"{name} ({scale}s = {width['s']:g})"


def unseen(results: Results, names: dict[str, str]) -> list[str]:
    """MMD to photographs that no model was trained on, and how often images are closer to a training image."""
    found = results.get("unseen")
    if not found:
        return []
    lines = {
        name: {(row["nfe"], row["solver"]): row["mmd_unbiased"] for row in rows}
        for name, rows in found.items()
    }
    settings = sorted({setting for line in lines.values() for setting in line})
    best = {setting: min(line[setting] for line in lines.values() if setting in line) for setting in settings}
    body = []
    for name, line in lines.items():
        copies = results["copies"].get(name)
        nearest = copies[0]["nearest_training"] if copies else {}
        shares = [number(nearest.get("share_closer")), number(nearest.get("share_memorised"))]
        cells = [cell(line.get(setting), best[setting]) for setting in settings]
        body.append([names.get(name, name), *cells, *shares])
    columns = [f"{nfe} ({solver})" for nfe, solver in settings]
    return [
        *table(["against unseen photographs", *columns, "closer to training", "copies"], body),
        "",
        "The same metric against photographs that no model was trained on. Closer to training: the probability that an "
        "image is nearer to a training image than a held-out photograph is (0.5: no copying, 1: copies). Copies: the "
        "fraction of images whose nearest training image is less than a third as far away as the second nearest.",
        "",
    ]


def memorising_lines(document: Results) -> list[str]:
    """Auxiliary models by regularisation: lowest and last held-out loss, and the best weights on other pictures."""
    cures = document["results"]["cures"]
    heads = [
        "cure",
        "lowest held-out loss",
        "at images",
        "last",
        "training",
        "NLL on other pictures",
        "sigma",
        "KL",
    ]
    body = []
    for name, found in cures.items():
        loss, best = found["losses"], found.get("best_on_others", {})
        body.append(
            [
                name,
                number(loss.get("held_out_lowest")),
                f"{loss['held_out_lowest_at']:,}" if "held_out_lowest_at" in loss else "",
                number(loss.get("held_out")),
                number(loss.get("training")),
                *(number(best.get(key)) for key in ("nll_nats", "sigma_geometric_mean", "kl_nats_per_image")),
            ]
        )
    others: Results = next(
        (found["best_on_others"] for found in cures.values() if "best_on_others" in found), {}
    )
    said = f" on {others['images']:,} pictures that no model was trained on" if others else ""
    return [
        *table(heads, body),
        "",
        "Held-out losses are those of the averaged weights. The exported weights, which had the lowest held-out loss, "
        f"are measured{said}: negative log density in nats per entry, typical sigma, KL in nats per image.",
    ]


def samplers_lines(document: Results) -> list[str]:
    """A comparison of latent samplers: images seen, losses, and the quality of those that were measured."""
    results, measured = document["results"], document["results"]["samplers"]
    given = asked(document["certificate"]["command"])
    solves = dict.fromkeys(key.split(", ")[1] for key in measured)
    finished = {command["command"].split("run=")[-1]: command["seconds"] for command in results["commands"]}
    body = []
    for name, found in results["losses"].items():
        if not found["images_seen"]:
            continue
        ended = next((time for run, time in finished.items() if run.endswith(f"/sampler_{name}")), None)
        seen = f"{found['images_seen']:,}" + ("" if ended else ", cut off")
        lowest = f"{found['held_out_lowest']:.3f} at {found['held_out_lowest_at']:,}"
        numbers = [f"{found['training']:.3f}", f"{found['held_out']:.3f}", lowest]
        rows = [measured.get(f"{name}, {solve}") for solve in solves]
        body.append([name, f"`{given.get(name) or 'none'}`", seen, *numbers, *map(by_source, rows)])
    heads = ["sampler", "overrides", "images seen", "loss, training", "held-out", "lowest held-out"]
    return [
        *table([*heads, *(f"MMD, w -> z by {solve}" for solve in solves)], body),
        "",
        f"{taken_on(measured)} z of training images / of held-out images / from the sampler, {CLOSE_UP} evaluations "
        "of the flow.",
    ]


def joint_lines(document: Results) -> list[str]:
    """Decoders trained together with the flow: quality by source of z, and measures of the prior on held-out images."""
    results, measured = document["results"], document["results"]["settings"]
    setup, before = results["setup"], results["prior_held_out"]
    names = {name: joint_decoder(name) for name in measured}
    lines: list[str] = []
    for z, words in (("heldout", "z of held-out images"), ("sampler", "z from the latent sampler")):
        rows = [row for found in measured.values() for row in found["rows"] if row["z"] == z]
        if rows:
            lines += [f"{words[0].upper()}{words[1:]}:", "", *quality(measured, names, z, "decoder"), ""]
            lines += [f"{taken_on(measured, z)} The best of a column is bold.", ""]
    priors = {"before": before} | {names[name]: found["prior_held_out"] for name, found in measured.items()}
    losses = {names[name]: found["losses"] for name, found in measured.items()}
    body = [
        [
            name,
            *(number(prior[key]) for key in ("sigma", "residual", "vgl", "mean_moved")),
            *(number(losses.get(name, {}).get(part)) for part in ("training", "held_out")),
        ]
        for name, prior in priors.items()
    ]
    heads = ["decoder", "sigma", "residual", "VGL", "mean moved by", "flow's loss, training", "held-out"]
    return [
        *lines,
        *table(heads, body),
        "",
        f"Typical sigma and residual (geometric means), VGL and root mean square by which mu moved, on "
        f"{results['held_out_images']:,} held-out images; sigma is not widened, the start is (s = "
        f"{setup['prior_widening']:g}). The flow's losses are without the regulariser; each weighs errors by its own "
        f"sigma. {setup['images']:,} images seen, batch {setup['batch']}, learning rate {setup['learning_rate']:g}, "
        f"of the decoder {setup['decoder_rate']:g} times that.",
    ]


def joint_decoder(name: str) -> str:
    """A setting's name in words: `joint:0.1` is "trained on, 0.1 x log variance moved, squared"."""
    kind, _, weight = name.partition(":")
    if kind == "frozen":
        return kind
    if float(weight) == 0:
        return "trained on, not regularised"
    return f"trained on, {weight} x {'VGL' if kind == 'joint_nll' else 'log variance moved, squared'}"


def flow_map_lines(document: Results) -> list[str]:
    """Teachers and their flow maps: a row for each flow and sampler, a column for each number of calls."""
    results = document["results"]
    rows = results["rows"]
    lines = {name: {row["nfe"]: row["mmd_unbiased"] for row in found} for name, found in rows.items()}
    calls = sorted({nfe for line in lines.values() for nfe in line})
    best = {nfe: min(line[nfe] for line in lines.values() if nfe in line) for nfe in calls}
    body = [
        [*flow_and_sampler(name), *(cell(lines[name].get(nfe), best[nfe]) for nfe in calls)] for name in lines
    ]
    half = median(
        (high - low) / 2 for found in rows.values() for row in found for low, high in [row["mmd_interval"]]
    )
    return [
        *table(["flow", "calls of the sampler", *(f"{nfe}" for nfe in calls)], body),
        "",
        f"{results['mmd_name']}, unbiased, times 1000, by calls of the flow: {results['images']:,} generated images "
        f"against all {results['reference_images']:,} photographs; lower is better. Half of a 95 % interval is "
        f"{half:.2f} (median). The best of a column is bold.",
        "",
        *models(
            {name: found for name, found in results["losses"].items() if name in rows or "_" not in name}
        ),
    ]


SOLVED = {"euler": "Euler", "midpoint": "midpoint", "reflow": "straightened, Euler"}
EIGHT, ONE, NONE = "8", "1 (map)", ""


def flow_and_sampler(name: str) -> list[str]:
    """What a row of a campaign of flow maps measures, in words: the flow, and calls of the latent sampler."""
    kind, _, rest = name.partition("_")
    method, _, precision = rest.partition("_")
    solved = SOLVED.get(method, "") + (f", in {precision}" if precision else "")
    if kind == "fm":
        return [f"FM, {solved}" if solved else "flow map of FM", NONE]
    if kind == "teacher":
        return [f"teacher `{rest}`, midpoint", EIGHT]
    if kind == "sampler":
        return ["LeDiFlow, midpoint", ONE]
    return [f"LeDiFlow, {solved}" if solved else f"flow map `{rest}`", ONE if kind == "both" else EIGHT]


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


def quality(measured: Results, names: dict[str, str], z: str = "sampler", head: str = "start") -> list[str]:
    """A row for each flow and the baseline, for one source of z; a column for each solver and number of calls."""
    lines = {name: values(found["rows"], z) for name, found in measured.items()}
    lines[BASELINE] = {
        setting: value
        for found in measured.values()
        for setting, value in values(found["rows"], "gaussian").items()
    }
    settings = sorted({setting for line in lines.values() for setting in line})
    best = {setting: min(line[setting] for line in lines.values() if setting in line) for setting in settings}
    order = [BASELINE, *measured] if lines[BASELINE] else [*measured]
    body = [
        [
            names.get(name, name),
            *(cell(lines[name].get(setting), best[setting]) for setting in settings),
        ]
        for name in order
    ]
    return table([head, *(f"{nfe} ({solver})" for nfe, solver in settings)], body)


def values(rows: list[Results], z: str) -> dict[Setting, float]:
    """MMD by setting, for one source of z, without the rows of the prior alone."""
    return {(row["nfe"], row["solver"]): row["mmd"] for row in rows if row["z"] == z and row["nfe"]}


def close_up(
    measured: Results, names: dict[str, str], runs: dict[str, str], losses: dict[str, Results]
) -> list[str]:
    """MMD for each source of z at few evaluations, and the flow's losses."""
    body = [
        [
            names[name],
            by_source(found),
            *(number(losses[runs[name]].get(part)) for part in ("training", "held_out")),
        ]
        for name, found in measured.items()
    ]
    heads = [
        "start",
        f"z of training / held-out images / sampler, {CLOSE_UP} evaluations",
        "flow's loss, training",
        "held-out",
    ]
    return table(heads, body)


def by_source(found: Results | None) -> str:
    """MMD with z of training images / held-out images / the sampler; midpoint if there are several solvers."""
    if found is None:
        return ""
    each = [values(found["rows"], z) for z in KINDS]
    solvers = [solver for line in each for nfe, solver in line if nfe == CLOSE_UP]
    solver = "midpoint" if "midpoint" in solvers else solvers[0]
    return " / ".join(number(line.get((CLOSE_UP, solver))) for line in each)


def models(losses: dict[str, Results]) -> list[str]:
    """Images seen and losses of each model."""
    body = [
        [name, f"{found['images_seen']:,}", number(found.get("training")), number(found.get("held_out"))]
        for name, found in losses.items()
        if found["images_seen"]
    ]
    return table(["model", "images seen", "loss, training", "loss, held-out"], body)


def taken_on(measured: Results, z: str = "sampler") -> str:
    """The sentence below a table that says what its numbers are."""
    first = next(iter(measured.values()))
    rows = [row for found in measured.values() for row in found["rows"] if row["z"] == z]
    half = median((row["high"] - row["low"]) / 2 for row in rows)
    return (
        f"{first['mmd_name']}, unbiased, times 1000: {first['images']:,} generated images against all "
        f"{first['reference_images']:,} photographs; lower is better. Half of a 95 % interval is {half:.2f} (median)."
    )


def verdicts(measured: Results) -> list[str]:
    """How often `mode=stages` named each stage as the limit of the quality."""
    said = [named(found["verdict"]) for found in measured.values() if found.get("verdict")]
    counted = ", ".join(f"{name} {said.count(name)} times" for name in dict.fromkeys(said))
    return ["", f"The limit of the quality according to `mode=stages`: {counted}."] if said else []


def named(verdict: Results) -> str:
    """The stage, with what is wrong with it; earlier results have no cause."""
    cause = verdict.get("cause")
    return f"{verdict['limits']} ({cause})" if cause else str(verdict["limits"])


def shift_lines(document: Results) -> list[str]:
    """MMD between a set and other photographs of the same source: a lower bound for models trained on the set."""
    body = []
    for name, found in document["results"]["sets"].items():
        low, high = found["mmd_interval"]
        value = f"{number(found['mmd_unbiased'])} [{number(low)}, {number(high)}]"
        counts = [f"{found[part]:,}" for part in ("images", "reference_images")]
        body.append([name, *counts, value])
    return table(["set", "photographs of it", "unseen photographs", "MMD"], body)


LINES: dict[str, Callable[[Results], list[str]]] = {
    "widths": widths_lines,
    "samplers": samplers_lines,
    "small": small_lines,
    "shift": shift_lines,
    "memorising": memorising_lines,
    "joint": joint_lines,
    "flow_maps": flow_map_lines,
}
