"""The report of a run as one HTML file: no network, light and dark, at any width.

The markup is in templates/ (Jinja2, autoescaped). Each section has a template and a function here that returns the
template's variables, or None where there is no data: the section is then left out. Curves are figures that a script in
the page (uPlot, in templates/vendored) replaces by interactive ones; without scripts the page shows the main ones
still. A policy in the page allows its own scripts by their hashes, pictures inside the page, and no request.
"""

import base64
import hashlib
import io
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from lediflow.report.charts import Chart, by_name, charts_json
from lediflow.report.content import (
    CommandRun,
    LossPanel,
    Picture,
    PriorExample,
    ReportData,
    SettingMeasurement,
)
from lediflow.report.figure import SERIES, heat, heat_gradient
from lediflow.report.history import history_variables
from lediflow.report.limits import LIMITS, PAGE_BYTES, limited
from lediflow.report.pareto import quality_chart
from lediflow.report.quality import (
    COSTS,
    dash_legend,
    measurement_table,
    quality_lines,
    quality_plot,
)
from lediflow.report.training import OTHER_SERIES, bin_plot, in_order, loss_plot
from lediflow.text import duration, steps_text

# the first characters of every report, also of earlier releases: what marks a file that may be replaced
BEGINNING = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">\
<meta name="color-scheme" content="light dark"><title>"""
MAX_PRIORS = 6  # more say nothing new and make the page long
SAMPLES_CAPTION = "Generated. Not selected: the first ones drawn."

UPLOT = "uPlot-1.6.32"  # MIT licence, https://github.com/leeoniya/uPlot
METHOD_COLOURS, OTHER_COLOURS = (1, 2, 3, 4, 5, 6), (3, 4, 5, 6, 1, 2)  # of lines, by their order

Variables = Mapping[str, Any]


class Section(NamedTuple):
    """A section as page.html shows it."""

    name: str  # of its template; also its anchor
    label: str  # in the page's navigation
    html: Markup


def build_report(data: ReportData) -> str:
    """The whole page, of at most PAGE_BYTES: one of large pictures or many curves shows less of them."""
    for limits in LIMITS:
        page = build_page(limited(data, limits), limits.points)
        if len(page.encode()) <= PAGE_BYTES:
            break
    return page


def build_page(data: ReportData, points: int) -> str:
    """The page of this content, with this many points of curves."""
    templates = template_environment()
    charts: list[Chart] = []

    def chart_number(chart: Chart) -> int:
        charts.append(chart)
        return len(charts) - 1

    templates.filters["chart_number"] = chart_number
    sections = []
    for name, (label, variables_of) in SECTIONS.items():
        variables = variables_of(data)
        if variables is not None:
            html = templates.get_template(f"sections/{name}.html").render(variables)
            sections.append(Section(name, label, Markup(html)))
    scripts = [Markup(template_file(name)) for name in (f"vendored/{UPLOT}.iife.min.js", "report.js")]
    page = {
        "data": data,
        "sections": sections,
        "charts": charts_json(charts, points),
        "scripts": scripts,
        "hashes": [script_hash(script) for script in scripts],
        "styles": Markup(template_file(f"vendored/{UPLOT}.min.css")),
        "licence": Markup(template_file(f"vendored/{UPLOT}.LICENSE")),
    }
    return templates.get_template("page.html").render(page) + "\n"


def template_file(name: str) -> str:
    """The text of a file in templates/, which is not read as a template."""
    return (files("lediflow.report") / "templates" / name).read_text(encoding="utf-8")


def script_hash(script: str) -> str:
    """The hash of a script as a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def template_environment() -> Environment:
    """The templates of this package; an undefined variable is an error."""
    environment = Environment(
        loader=PackageLoader("lediflow.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"png_uri": png_uri, "zip": lambda first, second: zip(first, second, strict=True)}
    return environment


def png_uri(pixels: Picture) -> str:
    """The picture as a data: URI of a PNG; a grey picture may have no channel axis or one of size 1."""
    if pixels.dtype != np.uint8:
        raise ValueError(
            f"picture of dtype {pixels.dtype}; pass uint8, height x width or height x width x channels"
        )
    buffer = io.BytesIO()
    flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    Image.fromarray(flat).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def samples(data: ReportData) -> Variables | None:
    """Generated images, and as many photographs where there are some."""
    if not data.samples:
        return None
    return {
        "samples": data.samples,
        "samples_caption": SAMPLES_CAPTION,
        "photographs": data.photographs,
        "photographs_caption": data.photographs_caption,
        "columns": 4 if len(data.samples) <= 16 else 6,
    }


def steps(data: ReportData) -> Variables | None:
    """Images from the same noise, a row for each number of steps."""
    comparison = data.step_comparison
    if comparison is None:
        return None
    return {
        "solver": comparison.solver,
        "labels": [steps_text(count) for count in comparison.steps],
        "pictures": comparison.pictures,
        "images": comparison.images,
    }


def quality(data: ReportData) -> Variables | None:
    """Quality against evaluations, and against milliseconds where these were measured; a table of all numbers."""
    if not data.measurements:
        return None
    costs = [cost for cost in COSTS if quality_lines(data.measurements, cost)]
    return {
        "plots": [drawn_twice(data.measurements, cost, data.mmd_name, data.real_mmd) for cost in costs],
        "dash_legend": dash_legend(data.measurements),
        "table": measurement_table(data),
        "mmd_name": data.mmd_name,
        "real_mmd": data.real_mmd,
    }


def stages(data: ReportData) -> Variables | None:
    """Which stage limits the quality: the verdict and a plot."""
    found = data.stages
    if found is None:
        return None
    rows = [row for row in found.measurements if row.evaluations]
    plot = drawn_twice(rows, "evaluations", found.mmd_name, found.real_mmd, found.codec_floor)
    return {"stages": found, **plot, "dash_legend": dash_legend(rows)}


def drawn_twice(rows: list[SettingMeasurement], *about: Any) -> Variables:
    """Quality against a cost as a drawing, and as what the script replaces it by."""
    return {"plot": quality_plot(rows, *about), "chart": quality_chart(rows, *about)}


def edits(data: ReportData) -> Variables | None:
    """What `lediflow.edit` made of photographs."""
    return {"edits": data.edits} if data.edits else None


def training(data: ReportData) -> Variables | None:
    """A plot of each loss."""
    shown = [
        {
            "title": panel.title,
            "plot": panel_plot(panel),
            "caption": loss_caption(panel),
            "chart": panel_chart(panel),
        }
        for panel in data.panels
        if panel.curves
    ]
    return {"panels": shown} if shown else None


def panel_plot(panel: LossPanel) -> Markup:
    """The panel's curves; methods keep their colours, training and held-out losses have others."""
    series = SERIES if panel.compares_methods else OTHER_SERIES
    return loss_plot(panel.curves, panel.lowest, in_order(panel.curves, panel.methods, series))


def panel_chart(panel: LossPanel) -> Chart:
    """The same curves for the script."""
    colours = METHOD_COLOURS if panel.compares_methods else OTHER_COLOURS
    return Chart(title=panel.title, lines=by_name(panel.curves, panel.lowest, colours, panel.methods))


def curves(data: ReportData) -> Variables | None:
    """Every number that was logged, by stage."""
    return {"groups": data.chart_groups} if data.chart_groups else None


def runs(data: ReportData) -> Variables | None:
    """The runs side by side, and the history of each."""
    if not data.timelines:
        return None
    return {"runs": data.runs, **history_variables(data.timelines)}


def configuration(data: ReportData) -> Variables | None:
    """Options that differ between the runs of a stage, and all options."""
    return {"groups": data.configurations} if data.configurations else None


def loss_caption(panel: LossPanel) -> str:
    """The panel's caption, and where the rings are."""
    places = {name: seen for name, seen in panel.lowest.items() if name in panel.curves}
    rings = [f"{f'{name} ' if len(places) > 1 else ''}at {seen:,} images" for name, seen in places.items()]
    return f"{panel.caption}. Ring: lowest held-out loss, {', '.join(rings)}" if rings else panel.caption


def bins(data: ReportData) -> Variables | None:
    """A plot of each error by bin."""
    shown = [
        {"title": panel.title, "plot": bin_plot(panel), "caption": panel.caption}
        for panel in data.bin_panels
        if panel.means
    ]
    return {"panels": shown} if shown else None


def prior(data: ReportData) -> Variables | None:
    """Photographs, and the learned prior of each; all deviations share one colour scale."""
    shown = data.priors[:MAX_PRIORS]
    if not shown:
        return None
    low = min(float(example.sigma.min()) for example in shown)
    high = max(float(example.sigma.max()) for example in shown)
    return {
        "examples": [prior_pictures(example, low, high) for example in shown],
        "has_results": shown[0].result is not None,
        "low": f"{low:.2f}",
        "high": f"{high:.2f}",
        "gradient": heat_gradient(),
    }


def prior_pictures(example: PriorExample, low: float, high: float) -> dict[str, Picture]:
    """A photograph, mean and deviation of its prior, a draw from it, and what the flow makes of the draw."""
    shown = {
        "photograph": example.photograph,
        "mean": example.mean,
        "deviation": heat(example.sigma, low, high),
        "a draw": example.draw,
        "result": example.result,
    }
    return {name: pixels for name, pixels in shown.items() if pixels is not None}


def pictures(data: ReportData) -> Variables | None:
    """The newest pictures that each run made while it was trained."""
    return {"runs": data.training_pictures} if data.training_pictures else None


def origin(data: ReportData) -> Variables | None:
    """The commands that made the page, and where the numbers were measured."""
    if not data.environment and not data.commands:
        return None
    commands = [
        {"purpose": run.purpose, "command": run.command, "took": time_and_memory(run)}
        for run in data.commands
    ]
    lead = "These commands, in this order, made everything on this page."
    if not data.are_all_commands:
        lead = "These commands trained the runs, as their logs have them."
    return {"commands": commands, "environment": data.environment, "lead": lead}


def time_and_memory(run: CommandRun) -> str:
    """Time and peak memory of a command, as far as they are known."""
    time = [] if run.seconds is None else [duration(run.seconds)]
    memory = [] if run.peak_memory_mib is None else [f"{run.peak_memory_mib:,.0f} MiB"]
    return ", ".join(time + memory)


# Sections in reading order: what came out, what it cost, how it was trained, how to make it again.
SECTIONS: dict[str, tuple[str, Callable[[ReportData], Variables | None]]] = {
    "samples": ("Samples", samples),
    "steps": ("Steps", steps),
    "quality": ("Quality", quality),
    "stages": ("Limits", stages),
    "edits": ("Edits", edits),
    "training": ("Training", training),
    "bins": ("Remaining error", bins),
    "prior": ("Prior", prior),
    "pictures": ("Pictures", pictures),
    "curves": ("All curves", curves),
    "runs": ("Runs", runs),
    "configuration": ("Configuration", configuration),
    "origin": ("Commands", origin),
}
