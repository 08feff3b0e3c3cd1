"""Run folders with nothing but exports of tiny models with random weights, and folders of edits without models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from harness.drawn_models import drawn_model
from lediflow.codecs import taesd
from lediflow.editing.folder import EditFolder, as_image
from lediflow.models import (
    AuxiliarySpec,
    LatentSamplerSpec,
    LevelSpec,
    MappingSpec,
    VelocitySpec,
    save_model,
)
from lediflow.run_folder import RunFolder
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.grids import GAP, SMALLEST

SIZE = 16
LEVEL = LevelSpec(depth=2, width=16, head_dim=8)
MAPPING = MappingSpec(depth=1, width=16)


def specs(channels: int, is_flow_map: bool = False) -> dict:
    auxiliary = AuxiliarySpec(image_channels=channels, patch_size=4, levels=[LEVEL], latent_channels=2)
    velocity = VelocitySpec(
        image_channels=channels,
        patch_size=4,
        levels=[LEVEL],
        mapping=MAPPING,
        latent_shape=[2, 4, 4],
        is_flow_map=is_flow_map,
    )
    sampler = LatentSamplerSpec(latent_channels=2, levels=[LEVEL], mapping=MAPPING, is_flow_map=is_flow_map)
    return {"auxiliary": auxiliary, "flow": velocity, "sampler": sampler}


def drawn(spec, seed: int):
    """A model with random weights; those of a latent sampler are smaller, so that dopri5 needs few steps."""
    std = 0.05 if isinstance(spec, LatentSamplerSpec) else 0.1
    return drawn_model(spec, seed, std=std)


def tiny_pipeline(channels: int = 1, codec=None) -> LeDiFlowPipeline:
    models = {name: drawn(spec, seed) for seed, (name, spec) in enumerate(specs(channels).items())}
    return LeDiFlowPipeline(
        models["flow"], models["auxiliary"], models["sampler"], image_size=SIZE, codec=codec
    )


def save_random_taesd(folder: Path) -> Path:
    """Weights of a TAESD that has learned nothing, but passes some of an image on."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(5)
    for name, half in (("encoder", taesd.encoder()), ("decoder", taesd.decoder())):
        weights = {
            key: torch.randn(value.shape, generator=generator)
            * (0.7 / value[0].numel() ** 0.5 if value.ndim > 1 else 0.1)
            for key, value in half.state_dict().items()
        }
        save_file(weights, folder / f"taesd_{name}.safetensors")
    return folder


def save_tiny_runs(
    root: Path,
    channels: int = 1,
    *,
    is_flow_map: bool = False,
    codec: str = "pixels",
    first_seed: int = 0,
    classes: Sequence[str] = (),
) -> Path:
    """Runs auxiliary, flow and sampler in `root`, with one parent; flow and sampler with classes of these names."""
    facts: dict = {"prior": "learned", "image_size": SIZE, "codec": {"name": codec}}
    if classes:
        facts["data"] = {"classes": [*classes]}
    stages = {"auxiliary": "auxiliary", "flow": "flow", "sampler": "latent_sampler"}
    parent = None
    for seed, (name, spec) in enumerate(specs(channels, is_flow_map).items(), start=first_seed):
        if name != "auxiliary":
            spec.num_classes = len(classes)
        save_model(
            drawn(spec, seed), root / name / "export", {**facts, "stage": stages[name], "parent": parent}
        )
        if name == "auxiliary":
            parent = {"path": str(root / name), "sha256": RunFolder(root / name).weights_hash()}
    return root


def strip_pictures(path: Path, columns: int, rows: int = 1) -> np.ndarray:
    """Grey pictures of a strip, without its labels, at their own size: rows x columns x SIZE x SIZE."""
    strip = np.asarray(Image.open(path))
    factor = SMALLEST // SIZE
    cell = SIZE * factor + GAP
    left, top = strip.shape[1] - columns * cell, strip.shape[0] - rows * cell
    cells = strip[top:, left:, 0].reshape(rows, cell, columns, cell).swapaxes(1, 2)[..., :-GAP, :-GAP]
    found = cells[..., ::factor, ::factor]
    assert np.array_equal(cells, found.repeat(factor, axis=-2).repeat(factor, axis=-1))
    return found


def make_edit(root: Path, record: dict, frames: np.ndarray) -> Path:
    """The output folder of an edit with this record, and a strip of these pictures."""
    folder = EditFolder(root, origin=None)
    folder.add_picture("strip.png", as_image(np.concatenate(frames, axis=1)))
    folder.write(record)
    return root
