"""Typical deviations from the prior: the same bits on any ranks, of at most so many images."""

import pytest
import torch
from harness.thread_ranks import on_thread_ranks

from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.order import samples_of
from lediflow.data.synthetic import make_synthetic_shards
from lediflow.models import AuxiliarySpec, LevelSpec, build_model
from lediflow.training.prior_width import measure_spread

COUNT = 75  # of which the last piece holds a part only


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    make_synthetic_shards(folder, COUNT, 8, 1)
    return ShardReader.open(folder)


@pytest.fixture(scope="module")
def auxiliary():
    torch.manual_seed(0)
    model = build_model(
        AuxiliarySpec(
            image_channels=1,
            patch_size=2,
            levels=[LevelSpec(depth=1, width=16, head_dim=8)],
            latent_channels=2,
            logvar_floor=-7.0,
        )
    )
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.requires_grad_(False)


def measured(auxiliary, reader, world_size=1, micro_batch=4, **limit):
    samples = samples_of("all", reader.index.table["key"], 0.0)
    return on_thread_ranks(
        world_size,
        lambda engine: measure_spread(auxiliary, reader, samples, engine, **limit),
        micro_batch=micro_batch,
    )


@pytest.mark.parametrize(("world_size", "micro_batch"), [(1, 1), (2, 4), (3, 2)])
def test_ranks_and_micro_batches_change_no_bit(auxiliary, reader, world_size, micro_batch):
    (alone,) = measured(auxiliary, reader)
    assert measured(auxiliary, reader, world_size, micro_batch) == [alone] * world_size
    assert alone.sigma > 0 and alone.residual > 0


class WatchedReader(ShardReader):
    """Remembers which samples were read."""

    def stored(self, samples, views=None):
        self.seen = [*getattr(self, "seen", []), *samples.tolist()]
        return super().stored(samples, views)


def test_a_large_set_is_represented_by_samples_spread_over_it(auxiliary, reader):
    watched = WatchedReader.open(reader.index.root)
    measured(auxiliary, watched, most=25)
    assert watched.seen == list(range(0, COUNT, 3))
