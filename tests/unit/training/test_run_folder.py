"""A run folder is made by every rank at once, or refused with a way out."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from lediflow.errors import UserError
from lediflow.training.run_folder import RunFolder


def test_many_ranks_may_create_it_at_once_and_leave_nothing_behind(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with ThreadPoolExecutor(8) as ranks:
        list(ranks.map(lambda _: folder.create(), range(400)))
    assert list(folder.root.iterdir()) == []


def test_a_file_in_its_place_is_refused_with_its_name(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        RunFolder(tmp_path / "run").create()
