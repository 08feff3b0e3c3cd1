"""A training that memorises: few pictures of noise, and little that holds the latents back."""

from pathlib import Path

import numpy as np
from PIL import Image

from harness.commands import succeed

# the held-out loss is lowest at about 256 images, has turned some 256 or 320 later, and patience ends the run after 512
OPTIONS = (
    "experiment=smoke", "stage=auxiliary", "engine.device=cpu", "tracking.progress=false", "synthetic_images=0",
    "model.channels=3", "stage.beta=0.01", "train.learning_rate=2e-2", "data.held_out_fraction=0.9",
    "train.validation.every_images=64", "train.checkpoint.every_images=96", "train.log_every_images=16",
)  # fmt: skip
PATIENCE = 512
BEST = ("train.export=best", f"train.patience_images={PATIENCE}", "train.images=1280")


def noise_shards(root: Path) -> Path:
    """Shards of 40 pictures of which none says anything about another."""
    chance = np.random.default_rng(0)
    (root / "pictures").mkdir(parents=True)
    for number in range(40):
        pixels = chance.integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "pictures" / f"{number:03d}.png")
    succeed("prepare", f"source={root}/pictures", f"output={root}/noise", "size=16")
    return root / "noise"
