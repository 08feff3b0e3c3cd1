"""The models in release/: whole, small, licensed, and of what their cards say."""

from pathlib import Path

import pytest
import torch
from harness.commands import succeed
from PIL import Image

from lediflow.sampling import LeDiFlowPipeline, SamplingConfig

RELEASE = Path(__file__).parents[2] / "release"
LARGEST = 20e6  # bytes of a folder


@pytest.mark.parametrize("folder", sorted(RELEASE.iterdir()), ids=lambda path: path.name)
class TestReleasedModels:
    def test_are_small_and_licensed(self, folder):
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= LARGEST
        card = (folder / "README.md").read_text()
        assert "\nlicense: " in card and "No license was given" not in card and "No measurements" not in card

    def test_make_varied_images(self, folder, tmp_path):
        pipeline = LeDiFlowPipeline.from_pretrained(folder)  # checks the hashes of the weights
        images = pipeline(2, SamplingConfig(steps=1, temperature=0.8)).images
        assert images.isfinite().all() and 0.2 < float(images.std()) < 0.8
        assert not torch.allclose(images[0], images[1], atol=0.1)
        succeed("sample", f"run={folder}", f"output={tmp_path}", "count=1", "steps=1", "temperature=0.8")
        with Image.open(tmp_path / "000000.png") as picture:
            assert picture.size == (pipeline.image_size, pipeline.image_size)
