"""Features in pieces: continued after a kill, refused where they are of something else, read back by share."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.engine.ranks import Ranks
from lediflow.errors import UserError
from lediflow.evaluation.embedding import Pieces, embed, feature_set, gathered

COUNT = 23


class Numbers:
    """Image i has the value i everywhere; counts what it was asked for."""

    def __init__(self, name: str = "numbers", broken: int | None = None) -> None:
        self.record, self.broken = {"images": name}, broken
        self.made: list[int] = []

    def __len__(self) -> int:
        return COUNT

    def __call__(self, numbers: range) -> Tensor:
        self.made += numbers
        values = torch.tensor([float(number) for number in numbers])
        values[[number == self.broken for number in numbers]] = torch.nan
        return values[:, None, None, None].expand(-1, 1, 2, 2)


class Corner:
    """An image's first pixel, thrice."""

    name, dim = "corner", 3
    record = {"features": "corner"}  # noqa: RUF012 - a stand-in's facts

    def __call__(self, images: Tensor) -> Tensor:
        return images[:, :1, 0, 0].expand(-1, 3)


def made(path, images, batch_size: int = 5):
    return feature_set(path, images, Corner(), Group(), batch_size=batch_size)


def test_rows_have_the_order_of_the_images_for_any_batch(tmp_path):
    for batch_size in (1, 5, 64):
        found = made(tmp_path / f"{batch_size}.safetensors", Numbers(), batch_size)
        rows = found.rows(Group()).values
        torch.testing.assert_close(rows, torch.arange(float(COUNT))[:, None].expand(-1, 3))


def test_a_finished_set_is_read_and_not_made_again(tmp_path):
    made(tmp_path / "set.safetensors", Numbers())
    again = Numbers()
    assert made(tmp_path / "set.safetensors", again).count == COUNT
    assert again.made == []


def test_a_killed_extraction_continues_where_it_stopped(tmp_path):
    path = tmp_path / "set.safetensors"
    with pytest.raises(UserError):
        made(path, Numbers(broken=12))
    again = Numbers()
    made(path, again)
    assert again.made == list(range(10, COUNT))  # the pieces 0-4 and 5-9 were there
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["set.safetensors"]


def test_features_of_other_images_are_not_reused(tmp_path):
    path = tmp_path / "set.safetensors"
    with pytest.raises(UserError):
        made(path, Numbers("others", broken=12))
    again = Numbers()
    made(path, again)
    assert again.made == list(range(COUNT))


def test_features_of_something_else_are_refused_with_both_fingerprints(tmp_path):
    path = tmp_path / "set.safetensors"
    made(path, Numbers("a"))
    with pytest.raises(
        UserError,
        match=r"fingerprint \w{16} there, \w{16} requested \(images\.images: 'a' there, 'b' requested\)",
    ):
        made(path, Numbers("b"))


def test_nonfinite_features_are_refused_with_the_number_of_the_image(tmp_path):
    with pytest.raises(
        UserError, match=r"corner gave features that are not finite for 1 of images 10 to 14.*image 12"
    ):
        made(tmp_path / "set.safetensors", Numbers(broken=12))


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_ranks_share_the_pieces_so_that_each_is_made_once(tmp_path, ranks):
    pieces = Pieces(tmp_path, COUNT, 5, tmp_path / "set.safetensors")
    shares = []
    for rank in range(ranks):
        group = Group(Ranks(rank=rank, world_size=ranks))
        shares += pieces.mine(group)
    assert sorted(shares) == list(range(len(pieces)))


def test_chosen_rows_are_those_with_the_numbers(tmp_path):
    found = made(tmp_path / "set.safetensors", Numbers())
    chosen = np.array([2, 3, 11, 22])
    assert found.chosen(chosen, Group()).values[:, 0].tolist() == [2, 3, 11, 22]
    batches = [(number, rows[:, 0].tolist()) for number, rows in found.batches(3, chosen)]
    assert batches == [(0, [2, 3, 11]), (1, [22])]


def test_progress_adds_up_to_the_images(tmp_path):
    done: list[int] = []
    pieces = Pieces(tmp_path / "pieces", COUNT, 5, tmp_path / "set.safetensors")
    embed(pieces, Numbers(), Corner(), Group(), done.append)
    assert done == [5, 5, 5, 5, 3]
    assert gathered(pieces, {}, Group()).count == COUNT


class Overtaken(Numbers):
    """Another command makes the whole set while images `at` and up are being made."""

    def __init__(self, path, at: int) -> None:
        super().__init__()
        self.path, self.at = path, at

    def __call__(self, numbers: range) -> Tensor:
        if self.at in numbers:
            made(self.path, Numbers())
        return super().__call__(numbers)


@pytest.mark.parametrize("at", [0, 12, COUNT - 1])
def test_a_set_finished_by_another_command_meanwhile_is_used(tmp_path, at):
    """The other command has removed pieces that this one made, and this one has pieces that come too late."""
    path = tmp_path / "set.safetensors"
    images = Overtaken(path, at)
    rows = made(path, images).rows(Group()).values
    torch.testing.assert_close(rows, torch.arange(float(COUNT))[:, None].expand(-1, 3))
    assert images.made == list(range(min(at // 5 * 5 + 5, COUNT)))  # and nothing is made in vain after that
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["set.safetensors"]


def test_pieces_removed_while_they_are_joined_are_not_needed(tmp_path):
    """The folder is removed after a command looked for the finished set, and while it writes a piece."""
    path = tmp_path / "set.safetensors"

    class Removing(Pieces):
        def read(self, piece: int) -> Tensor:
            made(path, Numbers())
            self.path(piece).unlink()
            return super().read(piece)

    class Late(torch.Tensor):
        def contiguous(self):
            shutil.rmtree(pieces.folder)
            return torch.zeros(5, 3)

    pieces = Removing(tmp_path / "pieces", COUNT, 5, path)
    embed(pieces, Numbers(), Corner(), Group())
    fingerprint = feature_set(tmp_path / "other.safetensors", Numbers(), Corner(), Group(), batch_size=5)
    assert gathered(pieces, fingerprint.fingerprint, Group()).count == COUNT
    pieces.write(0, torch.empty(5, 3).as_subclass(Late))
    assert not pieces.folder.exists()


def test_pieces_that_are_missing_without_a_finished_set_are_an_error(tmp_path):
    pieces = Pieces(tmp_path / "pieces", COUNT, 5, tmp_path / "set.safetensors")
    embed(pieces, Numbers(), Corner(), Group())
    pieces.path(2).unlink()
    with pytest.raises(UserError, match=r"00000010-00000015\.safetensors holds no features"):
        gathered(pieces, {}, Group())


def test_a_set_of_something_else_that_appears_meanwhile_is_refused(tmp_path):
    path = tmp_path / "set.safetensors"
    pieces = Pieces(tmp_path / "pieces", COUNT, 5, path)
    embed(pieces, Numbers("a"), Corner(), Group())
    made(path, Numbers("b"))
    with pytest.raises(UserError, match="was made from something else"):
        gathered(pieces, {"images": {"images": "a"}}, Group())
