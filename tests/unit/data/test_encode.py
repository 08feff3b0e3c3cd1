import io
import shutil

import numpy as np
import pytest
import torch
import webdataset

from lediflow.codecs import CodecConfig, Latents, PixelCodec
from lediflow.data.augmentation import AugmentConfig
from lediflow.data.encode import EncodeConfig, encode
from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.batch import each_once
from lediflow.data.streams.config import DataConfig
from lediflow.data.streams.stream import SampleStream
from lediflow.errors import UserError
from lediflow.evaluation.images import ShardImages


class BlurryCodec(PixelCodec):
    """Stochastic, with known numbers: the mean is half the image, the deviation a quarter."""

    name = "blurry"
    is_exact = False
    is_stochastic = True

    def encode(self, images):
        return Latents(images / 2, torch.full_like(images, 2 * np.log(0.25)))


def config(source, output, **changes) -> EncodeConfig:
    return EncodeConfig(source=str(source), output=str(output), batch_size=3, device="cpu", **changes)


@pytest.fixture(scope="module")
def blurred(shards, tmp_path_factory) -> ShardReader:
    """The latents of BlurryCodec."""
    return ShardReader(encode(config(shards, tmp_path_factory.mktemp("blurred")), codec=BlurryCodec()).index)


def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_pixels_are_stored_exactly_with_the_same_keys_and_order(shards, reader, tmp_path):
    latents = ShardReader(encode(config(shards, tmp_path)).index)
    for sample in range(50):
        one = np.array([sample])
        np.testing.assert_array_equal(latents.stored(one), reader.stored(one))
    every = np.arange(50)
    assert latents.keys(every) == reader.keys(every)
    assert torch.equal(latents.labels(every), reader.labels(every))
    assert [latents.metadata(shard) for shard in range(7)] == [reader.metadata(shard) for shard in range(7)]


def test_a_stream_over_pixel_latents_is_the_stream_over_images(shards, reader, tmp_path):
    encode(config(shards, tmp_path))
    options = {"seed": 3, "micro_batch": 10, "global_batch": 10}
    data = DataConfig(flip_horizontal=True, held_out_fraction=0.2)
    latents, images = (SampleStream(r, data, **options) for r in (ShardReader.open(tmp_path), reader))
    for _ in range(12):
        left, right = latents.next_batch(), images.next_batch()
        assert left.keys == right.keys
        torch.testing.assert_close(left.images, right.images, rtol=0, atol=0)


def test_the_index_holds_mean_and_deviation_of_each_channel(shards, reader, tmp_path):
    statistics = encode(config(shards, tmp_path)).index.contents.statistics
    pixels = reader.stored(np.arange(50)).numpy() / 127.5 - 1
    np.testing.assert_allclose(statistics["mean"], pixels.mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(statistics["std"], pixels.std((0, 2, 3)), atol=1e-6)


def test_statistics_of_a_stochastic_codec_are_those_of_its_draws(reader, blurred):
    statistics = blurred.index.contents.statistics
    means = (reader.stored(np.arange(50)).numpy() / 127.5 - 1) / 2
    expected = np.sqrt(means.var((0, 2, 3)) + 0.25**2)  # law of total variance
    np.testing.assert_allclose(statistics["std"], expected, atol=1e-6)


def test_stochastic_latents_are_drawn_for_each_id_around_their_mean(reader, blurred):
    assert blurred.index.contents.signal_shape == (3, 16, 16)
    every = np.arange(50)
    drawn, again, other = (next(each_once(blurred, every, 50, seed=seed)).images for seed in (0, 0, 1))
    assert torch.equal(drawn, again) and not torch.equal(drawn, other)
    deviation = (drawn - reader.signals(every).mean / 2).std().item()
    assert deviation == pytest.approx(0.25, abs=0.004)  # 38,400 draws: three standard errors


def test_flips_of_latents_that_cannot_be_mirrored_are_refused(blurred):
    with pytest.raises(UserError, match="holds latents of blurry"):
        SampleStream(blurred, DataConfig(flip_horizontal=True), seed=0, micro_batch=1, global_batch=1)


def test_augmentation_of_latents_is_refused_with_what_to_set(blurred):
    data = DataConfig(augment=AugmentConfig(probability=0.12))
    with pytest.raises(UserError, match=r"holds latents of blurry, .* set data\.augment\.probability=0"):
        SampleStream(blurred, data, seed=0, micro_batch=1, global_batch=1)


@pytest.mark.parametrize("samples_done", [8, 32])
def test_an_interrupted_and_repeated_command_gives_the_same_bytes(shards, tmp_path, samples_done):
    def stop(done: int, total: int) -> None:
        if done >= samples_done:
            raise KeyboardInterrupt

    encode(config(shards, tmp_path / "once"))
    with pytest.raises(KeyboardInterrupt):
        encode(config(shards, tmp_path / "twice"), stop)
    assert not encode(config(shards, tmp_path / "twice")).is_reused
    assert files(tmp_path / "twice") == files(tmp_path / "once")
    assert encode(config(shards, tmp_path / "twice")).is_reused


def test_plain_webdataset_reads_the_latents(shards, reader, tmp_path):
    encode(config(shards, tmp_path))
    urls = sorted(map(str, tmp_path.glob("*.tar")))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == reader.keys(np.arange(50))
    np.testing.assert_array_equal(np.load(io.BytesIO(samples[7]["npy"])), reader.stored(np.array([7]))[0])


def test_another_codec_into_the_same_folder_is_refused(shards, tmp_path):
    encode(config(shards, tmp_path))
    with pytest.raises(UserError, match=r"another command \(codec: .*pixels.* then, .*blurry.* now\)"):
        encode(config(shards, tmp_path), codec=BlurryCodec())


def test_latents_are_not_encoded_again(shards, tmp_path):
    encode(config(shards, tmp_path / "latents"))
    with pytest.raises(UserError, match="holds latents, not images"):
        encode(config(tmp_path / "latents", tmp_path / "again", codec=CodecConfig(name="pixels")))


def damaged(shards, folder, where):
    """A copy of the set whose sample 3 has other bytes from `where` of its file on."""
    shutil.copytree(shards, folder)
    place = ShardReader.open(folder).index.table[3]
    with (folder / "images-000000.tar").open("r+b") as file:
        file.seek(int(place["offset"]) + where)
        file.write(bytes(int(place["length"]) - where))
    return folder


@pytest.mark.parametrize("where", [0, 45])
def test_a_corrupt_picture_is_named_with_its_shard(shards, tmp_path, where):
    source = damaged(shards, tmp_path / "source", where)
    (key,) = ShardReader.open(source).keys(np.array([3]))
    expected = (
        rf"^sample {key} of .*images-000000\.tar is corrupt: it cannot be decoded: .*make these shards again"
    )
    with pytest.raises(UserError, match=expected):
        encode(config(source, tmp_path / "latents"))
    with pytest.raises(UserError, match=expected):
        ShardImages(ShardReader.open(source), np.arange(8))(range(8))


def test_a_shard_that_is_not_a_tar_any_more_is_named(shards, tmp_path):
    shutil.copytree(shards, tmp_path / "source")
    tar = tmp_path / "source/images-000000.tar"
    tar.write_bytes(b"x" * tar.stat().st_size)
    with pytest.raises(UserError, match=r"images-000000\.tar"):
        encode(config(tmp_path / "source", tmp_path / "latents"))


def test_a_truncated_shard_is_named(shards, tmp_path):
    shutil.copytree(shards, tmp_path / "source")
    with (tmp_path / "source/images-000000.tar").open("r+b") as file:
        file.truncate(2000)
    with pytest.raises(UserError, match=r"images-000000\.tar"):
        encode(config(tmp_path / "source", tmp_path / "latents"))
