"""What a run's models can do in the studio, why the rest is impossible, and where the models are from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lediflow.config.building.pipeline import load_pipeline, pipeline_hashes
from lediflow.config.composition.advice import require_export
from lediflow.config.composition.schema import StudioCommand
from lediflow.editing.codec_space import picture_shape
from lediflow.errors import UserError
from lediflow.run_folder import RunFolder
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.classes import Label
from lediflow.sampling.methods import is_flow_map
from lediflow.sampling.options import SamplingConfig
from lediflow.text import shown_hash

SAMPLE, INTERPOLATE, INPAINT, VARY = "Sample", "Interpolate", "Inpaint", "Vary"
BASELINE = (
    "run={run} is a Gaussian baseline: it has no latent z of an image to edit with. Start the studio with a flow that "
    "has a learned prior (prior=learned) and its sampler= to use this tab."
)
FLOW_MAP = (
    "{option}={run} is a flow map, which has no velocity to follow from image to noise or along known pixels. Start "
    "the studio with its teacher, or another run without stage.objective=flow_map, to use this tab."
)


@dataclass(frozen=True)
class Models:
    """The pipeline of the studio, with the records of its models."""

    pipeline: LeDiFlowPipeline
    command: StudioCommand
    codec: str
    weights: dict[str, str]  # stage -> SHA-256

    @property
    def size(self) -> int:
        """Side of the pictures in pixels."""
        return picture_shape(self.pipeline)[0]

    @property
    def channels(self) -> int:
        return picture_shape(self.pipeline)[1]

    @property
    def classes(self) -> list[tuple[str, Label]]:
        """What to show of each class, and its label: a name, or a number where names are not known.

        Empty for models without classes, and where flow and sampler know a number by different names: loading warns of
        that, and every label is refused.
        """
        try:
            names = self.pipeline.class_names
        except UserError:
            return []
        numbers = range(self.pipeline.num_classes)
        return [
            (names[number], names[number]) if names else (f"class {number}", number) for number in numbers
        ]

    def labels_of(self, labels: Sequence[Label]) -> list[Label]:
        """The labels of these classes, as `classes` has them."""
        found = self.pipeline.class_numbers(SamplingConfig(labels=list(labels)))
        return [self.classes[number][1] for number in found]

    def labels_text(self, labels: Sequence[Label]) -> str:
        """The value of `labels=` on a command line: names in quotes."""
        return json.dumps(self.labels_of(labels), ensure_ascii=False)

    def reason_against(self, tab: str) -> str | None:
        """Why a tab cannot be used with these models; None if it can."""
        if tab == SAMPLE:
            return None
        if self.pipeline.auxiliary is None:
            return BASELINE.format(run=self.command.run)
        if tab == INTERPOLATE:
            is_map, option = is_flow_map(self.pipeline.latent_sampler), "sampler"
        else:
            is_map, option = is_flow_map(self.pipeline.velocity), "run"
        if is_map and tab != VARY:
            return FLOW_MAP.format(option=option, run=getattr(self.command, option))
        return None

    def table(self) -> list[list[str]]:
        """A row for each model: what it is, its number of parameters, and the SHA-256 of its weights."""
        runs = {"flow": self.command.run, "latent_sampler": self.command.sampler, "auxiliary": None}
        modules = {
            "flow": self.pipeline.velocity,
            "latent_sampler": self.pipeline.latent_sampler,
            "auxiliary": self.pipeline.auxiliary,
        }
        rows = []
        for stage, module in modules.items():
            if module is not None:
                count = sum(parameter.numel() for parameter in module.parameters())
                place = runs[stage] or "parent of the other two"
                rows.append([stage.replace("_", " "), place, f"{count:,}", self.weights[stage]])
        return rows

    def line(self) -> str:
        """The models in one line, for the terminal."""
        parts = [f"{stage.replace('_', ' ')} {shown_hash(digest)}" for stage, digest in self.weights.items()]
        kind = "a learned prior" if self.pipeline.auxiliary is not None else "the Gaussian baseline"
        colours = {1: "grey", 3: "RGB"}[self.channels]
        codec = "" if self.codec == "pixels" else f", latents of {self.codec}"
        return f"{kind}, {self.size} x {self.size} {colours}{codec}, {', '.join(parts)}"


def load_models(command: StudioCommand) -> Models:
    """The models of a run, ready to be used; UserError as in `lediflow.sample`."""
    flow = RunFolder(Path(command.run))
    require_export(flow, "the flow model", "python -m lediflow.train stage=flow ...")
    pipeline = load_pipeline(
        command.run, command.sampler, device=command.device, codec_path=command.codec_path
    )
    pipeline.resolved(command)
    pipeline.use(command.runtime, command.precision, images=1)
    facts, weights = flow.exported_facts(), pipeline_hashes(command.run, command.sampler)
    if pipeline.auxiliary is not None:
        weights["auxiliary"] = facts["parent"]["sha256"]
    return Models(pipeline, command, facts["codec"]["name"], weights)
