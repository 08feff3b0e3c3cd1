"""PSNR in closed form."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from lediflow.codecs import CodecConfig, PixelCodec
from lediflow.data.encode import EncodeConfig, encode
from lediflow.data.latents import psnr, squared_error, summary


class BrightCodec(PixelCodec):
    """Gives every picture back brighter by four bytes, where there is room."""

    name = "bright"

    def decode(self, latents):
        return latents + 4 / 127.5


def test_a_difference_of_one_byte_everywhere_is_48_decibels():
    one = squared_error(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.ones(1, 3, 8, 8, dtype=torch.uint8))
    assert psnr(one.item()) == pytest.approx(48.13, abs=0.005)  # 20 log10(255)


def test_mean_and_worst_are_over_the_pictures_that_changed():
    check = summary([1.0, 0.0, 100.0], ["a", "b", "c"])
    assert (check.samples, check.exact, check.worst_key) == (3, 1, "c")
    assert check.psnr_mean - check.psnr_worst == pytest.approx(10)  # they are 20 dB apart
    assert "PSNR 38.13 dB on average, 28.13 dB at worst (sample c), 1 come back exactly" in check.sentence()


@pytest.mark.parametrize("count", [1, 20, 1000])
def test_pixels_are_recovered_exactly(shards, tmp_path, count):
    check = encode(EncodeConfig(source=str(shards), output=str(tmp_path), check=count, device="cpu")).check
    assert check.exact == check.samples == min(count, 50)
    assert check.sentence().endswith("all come back exactly")


def test_the_error_of_a_codec_is_printed_recorded_and_plotted(shards, reader, tmp_path):
    config = EncodeConfig(
        source=str(shards), output=str(tmp_path), codec=CodecConfig(), check=50, batch_size=7, device="cpu"
    )
    check = encode(config, codec=BrightCodec()).check
    pixels = reader.stored(np.arange(50)).numpy().astype(np.int64)
    errors = np.square(np.minimum(pixels + 4, 255) - pixels).mean((1, 2, 3))
    assert check.psnr_mean == pytest.approx(np.mean(10 * np.log10(255**2 / errors)))
    assert check.psnr_worst == pytest.approx(10 * math.log10(255**2 / errors.max()))
    assert json.loads((tmp_path / "check.json").read_text()) == vars(check)
    picture = np.asarray(Image.open(tmp_path / "check.png"))
    assert picture.shape == (2 * 16, 8 * 16, 3)
    np.testing.assert_array_equal(np.minimum(picture[:16].astype(int) + 4, 255), picture[16:])


def test_a_finished_set_is_checked_on_request(shards, tmp_path):
    encode(EncodeConfig(source=str(shards), output=str(tmp_path), device="cpu"))
    again = encode(EncodeConfig(source=str(shards), output=str(tmp_path), device="cpu", check=5))
    assert again.is_reused and again.check.samples == 5
