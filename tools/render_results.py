"""Renders tables of results/*.json into the documents, between markers, so that no number is typed by hand.

    python tools/render_results.py --collect runs/demo    store a finished demo's numbers and picture, then render
    python tools/render_results.py --bench FILE.json      store the FILE.json of tools/bench, then render
    python tools/render_results.py --anonymity FOLDER NAME    store what `lediflow.edit anonymity` wrote, then render
    python tools/render_results.py --grid FOLDER          store results of `lediflow.evaluate mode=grid`, then render
    python tools/render_results.py                        render the stored results
    python tools/render_results.py --check                exit 1 if a document is out of date

This tool replaces the text between `<!-- render: NAME -->` and `<!-- end: NAME -->` in a document. Two blocks of
docs/architecture.md come from the code: `code` (count_code.py) and `layers` (layers.py).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bench_tables
import campaign_tables
import comparison_figures
import comparison_goals
import comparison_maps
import comparison_starts
import comparison_tables
import count_code
import layers
import paper_times
import several_gpus
import speed_goals
import temperature_tables
from markdown_tables import table
from PIL import Image

from lediflow.editing.anonymisation import anonymity
from lediflow.evaluation import views as grid_table
from lediflow.evaluation.metrics import Metric, shown_in
from lediflow.evaluation.results import birth_certificate

ROOT = Path(__file__).parents[1]
RESULTS = Path("results/demo.json")
PICTURE = Path("docs/images/samples.png")
GRID, GRID_PICTURES = Path("results/grid.json"), ("pareto.png", "images-LeDiFlow.png")
BENCHES = (
    "bench_attention_h100", "bench_model_rgb_h100", "bench_model_sdv_h100", "bench_encode_h100", "bench_loader",
    "bench_reading", "bench_shuffle", "bench_cmmd", "bench_cmmd_h100", "bench_tracking", "bench_steps_h200",
    "bench_training_deepspeed_h200", "bench_training_campaign64_h200",
    "bench_training_rgb_h200", "bench_training_float8_losses_h200",
    "bench_sampling_one_h200", "bench_sampling_jump_h200", "bench_sampling_batch_h200", "bench_sampling_rgb_h200",
    "bench_sampling_rgb_one_h200", "bench_sampling_float8_h200", "bench_precision_scenes64_h200",
    "bench_sampling_options_h200", "bench_decoding_h200",
)  # fmt: skip

CAMPAIGNS = (
    campaign_tables.LINES | temperature_tables.LINES | {"comparison": comparison_tables.campaign_lines}
)
ANONYMITY_OPTIONS = ("seed", "solver", "steps", "strengths")

METHODS = {"LeDiFlow": "flow", "Flow matching": "baseline"}  # name in tables -> folder in the demo
COLUMNS, MOST_TILES, GAP = 16, 64, 2  # of the picture of samples
MISSING = (
    "Not measured yet. To measure: `make demo`, then `python tools/render_results.py --collect runs/demo`."
)
PACKAGE_FOLDER = re.compile(r"[^=,\[\s]*/elpv_dataset/data/images")

Results = dict[str, Any]


def collect(folder: Path, root: Path) -> None:
    """Keep a finished demo's numbers and a picture of its samples."""
    runs = []
    for method, name in METHODS.items():
        document = json.loads((folder / name / "results" / "results.json").read_text())
        measured = document["results"]
        rows, real = measured["rows"], measured["real_mmd"]
        runs.append(
            {"method": method, "certificate": document["certificate"], "real_mmd": real, "rows": rows}
        )
    steps = [anonymous(step) for step in json.loads((folder / "steps.json").read_text())]
    (root / RESULTS).parent.mkdir(parents=True, exist_ok=True)
    (root / RESULTS).write_text(json.dumps({"runs": runs, "steps": steps}, indent=2) + "\n")
    (root / PICTURE).parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(sorted((folder / "flow" / "samples").glob("*.png"))).save(root / PICTURE, optimize=True)


def anonymous(step: dict[str, Any]) -> dict[str, Any]:
    """The step without the place where this machine keeps its packages."""
    return {**step, "command": PACKAGE_FOLDER.sub("PHOTOGRAPHS", step["command"])}


def keep_bench(file: Path, root: Path) -> None:
    """Keep a benchmark's rows under the file's name, whose folder is nobody else's."""
    document = json.loads(file.read_text())
    certificate = document["certificate"]
    certificate["command"] = re.sub(r"--output \S+", f"--output results/{file.name}", certificate["command"])
    (root / "results" / file.name).write_text(json.dumps(document, indent=2) + "\n")


def keep_grid(folder: Path, root: Path) -> None:
    """Keep a grid's numbers, its plot and the first run's pictures (in few colours: they are grey)."""
    document = json.loads((folder / "results.json").read_text())
    for row in document["results"]["rows"]:
        row.pop("record", None)  # fingerprints of features that are not kept
    (root / GRID).write_text(json.dumps(document, indent=1) + "\n")
    for name in GRID_PICTURES:
        picture = Image.open(folder / name).convert("RGB").quantize(64)
        picture.save(root / "docs" / "images" / f"grid-{name}", optimize=True)


def keep_anonymity(folder: Path, name: str, root: Path) -> None:
    """Keep the numbers of `lediflow.edit anonymity`, whose file names neither command nor place, and its command."""
    record = json.loads((folder / "anonymity.json").read_text())
    options = {key: value for key, value in record["settings"].items() if key in ANONYMITY_OPTIONS}
    words = [f"{key}={value}".replace(" ", "") for key, value in options.items()]
    command = ["python", "-m", "lediflow.edit", "anonymity", "persons=folders", *words]
    certificate = birth_certificate(seed=options["seed"], command=command)
    document = {"certificate": certificate, "results": record}
    (root / "results" / f"anonymity_{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def anonymity_block(document: Results) -> str:
    """How well surrogates hide persons, and where the numbers come from."""
    return f"{anonymity.page(document['results'])}\n{certificate_line(document['certificate'])}"


def grid_block(document: Results) -> str:
    """The tables of a grid, and where they come from."""
    rows, paths = document["results"]["rows"], document["results"]["paths"]
    _, baseline, *_ = document["results"]["runs"]
    parts = [
        grid_table.heading(rows),
        grid_table.summary(rows, baseline),
        grid_table.within_budgets(rows),
        grid_table.paths_table(paths),
        f"All {len(rows)} rows are in `{GRID}`. {certificate_line(document['certificate'])}",
    ]
    return "\n\n".join(parts)


def campaign_block(kind: str, document: Results) -> str:
    """The tables of a campaign, and where they come from."""
    lines = CAMPAIGNS[kind](document)
    certificate = document["certificate"]
    where = f"{about_run(certificate)}. {origin(document['results'])}".rstrip()
    command = [
        "<details><summary>command</summary>",
        "",
        "```bash",
        certificate["command"],
        "```",
        "",
        "</details>",
    ]
    return "\n".join([*lines, "", where, "", *command])


def origin(results: Results) -> str:
    """The commit of the code if it differs from the certificate's, how long it ran, how the numbers were collected."""
    code = results.get("code")
    known = (
        [
            f"The run had uncommitted changes on top of the named commit; its code is that of commit {code[:7]}."
        ]
        if code
        else []
    )
    known += duration(results.get("sessions", []))
    return " ".join(known + ([f"Collected {results['collected']}."] if "collected" in results else []))


def duration(sessions: list[Results]) -> list[str]:
    """Wall and GPU minutes of the script, over all its sessions; none where they were not recorded."""
    if not sessions:
        return []
    wall = sum(session["wall_minutes"] for session in sessions)
    gpus = sum(
        session.get("gpu_minutes", session["wall_minutes"] * len(session["gpus"])) for session in sessions
    )
    at_once = max(session["at_once"] for session in sessions)
    said = [f"{wall:.1f} minutes of wall time, {gpus:.1f} GPU minutes, up to {at_once} commands at once."]
    if any("gpu_minutes" in session for session in sessions):
        said.append(
            "Commands of other sets shared the GPUs; a second of a command counts 1 / n where n ran on its GPU."
        )
    if beside := sorted({name for session in sessions for name in session.get("beside", [])}):
        said.append(f"The minutes and the commands include those of {', '.join(beside)}, on the same GPU.")
    if stood := sum(session.get("stood_seconds", 0) for session in sessions):
        said.append(
            f"All commands stood still for {stood:.0f} seconds, while other measurements had the GPU."
        )
    return said


def contact_sheet(files: list[Path]) -> Image.Image:
    """The first samples side by side on white."""
    tiles = [Image.open(path) for path in files[:MOST_TILES]]
    side = tiles[0].width + GAP
    rows = -(-len(tiles) // COLUMNS)
    sheet = Image.new(tiles[0].mode, (COLUMNS * side - GAP, rows * side - GAP), "white")
    for number, tile in enumerate(tiles):
        row, column = divmod(number, COLUMNS)
        sheet.paste(tile, (column * side, row * side))
    return sheet


def quality_block(results: Results) -> str:
    """Each number of steps a row, both methods side by side, and where the numbers come from."""
    runs = results["runs"]
    rows = [row for run in runs for row in run["rows"]]
    shown = [metric for metric in distances() if all(metric.value(row) is not None for row in rows)]
    titles = [*(metric.name for metric in shown), "ms/img"]
    heads = [f"{title}: {run['method']}" for title in titles for run in runs]
    body = [table_row(rows, shown) for rows in zip(*(run["rows"] for run in runs), strict=True)]
    lines = table(["steps", "NFE", *heads], body)
    return "\n".join([*lines, "", caption(runs), "", *certificates(runs)])


def distances() -> list[Metric]:
    """The metrics of the report for which lower is better."""
    return [metric for metric in shown_in("report") if metric.direction == "lower"]


def table_row(rows: Sequence[Results], shown: Sequence[Metric]) -> list[str]:
    """One number of steps: the methods' numbers, metric by metric, then their milliseconds."""
    numbers = [f"{metric.value(row):.{metric.digits}f}" for metric in shown for row in rows]
    times = [f"{row['ms_per_image']:.1f}" for row in rows]
    return [str(rows[0]["steps"]), str(rows[0]["nfe"]), *numbers, *times]


def caption(runs: list[Results]) -> str:
    row, real = runs[0]["rows"][0], max(runs[0]["real_mmd"], 0.0)
    return (
        f"Lower is better. {row['mmd_name']}, unbiased, times 1000; {row['frechet_name']}. "
        f"{row['sample_images']:,} generated images per row against {row['reference_images']:,} photographs, two "
        f"halves of which have an MMD of {real:.2f}; {row['solver']} solver{temperature_tables.of_methods(runs)}. "
        "NFE counts evaluations of the flow model per image; time includes everything else."
    )


def certificates(runs: list[Results]) -> list[str]:
    """The origin of each method's numbers, a line each."""
    return [f"- {run['method']}: {certificate_line(run['certificate'])}" for run in runs]


def certificate_line(certificate: Results) -> str:
    """The command and the circumstances of a measurement."""
    return f"`{certificate['command']}`, {about_run(certificate)}"


def about_run(certificate: Results) -> str:
    """Code, seed, hardware, date and versions of a measurement."""
    hardware, versions = certificate["hardware"], certificate["versions"]
    devices = ", ".join(hardware["gpus"]) or f"{hardware['processor']}, {hardware['cores']} cores"
    return (
        f"commit {short(certificate['commit'])}, seed {certificate['seed']}, {devices}, {certificate['date'][:10]}, "
        f"torch {versions['torch']}, Python {versions['python']}"
    )


def short(commit: str) -> str:
    """Twelve digits of a commit, and whether files differed from it."""
    digits, dirty, _ = commit.partition("-dirty")
    return digits[:12] + dirty


def steps_block(results: Results) -> str:
    """What each command of the demo took."""
    steps = results["steps"]
    body = [
        [step["purpose"], f"{step['seconds']:.0f} s", f"{step['peak_memory_mib']:,} MiB"] for step in steps
    ]
    total = sum(step["seconds"] for step in steps)
    most = max(step["peak_memory_mib"] for step in steps)
    body.append(["**all**", f"**{total / 60:.1f} min**", f"**{most:,} MiB**"])
    commands = ["```bash", *(step["command"] for step in steps), "```"]
    hardware = results["runs"][0]["certificate"]["hardware"]
    machine = f"Measured on {hardware['processor']}, {hardware['cores']} cores; memory is the largest process's peak."
    return "\n".join([*table(["step", "time", "peak memory"], body), "", machine, "", *commands])


def bench_block(document: Results) -> str:
    """A benchmark's rows, with those columns that a reader compares; routes of attention side by side."""
    rows = document["results"]["rows"]
    if "route" in rows[0] and "shape" in rows[0]:
        heads, body = bench_tables.attention_table(rows)
    else:
        heads = bench_tables.columns_of(rows)
        body = [[bench_tables.figure(row.get(column, "")) for column in heads] for row in rows]
    return "\n".join([*table(heads, body), "", bench_origin(document)])


def bench_origin(document: Results) -> str:
    """Where a benchmark's numbers come from, and the commit of its code if the certificate's differs."""
    code = document["results"].get("code")
    known = f"; its code is that of commit {short(code)}" if code else ""
    return certificate_line(document["certificate"]) + known


BLOCKS: dict[str, Callable[[Results], str]] = {"quality": quality_block, "steps": steps_block}


def blocks(root: Path) -> dict[str, str]:
    """Every block's name and text."""
    results = kept(root / RESULTS)
    found = {name: block(results) if results else MISSING for name, block in BLOCKS.items()}
    for name in BENCHES:
        if document := kept(root / "results" / f"{name}.json"):
            found[name] = bench_block(document)
    found |= several_gpus.blocks(root, bench_origin)
    if times := paper_times.lines(root):
        found["paper_times"] = "\n".join(table(paper_times.HEADS, times))
    found["speed_goals"] = "\n".join(table(speed_goals.HEADS, speed_goals.lines(root)))
    if document := kept(root / GRID):
        found["grid"] = grid_block(document)
    for file in sorted((root / "results").glob("anonymity_*.json")):
        found[file.stem] = anonymity_block(json.loads(file.read_text()))
    for kind in CAMPAIGNS:
        for file in sorted((root / "results/campaign").glob(f"{kind}_*.json")):
            found[file.stem] = campaign_block(kind, json.loads(file.read_text()))
    found |= comparison_goals.blocks(root)
    found["comparison_maps"] = comparison_maps.maps_block(root)
    found["comparison_starts"] = comparison_starts.starts_block(root)
    if document := kept(root / count_code.KEPT):
        found["code"] = count_code.block(document)
    return found | {"layers": layers.block(root)}


def kept(path: Path) -> Results | None:
    return json.loads(path.read_text()) if path.is_file() else None


def rendered(text: str, inside_blocks: dict[str, str]) -> str:
    """The document with each of its blocks made anew."""
    for name, inside in inside_blocks.items():
        begin, end = f"<!-- render: {name} -->", f"<!-- end: {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        text = pattern.sub(f"{begin}\n{inside}\n{end}".replace("\\", r"\\"), text)
    return text


def outdated(root: Path) -> dict[Path, str]:
    """Documents that say something else than the results -> what they should say."""
    inside = blocks(root)
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    wanted = {path: rendered(path.read_text(), inside) for path in pages}
    return {path: text for path, text in wanted.items() if path.read_text() != text}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--collect", type=Path, metavar="DEMO", help="folder of a finished demo to keep the numbers of"
    )
    parser.add_argument("--bench", type=Path, nargs="+", default=[], metavar="JSON", help="keep benchmarks")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if a document is out of date"
    )
    parser.add_argument("--grid", type=Path, metavar="FOLDER", help="keep a grid")
    parser.add_argument("--anonymity", nargs=2, metavar=("FOLDER", "NAME"), help="keep numbers of anonymity")
    options = parser.parse_args()
    if options.collect and not options.check:
        collect(options.collect, ROOT)
    for file in options.bench:
        keep_bench(file, ROOT)
    if options.grid:
        keep_grid(options.grid, ROOT)
    if options.anonymity:
        keep_anonymity(Path(options.anonymity[0]), options.anonymity[1], ROOT)
    stale = outdated(ROOT)
    if options.check and (stale or comparison_figures.outdated(ROOT)):
        names = ", ".join(path.name for path in [*stale, *comparison_figures.outdated(ROOT)])
        sys.exit(f"out of date: {names}; run: python tools/render_results.py")
    for path, text in stale.items():
        path.write_text(text)
    if not options.check:
        comparison_figures.draw_outdated(ROOT)


if __name__ == "__main__":
    main()
