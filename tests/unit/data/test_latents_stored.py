"""Stored latents: dtypes, their range, both views, and reading them by plain webdataset."""

import io

import numpy as np
import pytest
import torch
import webdataset

from lediflow.codecs import Latents, PixelCodec
from lediflow.data.encode import EncodeConfig, encode
from lediflow.data.shards.reader import ShardReader
from lediflow.errors import UserError

EVERY = np.arange(50)


class SlantedCodec(PixelCodec):
    """Stochastic; the mean is the image under a slope from left to right (so mirroring matters), times `scale`."""

    name = "slanted"
    is_exact = False
    is_stochastic = True
    scale = 1 / 3

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode(self, images):
        self.batches.append(len(images))
        slope = torch.linspace(0.5, 1, images.shape[-1])
        return Latents(images * slope * self.scale, torch.full_like(images, 2 * np.log(0.1)))


@pytest.fixture
def slanted() -> SlantedCodec:
    return SlantedCodec()


def encoded(shards, output, codec=None, **options) -> ShardReader:
    config = EncodeConfig(source=str(shards), output=str(output), batch_size=3, device="cpu", **options)
    return ShardReader(encode(config, codec=codec).index)


def stored_arrays(folder) -> list[np.ndarray]:
    urls = sorted(map(str, folder.glob("*.tar")))
    dataset = webdataset.WebDataset(urls, shardshuffle=False).decode()
    return [sample["npy"] for sample in dataset]


def test_float16_halves_the_file_and_float32_keeps_every_bit(shards, reader, slanted, tmp_path):
    exact = slanted.encode(reader.signals(EVERY).mean).mean
    halved = encoded(shards, tmp_path / "float16", slanted).signals(EVERY).mean
    kept = encoded(shards, tmp_path / "float32", slanted, dtype="float32").signals(EVERY).mean
    assert torch.equal(kept, exact)
    assert torch.equal(halved, exact.half().float())


def test_pixels_are_stored_as_bytes_for_any_dtype(shards, tmp_path):
    assert encoded(shards, tmp_path, dtype="float32").index.contents.dtype == "uint8"


def test_an_unknown_dtype_is_refused_with_the_known_ones(shards, tmp_path):
    with pytest.raises(UserError, match="dtype=bfloat16 is not known; choose one of float16, float32"):
        encoded(shards, tmp_path, dtype="bfloat16")


def test_latents_outside_float16_are_refused_with_the_sample_and_a_remedy(shards, reader, slanted, tmp_path):
    slanted.scale = 1e6
    first = reader.keys(EVERY)[0]
    with pytest.raises(UserError, match=f"sample {first}: its latents reach .*dtype=float32"):
        encoded(shards, tmp_path, slanted)
    assert not list(tmp_path.glob("*.tar"))
    assert (
        encoded(shards, tmp_path / "wide", slanted, dtype="float32").signals(EVERY).mean.abs().max() > 65504
    )


def test_nonfinite_latents_are_never_stored(shards, slanted, tmp_path):
    slanted.scale = float("nan")
    with pytest.raises(UserError, match=r"not finite numbers; encode with codec\.precision=float32"):
        encoded(shards, tmp_path, slanted, dtype="float32")


def test_flipped_stores_the_mirrored_image_s_latents_behind_the_image_s(shards, reader, slanted, tmp_path):
    latents = encoded(shards, tmp_path, slanted, flipped=True, dtype="float32")
    assert latents.index.contents.views == 2
    images = reader.signals(EVERY).mean
    expected = [torch.cat([*slanted.encode(view)], dim=1) for view in (images, images.flip(-1))]
    np.testing.assert_array_equal(np.stack(stored_arrays(tmp_path)), torch.stack(expected, dim=1).numpy())


def test_statistics_of_both_views_are_over_both(shards, reader, slanted, tmp_path):
    statistics = encoded(shards, tmp_path, slanted, flipped=True).index.contents.statistics
    images = reader.signals(EVERY).mean
    means = torch.cat([slanted.encode(view).mean for view in (images, images.flip(-1))]).numpy()
    np.testing.assert_allclose(statistics["mean"], means.mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(statistics["std"], np.sqrt(means.var((0, 2, 3)) + 0.1**2), atol=1e-6)


def test_webdataset_decodes_latents_and_metadata_in_three_lines(shards, reader, slanted, tmp_path):
    encoded(shards, tmp_path, slanted)
    urls = sorted(map(str, tmp_path.glob("*.tar")))
    dataset = webdataset.WebDataset(urls, shardshuffle=False).decode().to_tuple("__key__", "npy", "json")
    keys, arrays, metadata = zip(*dataset, strict=True)
    assert list(keys) == reader.keys(EVERY)
    assert {array.shape for array in arrays} == {(6, 16, 16)}
    assert list(metadata) == [about for shard in range(7) for about in reader.metadata(shard)]


def test_compiled_code_meets_one_shape_and_gives_the_same_latents(shards, slanted, tmp_path, monkeypatch):
    plain = encoded(shards, tmp_path / "plain", slanted).signals(EVERY)
    assert set(slanted.batches) == {3, 2}  # eight samples a shard
    slanted.batches.clear()
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    compiled = encoded(shards, tmp_path / "compiled", slanted, compile=True).signals(EVERY)
    assert set(slanted.batches) == {3}
    assert torch.equal(compiled.mean, plain.mean) and torch.equal(compiled.logvar, plain.logvar)


def test_the_number_of_decoding_threads_does_not_change_the_result(shards, slanted, tmp_path):
    for threads in (1, 5):
        encoded(shards, tmp_path / str(threads), slanted, threads=threads)
    one, five = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "15")
    assert one == five


def test_a_header_says_what_the_array_is(shards, slanted, tmp_path):
    latents = encoded(shards, tmp_path, slanted, flipped=True)
    array = np.load(io.BytesIO(latents.payload(0)))
    assert (array.shape, array.dtype) == ((2, 6, 16, 16), np.float16)
