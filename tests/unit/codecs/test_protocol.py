"""The codec of pixels, draws of latents, and the choice of a codec by name."""

import pytest
import torch

from lediflow.codecs import CodecConfig, Latents, build_codec, bytes_to_signal, signal_to_bytes
from lediflow.errors import UserError

EVERY_BYTE = torch.arange(256, dtype=torch.uint8)


def test_black_and_white_are_minus_one_and_one():
    assert bytes_to_signal(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


def test_every_byte_is_recovered():
    assert torch.equal(signal_to_bytes(bytes_to_signal(EVERY_BYTE)), EVERY_BYTE)


def test_every_byte_is_recovered_after_errors_of_half_a_step():
    for shift in (-0.49, 0.49):
        assert torch.equal(signal_to_bytes(bytes_to_signal(EVERY_BYTE) + shift / 127.5), EVERY_BYTE)


def test_signals_outside_are_clipped():
    assert signal_to_bytes(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]


def test_latents_of_pixels_are_the_images():
    codec, images = build_codec(CodecConfig()), torch.randn(2, 3, 8, 8)
    latents = codec.encode(images)
    assert torch.equal(codec.decode(latents.draw(torch.randn(2, 3, 8, 8))), images)
    assert codec.latent_shape(8, 3) == (3, 8, 8)


def test_an_unknown_codec_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="choose one of pixels, sd2_vae, taesd"):
        build_codec(CodecConfig(name="jpeg"))


@pytest.mark.parametrize("name", ["sd2_vae", "taesd"])
def test_a_codec_without_weights_says_where_to_give_them(name, tmp_path):
    with pytest.raises(UserError, match=r"codec\.path="):
        build_codec(CodecConfig(name=name))
    (tmp_path / "other.bin").write_text("")
    with pytest.raises(UserError, match=r"needs .* in codec.path=.* \(found other.bin\)"):
        build_codec(CodecConfig(name=name, path=str(tmp_path)))


def test_an_unknown_precision_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="choose one of float32, bfloat16, float16"):
        build_codec(CodecConfig(name="taesd", path="anywhere", precision="fp8"))


def test_drawn_latents_have_the_mean_and_deviation_of_their_posterior():
    mean, logvar = torch.full((1, 1, 200, 200), 3.0), torch.full((1, 1, 200, 200), 4.0).log()
    drawn = Latents(mean, logvar).draw(
        torch.randn(1, 1, 200, 200, generator=torch.Generator().manual_seed(0))
    )
    assert drawn.mean().item() == pytest.approx(3, abs=0.03)  # three standard errors of 40,000 draws
    assert drawn.std().item() == pytest.approx(2, abs=0.03)
