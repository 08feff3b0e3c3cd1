"""Measure generation on this machine's device: whole chains and their parts, codecs, first images.

    python tools/bench/sampling.py                                   the demo's chain on a CPU; the paper's on a GPU
    python tools/bench/sampling.py --models paper_rgb --runtimes compiled --codecs --output rgb.json       no codecs
    python tools/bench/sampling.py --models --codecs --starts paper_sdv                   first images and no more
    python tools/bench/sampling.py --lediflow jump:1 --sampler jump:1 --fm             flow maps: one call of each
    python tools/bench/sampling.py --table rgb.json sdv.json                     tables of what was measured before

The paper's table of times, milliseconds per image of flow matching and LeDiFlow at the evaluations that each needs:

    python tools/bench/sampling.py --models paper_rgb paper_sdv --runtimes compiled --codecs sd2_vae \\
        --fm midpoint:16 heun3:15 --lediflow midpoint:4 heun3:6 --output results/bench_sampling.json

Weights are random; speed does not depend on them. chains.py says what the parts are. All rows of a model and a batch
size are measured in turns, so runtimes and methods can be compared. On a GPU times are those of CUDA events, and
compiled and exported parts are CUDA graphs; only `call` is by the wall clock, with Python and the wait for the images.
"peak GiB" and "first call" (with the caches of compiled code as they are) are those of whole calls of a pipeline; they
stand in the first of its rows. --starts times first images in new processes, with empty and with filled caches.

The file of --output is written anew with each row: an interrupted run keeps what it has measured. Rows of 0 rounds were
measured alone, before the turns. A network that cannot be compiled leaves a row with its error, and exit status 1.
Further arguments are overrides of the training command, such as model.velocity.augmentation=false.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import torch
from chains import (
    FM,
    LEDIFLOW,
    PAPERS,
    PARTS,
    Evaluations,
    config_of,
    evaluations,
    inputs_of,
    maps_of,
    parts_of,
    random_pipeline,
    runnable,
)
from common import Row, command_line, machine, seconds_taken
from decoding import BUILDERS, decoding_cases
from decoding import RUNTIMES as CODEC_RUNTIMES
from first_images import start_rows
from interleaved import Case, Journal, kept_going, measure_alone, measure_in_turns
from sampling_tables import summary, table_of_parts
from subjects import model_names

from lediflow.codecs import PRECISIONS as CODEC_PRECISIONS
from lediflow.codecs.taesd import CHANNELS
from lediflow.evaluation.results import read_results
from lediflow.sampling.options import PRECISIONS, SamplingConfig
from lediflow.sampling.pipeline import LeDiFlowPipeline
from lediflow.text import GIB

RUNTIMES = ("eager", "compiled", "exported")


def main(arguments: list[str] | None = None) -> None:
    chosen = options(arguments)
    if chosen.table:
        runs = [read_results(path)["results"]["rows"] for path in chosen.table]
        tables = [*map(table_of_parts, runs), summary(runs, chosen.decode_by)]
        print("\n\n".join(table for table in tables if table))
        return
    journal, device = Journal(chosen.output), torch.device(chosen.device)
    print(machine(), flush=True)
    for model in chosen.models:
        for batch in chosen.batch:
            measure_chains(model, batch, chosen, device, journal)
    for name in chosen.codecs:
        for batch in chosen.batch:
            measure_codec(name, batch, chosen, device, journal)
    for model in chosen.starts:
        measure_starts(model, chosen, journal)
    if closing := summary([journal.rows], chosen.decode_by):
        print(f"\n{closing}")
    if chosen.output:
        print(f"\nwritten to {chosen.output}")
    if any("error" in row for row in journal.rows):
        sys.exit(1)


def options(arguments: list[str] | None) -> argparse.Namespace:
    has_gpu = torch.cuda.is_available()
    parser = command_line(__doc__)
    add_chain_options(parser, has_gpu)
    add_codec_options(parser.add_argument_group("codecs"), has_gpu)
    parser.add_argument(
        "--starts",
        nargs="*",
        choices=model_names(),
        default=[],
        help="models whose first image is awaited, in new processes with empty and with filled caches",
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="measuring time per row")
    parser.add_argument("--rounds", type=int, default=4, help="turns over which this time is spread")
    parser.add_argument("--device", default="cuda" if has_gpu else "cpu")
    parser.add_argument("--output", help="JSON file for the rows and their provenance")
    parser.add_argument(
        "--table", nargs="+", metavar="JSON", help="print the tables of these files, measure nothing"
    )
    chosen, overrides = parser.parse_known_args(arguments)
    if unknown := [override for override in overrides if "=" not in override]:
        parser.error(f"unknown: {' '.join(unknown)}; overrides look like key=value")
    if "sd2_vae" in chosen.codecs and find_spec("diffusers") is None:
        parser.error(
            "sd2_vae needs diffusers, which is not installed; install it, or give --codecs without it"
        )
    chosen.overrides = overrides
    return chosen


def add_chain_options(parser: argparse.ArgumentParser, has_gpu: bool) -> None:
    parser.add_argument(
        "--models",
        nargs="*",
        choices=model_names(),
        default=["paper_sdv", "paper_rgb"] if has_gpu else ["demo"],
        help="files of conf/model, in this order; without a name: no chains",
    )
    parser.add_argument("--batch", nargs="+", type=int, default=[64, 1] if has_gpu else [1])
    parser.add_argument(
        "--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES), help="side by side"
    )
    parser.add_argument("--precision", default="bfloat16" if has_gpu else "float32", choices=PRECISIONS)
    parser.add_argument("--route", default="auto", help="of neighborhood attention")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--lediflow",
        nargs="*",
        type=evaluations,
        default=[Evaluations("midpoint", 4), Evaluations("heun3", 6)],
        metavar="SOLVER:NFE",
        help="of LeDiFlow's flow; `call` takes the first; without any: no LeDiFlow",
    )
    parser.add_argument(
        "--fm",
        nargs="*",
        type=evaluations,
        default=[Evaluations("midpoint", 16), Evaluations("heun3", 15)],
        metavar="SOLVER:NFE",
        help="of flow matching, which starts from Gaussian noise; without any: no flow matching",
    )
    parser.add_argument(
        "--sampler", type=evaluations, default=PAPERS, metavar="SOLVER:NFE", help="of the latent sampler"
    )


def add_codec_options(parser: argparse._ArgumentGroup, has_gpu: bool) -> None:
    parser.add_argument(
        "--codecs",
        nargs="*",
        choices=[*BUILDERS],
        default=[*BUILDERS] if has_gpu else [],
        help="decoders to measure; sd2_vae needs diffusers; without a name: none",
    )
    parser.add_argument(
        "--codec_precisions",
        nargs="+",
        choices=[*CODEC_PRECISIONS],
        default=["bfloat16", "float32"] if has_gpu else ["float32"],
    )
    parser.add_argument(
        "--codec_runtimes",
        nargs="+",
        choices=CODEC_RUNTIMES,
        default=list(CODEC_RUNTIMES),
        help="graph: compiled and replayed as a CUDA graph",
    )
    parser.add_argument(
        "--decode_by",
        choices=CODEC_RUNTIMES,
        default="eager",
        help="the runtime of sd2_vae in the paper's table; pipelines decode eagerly",
    )
    parser.add_argument(
        "--latent_side", type=int, default=32, help="side of their latents; images: 8 times that"
    )


def measure_chains(
    model: str, batch: int, chosen: argparse.Namespace, device: torch.device, journal: Journal
) -> None:
    """The rows of one model and batch size: all runtimes and methods in turns."""
    forget()  # a graph that was compiled for one batch size is the fastest, and no other size is known then
    cases: list[Case] = []
    for runtime in chosen.runtimes:
        for method, flows in ((LEDIFLOW, chosen.lediflow), (FM, chosen.fm)):
            if not flows:
                continue
            about = {"model": model, "batch": batch, "runtime": runtime, "method": method}
            with kept_going(about, journal):
                for case in chain_cases(about, flows, chosen, device):
                    measure_alone(case, chosen.seconds / chosen.rounds, journal)
                    cases.append(case)
    measure_in_turns(cases, chosen.seconds, chosen.rounds, journal)
    here = [row for row in journal.rows if (row.get("model"), row.get("batch")) == (model, batch)]
    print(f"\n{table_of_parts(here)}", flush=True)


def chain_cases(
    about: Row, flows: list[Evaluations], chosen: argparse.Namespace, device: torch.device
) -> Iterator[Case]:
    """The chosen parts of one chain."""
    held = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    maps = maps_of(flows, chosen.sampler)
    pipeline = random_pipeline(about["model"], about["method"], device, chosen.route, chosen.overrides, maps)
    pipeline.use(about["runtime"], chosen.precision)
    space = "latents" if pipeline.velocity.spec.image_channels == CHANNELS else "pixels"
    about = {**about, "precision": pipeline.runtime.precision, "space": space}
    notes = first_calls(pipeline, about["batch"], config_of(flows[0], chosen.sampler), held)
    inputs = inputs_of(pipeline, about["batch"])
    for part in parts_of(pipeline, flows, about["batch"], chosen.sampler):
        if part.name not in chosen.parts:
            continue
        row = {**about, "part": part.name}
        if part.evaluations is not None:
            row |= {"solver": part.evaluations.solver, "NFE": part.evaluations.nfe}
        clock = torch.device("cpu") if part.name == "call" else device
        yield Case(row, about["batch"], runnable(part, pipeline.runtime, inputs), clock, notes)
        notes = {}


def first_calls(pipeline: LeDiFlowPipeline, batch: int, config: SamplingConfig, held: int) -> Row:
    """Seconds of the first call, which compiles, and the peak of the GPU's memory in the next two.

    The second call records a CUDA graph, where the runtime does so, and the third replays it. The peak includes the
    models; `held` is what the process had allocated before it built them.
    """
    first = {"first call, s": seconds_taken(lambda: pipeline(batch, config), pipeline.device)}
    if pipeline.device.type != "cuda":
        return first
    torch.cuda.reset_peak_memory_stats(pipeline.device)
    for _ in range(2):
        pipeline(batch, config)
    return {**first, "peak GiB": (torch.cuda.max_memory_allocated(pipeline.device) - held) / GIB}


def measure_codec(
    name: str, batch: int, chosen: argparse.Namespace, device: torch.device, journal: Journal
) -> None:
    """The rows of one codec and batch size, in turns."""
    forget()
    kinds = (chosen.codec_precisions, chosen.codec_runtimes)
    cases: list[Case] = []
    with kept_going({"part": "codec", "codec": name, "batch": batch}, journal):
        for case in decoding_cases(name, batch, chosen.latent_side, *kinds, device):
            measure_alone(case, chosen.seconds / chosen.rounds, journal)
            cases.append(case)
    measure_in_turns(cases, chosen.seconds, chosen.rounds, journal)


def measure_starts(model: str, chosen: argparse.Namespace, journal: Journal) -> None:
    """The rows of a model's first images."""
    options = ["--precision", chosen.precision, "--device", chosen.device, "--route", chosen.route]
    for runtime in chosen.runtimes:
        with kept_going({"part": "first image", "model": model, "runtime": runtime}, journal):
            for about, seconds in start_rows(model, runtime, [*options, *chosen.overrides]):
                journal.put(about, seconds)


def forget() -> None:
    """Free the models and the compiled code of the rows before."""
    gc.collect()
    if "torch._dynamo" in sys.modules:  # which takes seconds to import
        torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
