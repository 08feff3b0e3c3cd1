from collections import Counter

import numpy as np
import pytest
import torch

from lediflow.data.augmentation import AugmentConfig, augmented
from lediflow.data.streams.batch import each_once
from lediflow.data.streams.config import DataConfig
from lediflow.data.streams.order import samples_of
from lediflow.data.streams.stream import SampleStream
from lediflow.errors import UserError
from lediflow.flow.noise import SampleNoise

SEED, GLOBAL = 11, 12
SAMPLES = 50  # not a multiple of the global batch: batches run across the ends of epochs


def stream_of(reader, world_size=1, rank=0, micro_batch=2, position=0, batches_ahead=4, **config):
    return SampleStream(
        reader,
        DataConfig(**config),
        seed=SEED,
        rank=rank,
        world_size=world_size,
        micro_batch=micro_batch,
        global_batch=GLOBAL,
        position=position,
        batches_ahead=batches_ahead,
    )


def steps(reader, count, world_size=1, position=0, **options):
    """What all ranks see in `count` steps: {id: (key, image)}, and the state they would save."""
    seen, states = {}, []
    for rank in range(world_size):
        stream = stream_of(reader, world_size, rank, position=position, **options)
        for _ in range(count * stream.accumulation):
            batch = stream.next_batch()
            rows = zip(batch.ids.tolist(), batch.keys, batch.images, strict=True)
            for place, key, image in rows:
                assert place not in seen, f"position {place} came twice"
                seen[place] = (key, image)
        states.append(stream.state())
        stream.close()
    assert all(state == states[0] for state in states)
    return seen, states[0]


def assert_same(left, right):
    assert left.keys() == right.keys()
    for place in left:
        assert left[place][0] == right[place][0]
        torch.testing.assert_close(left[place][1], right[place][1], rtol=0, atol=0)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_all_ranks_together_read_every_position_once_and_every_key_once_per_epoch(reader, world_size):
    seen, _ = steps(reader, 25, world_size)  # 300 positions: six epochs
    assert sorted(seen) == list(range(300))
    all_keys = set(reader.keys(np.arange(SAMPLES)))
    for epoch in range(6):
        keys = [seen[place][0] for place in range(epoch * SAMPLES, (epoch + 1) * SAMPLES)]
        assert len(keys) == SAMPLES and set(keys) == all_keys


@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_ranks_trains_on_the_same_images_in_the_same_steps(reader, world_size):
    flips = {"flip_horizontal": True, "flip_vertical": True}
    assert_same(steps(reader, 10, world_size, **flips)[0], steps(reader, 10, **flips)[0])


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (3, 2), (2, 3)])
def test_a_run_resumed_on_another_number_of_ranks_misses_and_repeats_nothing(reader, before, after):
    first, state = steps(reader, 7, before)  # stops at 84, inside the second epoch
    assert state["position"] == 7 * GLOBAL
    second, _ = steps(reader, 8, after, position=state["position"])
    assert not first.keys() & second.keys()
    assert_same(first | second, steps(reader, 15)[0])


def test_loading_a_state_continues_there(reader):
    stream, uninterrupted = stream_of(reader), stream_of(reader)
    for _ in range(6):  # one step is six micro-batches here
        uninterrupted.next_batch()
    stream.load(uninterrupted.state())
    assert stream.next_batch().ids.tolist() == uninterrupted.next_batch().ids.tolist() == [12, 13]


def test_a_step_that_was_not_finished_is_repeated(reader):
    stream = stream_of(reader)
    for _ in range(8):
        stream.next_batch()
    assert stream.state()["position"] == GLOBAL


def test_threads_and_prefetching_change_nothing(reader):
    plain, _ = steps(reader, 6, threads=1, batches_ahead=0)
    assert_same(plain, steps(reader, 6, threads=4, batches_ahead=9)[0])


def test_held_out_samples_never_occur_and_all_others_once_per_epoch(reader):
    kept = samples_of("train", reader.index.table["key"], 0.3)
    held_out = samples_of("heldout", reader.index.table["key"], 0.3)
    assert 0 < len(held_out) < SAMPLES
    seen, _ = steps(reader, 10, held_out_fraction=0.3)
    keys = Counter(seen[place][0] for place in range(2 * len(kept)))
    assert keys == dict.fromkeys(reader.keys(kept), 2)


def test_flips_mirror_about_half_of_the_images(reader):
    plain, _ = steps(reader, 25)
    flipped, _ = steps(reader, 25, flip_horizontal=True)
    mirrored = [torch.equal(flipped[place][1], plain[place][1].flip(-1)) for place in plain]
    untouched = [torch.equal(flipped[place][1], plain[place][1]) for place in plain]
    assert all(m or u for m, u in zip(mirrored, untouched, strict=True))
    assert 0.4 < np.mean(mirrored) < 0.6  # 300 fair coins: standard deviation 0.03


def test_augmented_images_do_not_depend_on_ranks_micro_batches_or_restarts(reader):
    options = {"augment": AugmentConfig(probability=0.5), "flip_vertical": True}
    first, state = steps(reader, 4, **options)
    second, _ = steps(reader, 3, world_size=2, micro_batch=3, position=state["position"], **options)
    whole, _ = steps(reader, 7, micro_batch=12, **options)
    assert_same(first | second, whole)
    plain, _ = steps(reader, 7, flip_vertical=True)
    assert sum(not torch.equal(plain[place][1], whole[place][1]) for place in plain) > len(plain) / 2


def test_a_batch_records_its_augmentation_without_the_flip_of_the_data(reader):
    config = AugmentConfig(probability=1.0)
    stream = stream_of(reader, micro_batch=12, augment=config)
    batch, plain = stream.next_batch(), stream_of(reader, micro_batch=12).next_batch()
    images, numbers = augmented(plain.images, plain.ids, SampleNoise(SEED), config)
    assert torch.equal(batch.images, images) and torch.equal(batch.augmentation, numbers)
    assert 0 < numbers[:, 0].sum() < 12 and 0 < numbers[:, 1].sum() < 12
    flipped = stream_of(reader, micro_batch=12, augment=config, flip_horizontal=True).next_batch()
    assert not flipped.augmentation[:, 0].any()
    assert torch.equal(flipped.augmentation[:, 1:], numbers[:, 1:])


def test_without_augmentation_images_and_batches_are_unchanged(reader):
    batch = stream_of(reader, augment=AugmentConfig(rotation=False)).next_batch()
    assert batch.augmentation is None
    assert torch.equal(batch.images, stream_of(reader).next_batch().images)


def test_labels_belong_to_their_keys(reader):
    every = np.arange(SAMPLES)
    label_of = dict(zip(reader.keys(every), reader.labels(every).tolist(), strict=True))
    batch = stream_of(reader).next_batch()
    assert batch.labels.tolist() == [label_of[key] for key in batch.keys]


def test_one_pass_shows_the_chosen_samples_in_order(reader):
    chosen = np.array([4, 2, 30, 31, 8])
    batches = list(each_once(reader, chosen, batch_size=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert [key for batch in batches for key in batch.keys] == reader.keys(chosen)


def test_an_indivisible_global_batch_is_refused_with_the_nearest_valid_one(reader):
    with pytest.raises(UserError, match=r"global_batch=12 .* on 5 ranks; the nearest that can is 10"):
        stream_of(reader, world_size=5)


def test_a_state_of_other_data_is_refused(reader):
    with pytest.raises(UserError, match="trained on other data"):
        stream_of(reader).load({"position": 0, "data": "0" * 64})


@pytest.mark.parametrize(
    "changed", [{"shuffle_window": 1}, {"held_out_fraction": 0.2}, {"last_batch": "drop"}]
)
def test_a_state_of_another_order_is_refused_with_both_named(reader, changed):
    with pytest.raises(
        UserError, match=r"order of samples was made with other settings \((data|samples).*: .* then, .* now"
    ):
        stream_of(reader, **changed).load(stream_of(reader).state())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("shuffle_window", -1, "at least 0"),
        ("threads", 0, "at least 1"),
        ("held_out_fraction", -0.1, "at least 0 and at most 1"),
        ("max_corrupt_share", 1.5, "at least 0 and at most 1"),
    ],
)
def test_meaningless_numbers_are_refused(reader, name, value, said):
    with pytest.raises(UserError, match=f"data.{name}={value} must be {said}"):
        stream_of(reader, **{name: value})


def test_holding_out_everything_is_refused(reader):
    with pytest.raises(UserError, match="leaves none of the 50 samples"):
        stream_of(reader, held_out_fraction=1.0)
