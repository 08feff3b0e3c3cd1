"""Pieces in safetensors files: what is written is what safetensors reads, what is read is what was cut."""

import hashlib
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lediflow.engine.checkpoints.slices import SlicedState, slice_name, write_slice, write_tensors
from lediflow.engine.protocol import Extent

SHAPES = {
    "weight/a": (7, 5), "weight/ä": (64,), "exp_avg/a": (2, 3, 4), "weight/scalar": (),
    "weight/one": (1,), "weight/none": (0,), "weight/no rows": (0, 3), "ema_0.050/a": (7, 5),
}  # fmt: skip


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def whole(random):
    return {key: torch.randn(shape, generator=random) for key, shape in SHAPES.items()}


def write_cut(folder, whole, ranks, random, steps=3):
    """Each tensor cut at places of its own; a rank that gets nothing of one says so, or leaves it out."""
    tensors, extents = [{} for _ in range(ranks)], [{} for _ in range(ranks)]
    for number, (key, tensor) in enumerate(whole.items()):
        size = tensor.numel()
        cuts = sorted(torch.randint(size + 1, (ranks - 1,), generator=random).tolist())
        bounds = [0, *cuts, size]
        for rank in range(ranks):
            start, stop = bounds[rank : rank + 2]
            if start < stop or number % 2 or rank == 0:
                tensors[rank][key] = tensor.flatten()[start:stop]
                extents[rank][key] = Extent(start, tuple(tensor.shape))
    paths = [folder / slice_name(rank, ranks) for rank in range(ranks)]
    for path, own, places in zip(paths, tensors, extents, strict=True):
        write_slice(path, own, places, steps)
    return paths


def write_pieces(folder, *pieces, size=6):
    """One file for each (start, stop) of a tensor that counts from 0."""
    paths = []
    for number, (start, stop) in enumerate(pieces):
        paths.append(folder / slice_name(number, len(pieces)))
        piece = torch.arange(start, stop).float()
        write_slice(paths[-1], {"weight/a": piece}, {"weight/a": Extent(start, (size,))}, steps=1)
    return paths


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_safetensors_reads_what_was_written(tmp_path, whole, dtype):
    tensors = {key: tensor.to(dtype) for key, tensor in whole.items()}
    write_tensors(tmp_path / "file", tensors, {"note": 'a "quoted" ü'})
    found = load_file(tmp_path / "file")
    assert found.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert found[key].dtype == dtype
        assert found[key].shape == tensor.shape
        assert torch.equal(found[key], tensor), key
    with safe_open(tmp_path / "file", framework="pt") as file:
        assert file.metadata() == {"note": 'a "quoted" ü'}


def test_numbers_are_kept_bit_for_bit(tmp_path):
    odd = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-45, torch.finfo().max])
    write_tensors(tmp_path / "file", {"odd": odd}, {})
    assert torch.equal(load_file(tmp_path / "file")["odd"].view(torch.int32), odd.view(torch.int32))


def test_a_file_without_tensors_can_be_read(tmp_path):
    write_tensors(tmp_path / "file", {}, {})
    assert load_file(tmp_path / "file") == {}


def test_a_noncontiguous_tensor_is_written_in_its_logical_order(tmp_path):
    tensor = torch.arange(12.0).view(3, 4).T
    write_tensors(tmp_path / "file", {"a": tensor}, {})
    assert torch.equal(load_file(tmp_path / "file")["a"], tensor)


@pytest.mark.parametrize("chunk", [1, 100, 2**24])
def test_the_hash_is_that_of_the_file(tmp_path, whole, chunk):
    said = write_tensors(tmp_path / "file", whole, {"note": "x"}, chunk)
    content = (tmp_path / "file").read_bytes()
    assert said == hashlib.sha256(content).hexdigest()
    assert torch.equal(load_file(tmp_path / "file")["weight/a"], whole["weight/a"])


@pytest.mark.parametrize("length", range(8))
def test_numbers_begin_at_multiples_of_eight_bytes(tmp_path, length):
    write_tensors(tmp_path / "file", {"a" * (length + 1): torch.ones(1)}, {})
    assert int.from_bytes((tmp_path / "file").read_bytes()[:8], "little") % 8 == 0


def test_names_of_slices_sort_by_rank():
    names = [slice_name(rank, 1000) for rank in range(1000)]
    assert names == sorted(names)
    assert names[7] == "slice-00007-of-01000.safetensors"


@pytest.mark.parametrize("ranks", [1, 2, 5])
class TestSlicesTogether:
    @pytest.fixture
    def state(self, tmp_path, whole, ranks, random):
        return SlicedState(write_cut(tmp_path, whole, ranks, random))

    def test_are_the_whole_state(self, state, whole):
        assert state.steps == 3
        assert state.shapes == SHAPES
        for key, tensor in whole.items():
            found = state.whole(key)
            assert found.shape == tensor.shape
            assert torch.equal(found, tensor), key

    def test_return_any_range(self, state, whole, random):
        for key, tensor in whole.items():
            flat, size = tensor.flatten(), math.prod(SHAPES[key])
            for _ in range(40):
                start, stop = sorted(torch.randint(size + 1, (2,), generator=random).tolist())
                assert torch.equal(state.read(key, start, stop), flat[start:stop]), (key, start, stop)

    def test_return_the_rest_from_any_offset(self, state, whole):
        for start in range(36):
            assert torch.equal(state.read("weight/a", start), whole["weight/a"].flatten()[start:])

    def test_may_be_named_in_any_order(self, tmp_path, state, whole):
        paths = sorted(tmp_path.iterdir(), reverse=True)
        assert torch.equal(SlicedState(paths).whole("weight/a"), whole["weight/a"])


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (((0, 4), (3, 6)), "elements 3 to 4 of weight/a are there twice"),
        (((0, 6), (0, 6)), "elements 0 to 6 of weight/a are there twice"),
        (((0, 2), (4, 6)), "elements 2 to 4 of weight/a are missing"),
        (((1, 6),), "elements 0 to 1 of weight/a are missing"),
        (((0, 3), (3, 5)), "elements 5 and following of weight/a are missing"),
        (((0, 3), (3, 8)), "weight/a"),
    ],
)
def test_pieces_that_do_not_tile_are_refused_by_name(tmp_path, pieces, words):
    with pytest.raises(ValueError, match=words):
        SlicedState(write_pieces(tmp_path, *pieces))


def test_a_tensor_that_no_slice_contains_does_not_exist(tmp_path):
    state = SlicedState(write_pieces(tmp_path, (0, 6)))
    assert "weight/b" not in state.shapes
    with pytest.raises(KeyError, match="weight/b"):
        state.read("weight/b")


def test_slices_that_disagree_on_a_shape_are_refused_by_name(tmp_path):
    paths = write_pieces(tmp_path, (0, 3), (3, 6))
    write_slice(paths[1], {"weight/a": torch.ones(3)}, {"weight/a": Extent(3, (2, 3))}, steps=1)
    with pytest.raises(ValueError, match=r"weight/a is \(6,\) in one slice, \(2, 3\) in another"):
        SlicedState(paths)


def test_slices_of_different_steps_are_refused(tmp_path):
    paths = write_pieces(tmp_path, (0, 3), (3, 6))
    write_slice(paths[1], {"weight/a": torch.ones(3)}, {"weight/a": Extent(3, (6,))}, steps=2)
    with pytest.raises(ValueError, match=r"different numbers of optimizer steps, \[1, 2\]"):
        SlicedState(paths)
