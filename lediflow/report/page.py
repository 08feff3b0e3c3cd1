"""The report of a run as one HTML file: no script, no network, light and dark, at any width.

Each section is a function from its part of the data to HTML, and is left out where there is no data.
"""

from collections.abc import Sequence
from importlib import resources

from lediflow.report import plots
from lediflow.report.content import (
    BinPanel,
    CommandRun,
    Fact,
    LossPanel,
    Picture,
    PriorExample,
    ReportData,
    StageComparison,
    StepComparison,
)
from lediflow.report.markup import Html, element, picture
from lediflow.report.measurement_table import measurement_table
from lediflow.tracking.progress import duration

NOTHING = Html("")
BEGINNING = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">\
<meta name="color-scheme" content="light dark"><title>"""  # of every report, also of earlier releases
MOST_PICTURES = 36  # of each grid of the first section
FIRST_DRAWN = "Generated. Not selected: the first ones drawn."
MOST_PRIORS = 6  # more say nothing new and make the page long


def build_report(data: ReportData) -> str:
    """The whole page."""
    style = resources.files("lediflow.report").joinpath("templates", "report.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", data.title),
        element("style", Html(style)),
    )
    sections = (
        pictures_section(data),
        steps_section(data.step_comparison),
        cost_section(data),
        stages_section(data.stages),
        prior_section(data.priors),
        training_section(data.panels),
        bins_section(data.bin_panels),
        origin_section(data.environment, data.commands),
    )
    body = element("body", element("main", header(data), *sections))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def header(data: ReportData) -> Html:
    """Title, what this is about, and the numbers to remember."""
    facts = element("dl", *map(fact, data.facts), class_="facts") if data.facts else NOTHING
    return element("header", element("h1", data.title), element("p", data.lead, class_="lead"), facts)


def fact(shown: Fact) -> Html:
    """One number of the headline."""
    return element("div", element("dt", shown.label), element("dd", shown.value))


def section(title: str, text: str, *content: Html) -> Html:
    """A heading, what to look for, and the thing itself."""
    return element("section", element("h2", title), element("p", text, class_="text"), *content)


def figure(content: Html, caption: str, class_: str | None = None) -> Html:
    """Something to look at and what it shows."""
    return element("figure", content, element("figcaption", caption), class_=class_)


def gallery(pictures: Sequence[Picture], alt: str, columns: int) -> Html:
    """Pictures in a grid."""
    tiles = (picture(pixels, f"{alt} {number}") for number, pixels in enumerate(pictures, start=1))
    return element("div", *tiles, class_="gallery", style=f"--columns: {columns}")


def pictures_section(data: ReportData) -> Html:
    """Samples beside photographs."""
    if not data.samples:
        return NOTHING
    count = min(len(data.samples), len(data.photographs) or len(data.samples), MOST_PICTURES)
    columns = 4 if count <= 16 else 6
    made = gallery(data.samples[:count], "Generated image", columns)
    real = gallery(data.photographs[:count], "Photograph", columns)
    if not data.photographs:
        text = "Look at texture, at sharpness and at variety: no two should be alike."
        return section("Generated images", text, figure(made, FIRST_DRAWN))
    return section(
        "Generated images beside photographs",
        "The first grid was drawn by the model, the second by a camera. Look at texture, at sharpness and at "
        "variety: no two generated images should be alike, and none out of place in the other grid.",
        element(
            "div",
            figure(made, FIRST_DRAWN),
            figure(real, data.photographs_caption),
            class_="pair",
        ),
    )


def steps_section(comparison: StepComparison | None) -> Html:
    """The same noise at more and more steps, one method beside the other."""
    if comparison is None:
        return NOTHING
    for_both = " for both methods" if len(comparison.pictures) == 2 else " throughout"
    methods = (
        element(
            "div", element("h3", method, class_=f"series-{place}"), step_rows(comparison.steps, rows, method)
        )
        for place, (method, rows) in enumerate(comparison.pictures.items(), start=1)
    )
    return section(
        "From the same noise, in fewer steps",
        "An image is drawn by following a path from noise in a number of steps, here with the "
        f"{comparison.solver} solver. A column starts from the same noise{for_both}. The fewer steps an image "
        "needs before it stops changing, the cheaper it is.",
        element("div", *methods, class_="pair" if comparison.images <= 8 else "stack"),
    )


def step_rows(steps: Sequence[int], rows: Sequence[Sequence[Picture]], method: str) -> Html:
    """One row of pictures for each number of steps."""
    lines = []
    for count, pictures in zip(steps, rows, strict=True):
        label = "1 step" if count == 1 else f"{count} steps"
        lines.append(element("span", label, class_="row-label"))
        lines.append(gallery(pictures, f"{method}, {label}, image", len(pictures)))
    return element("div", *lines, class_="rows")


def cost_section(data: ReportData) -> Html:
    """Quality against cost: a plot and every number behind it."""
    if not data.measurements:
        return NOTHING
    return section(
        "What quality costs",
        "Each evaluation runs the whole flow model once, so their number is what an image costs. Quality is "
        f"measured by {data.mmd_name}: how far a set of generated images lies from photographs, in the "
        "eyes of a network that was trained to recognise things."
        + ("" if data.real_mmd is None else " The dashed line is where photographs themselves stand."),
        element("div", cost_plots(data), measurement_table(data), class_="cost"),
    )


def cost_plots(data: ReportData) -> Html:
    """Quality against evaluations, and against milliseconds where these were measured."""
    costs = [cost for cost in plots.COSTS if plots.quality_lines(data.measurements, cost)]
    drawings = (plots.quality_plot(data.measurements, cost, data.mmd_name, data.real_mmd) for cost in costs)
    return element(
        "div", *(element("div", drawing, class_="plot") for drawing in drawings), class_="cost-plots"
    )


def stages_section(stages: StageComparison | None) -> Html:
    """Which stage limits the quality: the verdict and a plot."""
    if stages is None:
        return NOTHING
    drawing = plots.quality_plot(
        [row for row in stages.measurements if row.evaluations],
        "evaluations",
        stages.mmd_name,
        stages.real_mmd,
        stages.codec_floor,
    )
    return section(
        stages.heading,
        "The same noise, with a latent z from the encoder for training images, for images that training never saw, and "
        "from the latent sampler: the distance between a line and the one before it is what the stage adds.",
        element("p", stages.text, class_="text"),
        element("div", drawing, class_="plot"),
    )


def prior_section(examples: Sequence[PriorExample]) -> Html:
    """Where the paths start: what the auxiliary model believes before the flow begins."""
    if not examples:
        return NOTHING
    shown = examples[:MOST_PRIORS]
    ends = "" if shown[0].result is None else " The result is where the flow ends when it starts at the draw."
    low = min(float(example.sigma.min()) for example in shown)
    high = max(float(example.sigma.max()) for example in shown)
    rows = (prior_row(example, low, high) for example in shown)
    bar = element("span", class_="gradient", style=f"background: {plots.heat_gradient()}")
    legend = element("p", f"sure, {low:.2f}", bar, f"{high:.2f}, unsure (logarithmic)", class_="legend")
    return section(
        "Where a path starts",
        "Plain flow matching starts at noise that knows nothing. LeDiFlow starts at a guess: for every pixel "
        "a mean and a standard deviation. A small deviation says that the pixel is nearly settled; large "
        "ones mark the edges and textures that are left to the flow." + ends,
        element("div", *rows, class_="priors"),
        legend,
    )


def prior_row(example: PriorExample, low: float, high: float) -> Html:
    """A photograph, the two maps of its prior, a draw from it, and what the flow makes of the draw."""
    shown = {
        "photograph": example.photograph,
        "mean": example.mean,
        "deviation": plots.heat(example.sigma, low, high),
        "a draw": example.draw,
        "result": example.result,
    }
    figures = [figure(picture(pixels, name), name) for name, pixels in shown.items() if pixels is not None]
    return element("div", *figures, class_="prior", style=f"--columns: {len(figures)}")


def training_section(panels: Sequence[LossPanel]) -> Html:
    """How the losses fell."""
    shown = [panel for panel in panels if panel.curves]
    if not shown:
        return NOTHING
    figures = (element("div", element("h3", panel.title), loss_figure(panel)) for panel in shown)
    return section(
        "Training",
        "Time is counted in images, which means the same on any number of machines. The faint line is what "
        "was measured, the strong one its local mean.",
        element("div", *figures, class_="panels"),
    )


def bins_section(panels: Sequence[BinPanel]) -> Html:
    """Where the losses come from."""
    shown = [panel for panel in panels if panel.means]
    if not shown:
        return NOTHING
    figures = (
        element("div", element("h3", panel.title), figure(plots.bin_plot(panel), panel.caption, "plot"))
        for panel in shown
    )
    return section(
        "Where the error is left",
        "The same errors as above, told apart: means over the last quarter of the training. Bins that nothing fell "
        "into are left out.",
        element("div", *figures, class_="panels"),
    )


def loss_figure(panel: LossPanel) -> Html:
    """A training plot and what it shows."""
    places = {name: seen for name, seen in panel.lowest.items() if name in panel.curves}
    rings = [f"{f'{name} ' if len(places) > 1 else ''}at {seen:,} images" for name, seen in places.items()]
    caption = f"{panel.caption}. Ring: lowest held-out loss, {', '.join(rings)}" if rings else panel.caption
    return figure(plots.loss_plot(panel.curves, panel.lowest), caption, "plot")


def origin_section(environment: dict[str, str], commands: Sequence[CommandRun]) -> Html:
    """How to make the page again."""
    if not environment and not commands:
        return NOTHING
    facts = (element("div", element("dt", key), element("dd", value)) for key, value in environment.items())
    return section(
        "How this was made",
        "Everything on this page came from the commands below, in this order. A click selects a command."
        if commands
        else "Where and when the numbers on this page were measured.",
        element("ol", *map(command_item, commands), class_="commands") if commands else NOTHING,
        element("dl", *facts, class_="environment") if environment else NOTHING,
    )


def command_item(run: CommandRun) -> Html:
    """A command, what it was for, how long it took and how much memory it needed."""
    time = [] if run.seconds is None else [duration(run.seconds)]
    memory = [] if run.peak_memory_mib is None else [f"{run.peak_memory_mib:,.0f} MiB"]
    took = element("span", ", ".join(time + memory), class_="took") if time + memory else NOTHING
    return element("li", element("p", run.purpose, took), element("pre", element("code", run.command)))
