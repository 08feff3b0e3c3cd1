"""Chains of generation with random weights, and their parts as functions to measure.

    call       pipeline(...): the chain, its preparation, and the host's wait for the images
    chain      w -> z -> prior -> x -> y: the networks, the noise and the steps of the solvers
    sampler    w -> z
    decoder    z -> prior -> x, with the draw
    flow       x -> y

The flow-matching baseline has neither sampler nor decoder: its chain starts from Gaussian noise. All parts but `call`
run as they do inside of a pipeline's chain: where a pipeline replays that as one CUDA graph, each part is a graph, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from common import wait_for
from subjects import KINDS, random_model, subject
from torch import Tensor

from lediflow.errors import UserError
from lediflow.flow.noise import SampleNoise
from lediflow.flow.solvers import JUMP, SOLVERS
from lediflow.flow.solvers.fixed import FixedStep
from lediflow.sampling.chain import Start
from lediflow.sampling.options import SamplingConfig
from lediflow.sampling.pipeline import LeDiFlowPipeline
from lediflow.sampling.runtime import Inputs, Runtime
from lediflow.sampling.runtime.graphs import Recording

FM, LEDIFLOW = "FM", "LeDiFlow"
PRIORS = {LEDIFLOW: "learned", FM: "gaussian"}
PARTS = ("call", "chain", "sampler", "decoder", "flow")


class Evaluations(NamedTuple):
    """A fixed-step solver, and how often it evaluates the model for an image."""

    solver: str
    nfe: int

    @property
    def steps(self) -> int:
        return self.nfe // stages(self.solver)


PAPERS = Evaluations("midpoint", 8)  # of the latent sampler


class Part(NamedTuple):
    """A function of a chain's inputs, and the evaluations in it: the sampler's for `sampler`, else the flow's."""

    name: str
    evaluations: Evaluations | None  # None: the decoder, which is one pass
    function: Callable[[Inputs], Any]


def stages(solver: str) -> int:
    """Evaluations per step of a fixed-step solver, or of the jumps of a flow map; KeyError for any other name."""
    if solver == JUMP:
        return 1
    method = SOLVERS[solver]
    if not isinstance(method, FixedStep):
        raise KeyError(solver)
    return method.tableau.stages


def evaluations(text: str) -> Evaluations:
    """An option such as midpoint:4."""
    solver, _, count = text.partition(":")
    try:
        chosen, per_step = Evaluations(solver, int(count)), stages(solver)
    except (KeyError, ValueError) as error:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give a fixed-step solver and its evaluations per image, such as midpoint:4, or jump:1"
        ) from error
    if chosen.nfe < per_step or chosen.nfe % per_step:
        raise argparse.ArgumentTypeError(
            f"{text!r}: {solver} takes {per_step} evaluations a step, so their number is a multiple of {per_step}"
        )
    return chosen


def random_pipeline(
    model: str, method: str, device: torch.device, route: str, overrides: list[str], maps: Sequence[str] = ()
) -> LeDiFlowPipeline:
    """The chain of a file in conf/model with random weights, always the same, without a codec.

    The models named by `maps` (velocity, latent_sampler) are flow maps.
    """
    kinds = KINDS if method == LEDIFLOW else ("velocity",)
    subjects = {
        kind: subject(model, kind, batch=None, prior=PRIORS[method], overrides=overrides) for kind in kinds
    }
    for kind in {*maps} & {*kinds}:
        spec: Any = subjects[kind].spec
        subjects[kind] = replace(subjects[kind], spec=replace(spec, is_flow_map=True))
    models: dict[str, Any] = {kind: random_model(each, device, route) for kind, each in subjects.items()}
    return LeDiFlowPipeline(
        models["velocity"],
        models.get("auxiliary"),
        models.get("latent_sampler"),
        image_size=subjects["velocity"].size,
    )


def maps_of(flows: Sequence[Evaluations], sampler: Evaluations) -> list[str]:
    """The models that are flow maps, because they are run by jumps."""
    kinds = {"velocity": {each.solver for each in flows}, "latent_sampler": {sampler.solver}}
    if mixed := [kind for kind, solvers in kinds.items() if JUMP in solvers and len(solvers) > 1]:
        raise UserError(
            f"{', '.join(mixed)}: a flow map is run by jumps only; measure jumps and solvers in two runs"
        )
    return [kind for kind, solvers in kinds.items() if JUMP in solvers]


def config_of(flow: Evaluations, sampler: Evaluations) -> SamplingConfig:
    return SamplingConfig(
        solver=flow.solver, steps=flow.steps, latent_solver=sampler.solver, latent_steps=sampler.steps
    )


def inputs_of(pipeline: LeDiFlowPipeline, batch: int) -> Inputs:
    return Inputs(torch.arange(batch, device=pipeline.device), None, SampleNoise(0))


@torch.no_grad()
def parts_of(
    pipeline: LeDiFlowPipeline, flows: Sequence[Evaluations], batch: int, sampler: Evaluations = PAPERS
) -> list[Part]:
    """The parts of a chain: those with a flow once for each of `flows`, `call` for the first of them alone."""
    config = config_of(flows[0], sampler)

    def call(given: Inputs) -> None:
        pipeline(batch, config)
        wait_for(pipeline.device)

    start = pipeline.start(inputs_of(pipeline, batch).ids, config)
    found = [Part("call", flows[0], call)]
    for each in flows:
        found.append(Part("chain", each, chain_of(pipeline, config_of(each, sampler))))
        found.append(Part("flow", each, flow_of(pipeline, start, config_of(each, sampler))))
    if start.z is not None:
        found.append(Part("sampler", sampler, lambda given: pipeline.chain.latents(given, config).x))
        found.append(Part("decoder", None, lambda given: pipeline.start_from(given.ids, start.z, config).x))
    return found


def chain_of(pipeline: LeDiFlowPipeline, config: SamplingConfig) -> Callable[[Inputs], Tensor]:
    """The parts one after the other: the images of a pipeline before its codec."""
    return lambda inputs: pipeline.chain.run(inputs, config).solution.x


def flow_of(pipeline: LeDiFlowPipeline, start: Start, config: SamplingConfig) -> Callable[[Inputs], Tensor]:
    """The flow from given starts, without the wait for the device that `pipeline.integrate` ends with."""
    return lambda inputs: pipeline.chain.integrate(start, config).x


@dataclass(frozen=True)
class Replay:
    """A recorded part; it holds the part, whose function owns tensors that the graph reads."""

    part: Part
    recording: Recording

    def __call__(self) -> Any:
        self.recording.graph.replay()
        return self.recording.results


@torch.no_grad()
def runnable(part: Part, runtime: Runtime, inputs: Inputs) -> Callable[[], Any]:
    """The part, compiled and recorded where the runtime does so; the next replay overwrites the results of one."""
    if runtime.recordings is None or part.name == "call":
        return lambda: part.function(inputs)
    part.function(inputs)  # compiles what there is to compile
    return Replay(part, Recording(part.function, inputs, runtime.recordings.pool))
