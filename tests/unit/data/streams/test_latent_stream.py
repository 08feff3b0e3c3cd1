"""Encoded once or in every epoch: the same latents at the same positions of the run."""

import shutil
from dataclasses import replace

import pytest
import torch

from lediflow.codecs import CodecConfig, Latents
from lediflow.data.encode import EncodeConfig, encode
from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.config import DataConfig
from lediflow.data.streams.stream import LatentStream, SampleStream, is_worthwhile
from lediflow.flow.noise import SampleNoise

SEED, GLOBAL, TENTH = 11, 12, 0.1


def encoded(images):
    """A posterior that tells flips and pictures apart."""
    ramp = torch.linspace(-1, 1, images.shape[-1])
    return Latents(images[:, :2, ::2, ::2] + ramp[::2], images[:, :2, 1::2, ::2] - 2)


def streams(reader, config, **options):
    """The same place of the same run: images, and latents."""
    options = {"seed": SEED, "micro_batch": 4, "global_batch": GLOBAL} | options
    return (
        SampleStream(reader, config, **options),
        LatentStream(reader, config, encode=encoded, **options),
    )


def assert_draws_of_the_same_posteriors(reader, config, batches=30, **options):
    images, latents = streams(reader, config, **options)
    for _ in range(batches):
        shown, batch = images.next_batch(), latents.next_batch()
        mean, logvar = encoded(shown.images)
        n = SampleNoise(SEED).normal(shown.ids, "posterior", tuple(mean.shape[1:]))
        assert batch.is_encoded and not shown.is_encoded
        assert batch.keys == shown.keys and torch.equal(batch.ids, shown.ids)
        assert batch.labels is shown.labels is None or torch.equal(batch.labels, shown.labels)
        torch.testing.assert_close(batch.images, mean + logvar.exp().sqrt() * n)
    assert latents.state() == images.state()
    images.close(), latents.close()


@pytest.mark.parametrize("horizontal", [False, True])
@pytest.mark.parametrize("vertical", [False, True])
def test_each_position_has_the_latents_of_its_picture_with_its_flip(reader, horizontal, vertical):
    config = DataConfig(flip_horizontal=horizontal, flip_vertical=vertical, held_out_fraction=0.1)
    assert_draws_of_the_same_posteriors(reader, config)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_latents_have_the_memory_layout_of_the_encoder(reader, layout):
    """A mean over a batch adds in the order of memory: it must not depend on when the images were encoded."""

    def encoder(images):
        return Latents(*(part.contiguous(memory_format=layout) for part in encoded(images)))

    options = {"seed": SEED, "micro_batch": 4, "global_batch": GLOBAL}
    stream = LatentStream(reader, DataConfig(flip_horizontal=True), encode=encoder, **options)
    assert stream.next_batch().images.is_contiguous(memory_format=layout)
    stream.close()


def test_pictures_that_are_stored_mirrored_too_are_read_so(shards, tmp_path):
    """A set that has both views, as autoencoders' latents do; here of pixels."""
    encode(
        EncodeConfig(
            source=str(shards), output=str(tmp_path / "both"), codec=CodecConfig(name="pixels"), flipped=True
        )
    )
    reader = ShardReader.open(tmp_path / "both")
    assert reader.index.contents.views == 2
    assert_draws_of_the_same_posteriors(reader, DataConfig(flip_horizontal=True))


def test_ranks_and_resumed_runs_have_their_own_positions(reader):
    config = DataConfig(flip_horizontal=True)
    for rank in (0, 1):
        assert_draws_of_the_same_posteriors(
            reader, config, batches=6, rank=rank, world_size=2, micro_batch=3, position=5 * GLOBAL
        )


def test_a_corrupt_picture_is_replaced_by_the_same_sample_when_encoding_once(shards, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(shards, folder)
    index = ShardReader.open(folder).index
    shard, row = index.shards[0], index.table[3]
    with (folder / shard.name).open("r+b") as file:
        file.seek(int(row["offset"]) + int(row["length"]) - 60)
        file.write(b"\x00\xff" * 10)
    assert_draws_of_the_same_posteriors(ShardReader.open(folder), DataConfig(max_corrupt_share=TENTH))


def test_the_encoder_encodes_each_picture_once_per_flip_in_equal_batches(reader):
    seen = []

    def counting(images):
        seen.append(len(images))
        return encoded(images)

    config = DataConfig(flip_horizontal=True)
    stream = LatentStream(reader, config, encode=counting, seed=SEED, micro_batch=4, global_batch=GLOBAL)
    for _ in range(60):
        stream.next_batch()
    stream.close()
    assert seen == [4] * 26  # 50 pictures, twice, the last four filled up


def test_encoding_once_is_used_from_two_epochs_on():
    plain = DataConfig()
    both = replace(plain, flip_horizontal=True, flip_vertical=True)
    options = {"latent_shape": (4, 4, 4), "world_size": 1}
    assert is_worthwhile(plain, 500, images=1000, **options)
    assert not is_worthwhile(plain, 500, images=999, **options)
    assert not is_worthwhile(both, 500, images=3999, **options)
    assert not is_worthwhile(plain, 500, images=1999, latent_shape=(4, 4, 4), world_size=2)
    assert not is_worthwhile(plain, 10_000_000, images=10**12, **options)  # 5 GB of latents
