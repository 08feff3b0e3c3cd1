"""The codec `sd2_vae`, tested with a tiny AutoencoderKL with random weights."""

import math

import pytest
import torch

from lediflow.codecs import CodecConfig, build_codec
from lediflow.compat import fix_torchvision
from lediflow.errors import UserError

fix_torchvision()
from diffusers import AutoencoderKL  # noqa: E402  its import needs the workaround


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.25,
    ).eval()


@pytest.fixture(scope="module")
def codec(autoencoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    autoencoder.save_pretrained(folder)
    return build_codec(CodecConfig(name="sd2_vae", path=str(folder)))


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def test_latents_are_the_posterior_times_the_scaling_factor(codec, autoencoder, images):
    latents, posterior = codec.encode(images), autoencoder.encode(images).latent_dist
    assert tuple(latents.mean.shape[1:]) == codec.latent_shape(32, 3) == (4, 4, 4)
    torch.testing.assert_close(latents.mean, posterior.mean * 0.25)
    torch.testing.assert_close((latents.logvar / 2).exp(), posterior.std * 0.25)


@torch.no_grad()
def test_decoding_undoes_the_scaling(codec, autoencoder):
    unscaled = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(codec.decode(unscaled * 0.25), autoencoder.decode(unscaled).sample)


def test_the_record_pins_scaling_and_weights(codec):
    record = codec.record()
    assert record["name"] == "sd2_vae" and record["scaling_factor"] == 0.25
    assert len(record["weights"]) == 64


def test_a_narrow_posterior_stays_narrow(codec, images):
    logvar = codec.encode(images).logvar
    assert logvar.isfinite().all() and logvar.max() < 20 + 2 * math.log(0.25)  # diffusers clamps at 20


@pytest.mark.parametrize("is_safe", [True, False], ids=["safetensors", "bin"])
@torch.no_grad()
def test_the_folder_of_a_pipeline_works_like_that_of_its_autoencoder(
    codec, autoencoder, images, tmp_path, is_safe
):
    autoencoder.save_pretrained(tmp_path / "vae", safe_serialization=is_safe)
    (tmp_path / "model_index.json").write_text("{}")
    again = build_codec(CodecConfig(name="sd2_vae", path=str(tmp_path)))
    assert torch.equal(again.encode(images).mean, codec.encode(images).mean)


def test_another_model_s_folder_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL", "block_out_channels": [8]}')
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="holds no AutoencoderKL that diffusers can load"):
        build_codec(CodecConfig(name="sd2_vae", path=str(tmp_path)))


@torch.no_grad()
def test_bfloat16_is_near_float32_and_answers_in_float32(codec, images):
    config = CodecConfig(name="sd2_vae", path=codec.autoencoder.config._name_or_path, precision="bfloat16")
    rounded, exact = build_codec(config).encode(images), codec.encode(images)
    assert rounded.mean.dtype == rounded.logvar.dtype == torch.float32
    error = (rounded.mean - exact.mean).std() / exact.mean.std()
    assert 0 < error < 0.03  # 8 bits through some 30 layers
