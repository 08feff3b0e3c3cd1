"""Tables of quality that several kinds of experiments have: MMD by flow, solver, evaluations and source of z."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from pages.experiments.losses import loss_cells, losses_table
from pages.markdown import best_in_bold, folded, number, table
from pages.stored import Results, alike, by_key

Setting = tuple[int, str]  # evaluations, solver
Interval = tuple[float, float]
BASELINE = "FM (Gaussian noise)"
CLOSE_UP = 4  # evaluations at which the sources of z are compared
SOURCES = "by source of z, and losses of the models"  # summary of what is folded
BOLD = "z from the latent sampler; the best of a column is bold."
KINDS = ("training", "heldout", "sampler")


def by_flow(measured: Results, names: dict[str, str], z: str = "sampler", head: str = "start") -> list[str]:
    """A row for each flow and the baseline, for one source of z; a column for each solver and number of calls."""
    lines = {name: values(found["rows"], z) for name, found in measured.items()}
    baseline = values([row for found in measured.values() for row in found["rows"]], "gaussian")
    if baseline:
        lines = {BASELINE: baseline} | lines
    settings = settings_of(lines)
    body = [[names.get(name, name), *cells] for name, cells in best_in_bold(lines, settings).items()]
    return table([head, *headings(settings)], body)


def setting(row: Results) -> Setting:
    return row["nfe"], row["solver"]


def settings_of(lines: dict[str, dict[Setting, float]]) -> list[Setting]:
    """All solvers and numbers of calls of these lines, in order."""
    return sorted({at for line in lines.values() for at in line})


def headings(settings: Iterable[Setting]) -> list[str]:
    """A head for each column: evaluations, and the solver where it is not midpoint for all of them."""
    settings = list(settings)
    if all(solver == "midpoint" for _, solver in settings):
        return [str(nfe) for nfe, _ in settings]
    return [f"{nfe} ({solver})" for nfe, solver in settings]


def values(rows: list[Results], z: str) -> dict[Setting, float]:
    """MMD by setting, for one source of z, without the rows of the prior alone."""
    return by_key((row for row in rows if row["z"] == z and row["nfe"]), setting, "mmd")


def by_source(found: Results | None) -> str:
    """MMD with z of training images / held-out images / the sampler; midpoint if there are several solvers."""
    if found is None:
        return ""
    each = [values(found["rows"], z) for z in KINDS]
    solvers = [solver for line in each for nfe, solver in line if nfe == CLOSE_UP]
    solver = "midpoint" if "midpoint" in solvers else solvers[0]
    return " / ".join(number(line.get((CLOSE_UP, solver))) for line in each)


def folded_sources(
    measured: Results, names: dict[str, str], flows: dict[str, str], others: Iterable[str], losses: Results
) -> list[str]:
    """What a reader opens: MMD by source of z with the losses of each flow, then those of the other models.

    `flows` has the name of each flow's model in `losses`, `others` those of the models that are no flows.
    """
    heads = [
        "start",
        f"z of training / held-out images / sampler, {CLOSE_UP} evaluations",
        "flow's loss, training",
        "held-out",
    ]
    body = [
        [names[name], by_source(found), *loss_cells(losses[flows[name]])] for name, found in measured.items()
    ]
    models = losses_table({name: losses[name] for name in others})
    return folded(SOURCES, *table(heads, body), "", *models, *verdicts(measured))


def verdicts(measured: Results) -> list[str]:
    """How often `mode=stages` named each stage as the limit of the quality."""
    said = [named(found["verdict"]) for found in measured.values() if found.get("verdict")]
    counted = ", ".join(f"{name} {said.count(name)} times" for name in dict.fromkeys(said))
    return ["", f"The stage that limits the quality, by `mode=stages`: {counted}."] if said else []


def named(verdict: Results) -> str:
    """The stage, with what is wrong with it; earlier results have no cause."""
    cause = verdict.get("cause")
    return f"{verdict['limits']} ({cause})" if cause else str(verdict["limits"])


def taken_on(measured: Results, z: str = "sampler") -> str:
    """The sentence below a table that says what its numbers are."""
    facts = alike([*measured.values()], "mmd_name", "images", "reference_images")
    rows = [row for found in measured.values() for row in found["rows"] if row["z"] == z]
    return f"{about_numbers(facts, ((row['low'], row['high']) for row in rows))}."


def about_numbers(facts: Results, intervals: Iterable[Interval], by: str = "") -> str:
    """Metric, counts of images and width of the intervals, without a full stop; `by` says what the columns are."""
    half = median((high - low) / 2 for low, high in intervals)
    return (
        f"{facts['mmd_name']}, unbiased, times 1000{by}: {facts['images']:,} generated images against all "
        f"{facts['reference_images']:,} photographs; lower is better. Half of a 95 % interval is {half:.2f} (median)"
    )
