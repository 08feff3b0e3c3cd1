"""The model card of an exported folder: README.md with the front matter that model hubs read.

It holds no paths of the machine that trained the models: of the data, only the folder's name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import lediflow
from lediflow.codecs import CODECS, PixelCodec
from lediflow.models.export import record_of
from lediflow.sampling.belonging import names_of
from lediflow.sampling.options import SamplingConfig
from lediflow.sampling.pipeline import LeDiFlowPipeline
from lediflow.text import shown_hash, steps_text

NAMES = {"velocity": "flow", "auxiliary": "auxiliary model", "latent_sampler": "latent sampler"}
NO_LICENSE = (
    "No license was given for these weights: ask whoever trained them before you use them or pass them on."
)
MOST_CLASSES = 20  # named in a card


@dataclass(frozen=True)
class ModelCard:
    """What a card says besides what the models' own records say."""

    title: str
    license: str | None
    description: str | None
    pictures: str  # name of the picture file beside the card
    dtype: str  # of the stored parameters
    rounding: str  # how the folder's images differ from those of the runs
    commit: str
    rows: Sequence[Mapping[str, Any]]  # of an evaluation of these models; may be empty

    def text(self, pipeline: LeDiFlowPipeline, config: SamplingConfig) -> str:
        """The card of a pipeline whose pictures were made with this configuration."""
        parts = [
            self.front_matter(),
            f"# {self.title}",
            *filter(None, [self.description]),
            kind_of(pipeline),
            f"![Generated images]({self.pictures})",
            f"*The first images of seed {config.seed}, not selected; {config.solver}, {steps_text(config.steps)}, "
            f"temperature {config.temperature:g}.*",
            usage(pipeline, config),
            models_table(pipeline, self.dtype, self.rounding),
            data_section(pipeline),
            quality_section(self.rows),
            f"## License\n\n{self.license or NO_LICENSE}",
            f"Written by LeDiFlow {lediflow.__version__} ({self.commit}) with PyTorch {torch.__version__}.",
        ]
        return "\n\n".join(parts) + "\n"

    def front_matter(self) -> str:
        """YAML between lines of dashes; strings as JSON, which is YAML, too."""
        lines = ["---", "library_name: lediflow", "pipeline_tag: unconditional-image-generation"]
        if self.license:
            lines.append(f"license: {json.dumps(self.license)}")
        return "\n".join([*lines, "tags:", "- lediflow", "- flow-matching", "---"])


def kind_of(pipeline: LeDiFlowPipeline) -> str:
    size = pipeline.image_size
    channels = pipeline.velocity.spec.image_channels
    colours = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    codec = pipeline.codec.record()["name"] if pipeline.codec else "a codec"
    of = f"images of {size} x {size}, {colours}"
    if codec != PixelCodec.name:
        of = f"latents of {codec}, {channels} x {size} x {size}"
    if pipeline.auxiliary is None:
        return f"A flow-matching model of {of}, which starts from Gaussian noise."
    return (
        f"A LeDiFlow model ([arXiv:2505.20723](https://arxiv.org/abs/2505.20723)) of {of}: a flow that starts from a "
        f"learned prior, N(mu, ({pipeline.width.scale:g} sigma)^2 + {pipeline.width.added:g}^2)."
    )


def usage(pipeline: LeDiFlowPipeline, config: SamplingConfig) -> str:
    """How the folder is loaded, from Python and from the command line."""
    name = pipeline.codec.record()["name"] if pipeline.codec else "NAME"
    needs_codec = name != PixelCodec.name
    needs_weights = needs_codec and (name not in CODECS or CODECS[name].has_weights)
    path = ', path="WEIGHTS"' if needs_weights else ""
    given = f', codec=build_codec(CodecConfig(name="{name}"{path}), "cpu")' if needs_codec else ""
    imports = ["from lediflow.codecs import CodecConfig, build_codec"] if needs_codec else []
    labels = ", labels=[0, 1]" if pipeline.num_classes else ""
    settings = {"steps": config.steps} | (
        {"temperature": config.temperature} if config.temperature != 1 else {}
    )
    chosen = " ".join(f"{key}={value:g}" for key, value in settings.items())
    option = " codec_path=WEIGHTS" if needs_weights else ""
    return "\n".join(
        [
            "## Use",
            "",
            "```bash",
            f"python -m lediflow.sample run=FOLDER output=pictures count=16 {chosen}{option}",
            "```",
            "",
            "```python",
            *imports,
            "from lediflow.sampling import LeDiFlowPipeline, SamplingConfig",
            "",
            f'pipeline = LeDiFlowPipeline.from_pretrained("FOLDER"{given})',
            f"images = pipeline(16, SamplingConfig({chosen.replace(' ', ', ')}{labels})).images  # in [-1, 1]",
            "```",
            "",
            "FOLDER is this folder."
            + (" WEIGHTS are those of the codec that encoded the training data." if needs_weights else ""),
        ]
    )


def models_table(pipeline: LeDiFlowPipeline, dtype: str, rounding: str) -> str:
    lines = [
        "## Models",
        "",
        "| model | parameters | images seen | held-out loss | SHA-256 of the trained weights |",
        "|---|---:|---:|---:|---|",
    ]
    for name, module in pipeline.modules().items():
        record = record_of(module)
        count = sum(parameter.numel() for parameter in module.parameters())
        seen, loss = record.get("images_seen"), record.get("held_out_loss")
        cells = [
            NAMES[name] + (", a flow map" if getattr(module.spec, "is_flow_map", False) else ""),
            f"{count:,}",
            "" if seen is None else f"{seen:,}",
            "" if loss is None else f"{loss:.4g}",
            shown_hash(record.get("weights_sha256")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"Parameters are stored as {dtype}; {rounding}."])


def data_section(pipeline: LeDiFlowPipeline) -> str:
    data = record_of(pipeline.velocity).get("data") or {}
    if not data:
        return "## Training data\n\nNot recorded."
    held_out = (
        f", of which {data['held_out_fraction']:.1%} were held out" if data.get("held_out_fraction") else ""
    )
    text = f"{data['samples']:,} samples (`{Path(data['path']).name}`){held_out}."
    if names := names_of(pipeline.velocity):
        more = f" and {len(names) - MOST_CLASSES} more" if len(names) > MOST_CLASSES else ""
        text += f" Classes by number: {', '.join(map(str, names[:MOST_CLASSES]))}{more}."
    return f"## Training data\n\n{text}"


def quality_section(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "## Quality\n\nNo measurements were given."
    name = rows[0]["mmd_name"]
    lines = [
        "## Quality",
        "",
        f"| solver | steps | evaluations | temperature | {name} | 95 % interval | generated images |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        low, high = row["mmd_interval"]
        cells = [
            row["solver"],
            f"{row['steps']}",
            f"{row['nfe']:g}",
            f"{row['temperature']:g}",
            f"{row['mmd_unbiased']:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{row['sample_images']:,}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "Times 1000, unbiased; lower is better."])
