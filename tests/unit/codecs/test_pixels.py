import torch

from lediflow.codecs import CodecConfig, build_codec, bytes_to_signal, signal_to_bytes

EVERY_BYTE = torch.arange(256, dtype=torch.uint8)


def test_black_and_white_are_minus_one_and_one():
    assert bytes_to_signal(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


def test_every_byte_comes_back():
    assert torch.equal(signal_to_bytes(bytes_to_signal(EVERY_BYTE)), EVERY_BYTE)


def test_every_byte_comes_back_from_half_a_step_away():
    for shift in (-0.49, 0.49):
        assert torch.equal(signal_to_bytes(bytes_to_signal(EVERY_BYTE) + shift / 127.5), EVERY_BYTE)


def test_signals_outside_are_clipped():
    assert signal_to_bytes(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]


def test_latents_of_pixels_are_the_images():
    codec, images = build_codec(CodecConfig()), torch.randn(2, 3, 8, 8)
    latents = codec.encode(images)
    assert torch.equal(codec.decode(latents.draw(torch.randn(2, 3, 8, 8))), images)
    assert codec.latent_shape(8, 3) == (3, 8, 8)
