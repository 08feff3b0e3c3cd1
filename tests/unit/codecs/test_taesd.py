"""Ours against AutoencoderTiny of diffusers: the same layers, read from every form that weights come in."""

import pytest
import torch
from safetensors.torch import save_file

from lediflow.codecs import CodecConfig, build_codec
from lediflow.compat import fix_torchvision
from lediflow.errors import UserError

fix_torchvision()
from diffusers import AutoencoderTiny  # noqa: E402  its import needs the workaround


def original_name(name: str, shift: int) -> str:
    number, rest = name.removeprefix("layers.").split(".", 1)
    return f"{int(number) + shift}.{rest}"


@pytest.fixture(scope="module")
def oracle():
    torch.manual_seed(0)
    return AutoencoderTiny().eval().requires_grad_(False)


def save_as_the_original(oracle, folder, extension: str, save) -> None:
    # diffusers clamps latents in the decoder's forward, the original in its layer 0
    for half, module, shift in (("encoder", oracle.encoder, 0), ("decoder", oracle.decoder, 1)):
        weights = {original_name(name, shift): value for name, value in module.state_dict().items()}
        save(weights, folder / f"taesd_{half}.{extension}")


FORMS = {
    "original": lambda oracle, folder: save_as_the_original(oracle, folder, "safetensors", save_file),
    "original, pth": lambda oracle, folder: save_as_the_original(oracle, folder, "pth", torch.save),
    "diffusers": lambda oracle, folder: oracle.save_pretrained(folder),
    "diffusers, bin": lambda oracle, folder: oracle.save_pretrained(folder, safe_serialization=False),
}


@pytest.fixture(scope="module", params=FORMS)
def codec(oracle, tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("taesd")
    FORMS[request.param](oracle, folder)
    return build_codec(CodecConfig(name="taesd", path=str(folder)))


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_latents_are_those_of_diffusers(codec, oracle, images):
    latents = codec.encode(images)
    assert latents.logvar is None
    assert tuple(latents.mean.shape[1:]) == codec.latent_shape(32, 3) == (4, 4, 4)
    torch.testing.assert_close(latents.mean, oracle.encode(images).latents, rtol=1e-5, atol=1e-5)


def test_images_are_those_of_diffusers_kept_in_range(codec, oracle):
    latents = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(2)) * 3
    expected = oracle.decode(latents).sample.clamp(-1, 1)
    torch.testing.assert_close(codec.decode(latents), expected, rtol=1e-5, atol=1e-5)


def test_an_image_size_that_does_not_divide_names_the_next_smaller_that_does(codec):
    with pytest.raises(UserError, match="36 is not a multiple of it; prepare the images at size=32"):
        codec.latent_shape(36, 3)


def test_a_grey_image_is_encoded_as_its_colour_twin(codec, images):
    grey = images[:, :1]
    torch.testing.assert_close(codec.encode(grey).mean, codec.encode(grey.repeat(1, 3, 1, 1)).mean)


def test_weights_of_another_network_are_refused(tmp_path):
    other = AutoencoderTiny(encoder_block_out_channels=(16,) * 4, decoder_block_out_channels=(16,) * 4)
    other.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"hold other layers than TAESD has .*madebyollin/taesd on the hub"):
        build_codec(CodecConfig(name="taesd", path=str(tmp_path)))


@pytest.mark.parametrize("extension", ["safetensors", "pth"])
def test_a_damaged_file_is_named(oracle, tmp_path, extension):
    FORMS["original" if extension == "safetensors" else "original, pth"](oracle, tmp_path)
    path = tmp_path / f"taesd_decoder.{extension}"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=f"taesd_decoder.{extension} is damaged"):
        build_codec(CodecConfig(name="taesd", path=str(tmp_path)))


def test_a_file_that_would_run_code_is_refused(oracle, tmp_path):
    FORMS["original, pth"](oracle, tmp_path)
    torch.save({"weights": pytest.approx}, tmp_path / "taesd_encoder.pth")
    with pytest.raises(UserError, match=r"taesd_encoder.pth is damaged or not a file of weights"):
        build_codec(CodecConfig(name="taesd", path=str(tmp_path)))
