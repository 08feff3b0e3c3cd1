"""The copy of the code that a job runs."""

import os
import subprocess
import sys

import pytest

from lediflow.cluster.submitting.snapshot import take_snapshot


@pytest.fixture
def checkout(tmp_path):
    """A small project of the same shape."""
    root = tmp_path / "checkout"
    for name, text in {
        "lediflow/__init__.py": "",
        "lediflow/a.py": "print(1)\n",
        "conf/train.yaml": "x: 1\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_edits_do_not_reach_the_copy(checkout, tmp_path):
    snapshot = take_snapshot(tmp_path / "runs", checkout)
    (checkout / "lediflow/a.py").write_text("print(2)\n")
    env = os.environ | {"PYTHONPATH": str(snapshot)}
    ended = subprocess.run(
        [sys.executable, "-m", "lediflow.a"], env=env, capture_output=True, text=True, cwd=tmp_path
    )
    assert ended.stdout == "1\n"
    assert (snapshot / "conf/train.yaml").read_text() == "x: 1\n"


def test_the_same_code_is_copied_once_and_other_code_beside_it(checkout, tmp_path):
    first = take_snapshot(tmp_path / "runs", checkout)
    (checkout / "lediflow/__pycache__").mkdir()
    (checkout / "lediflow/__pycache__/a.pyc").write_bytes(b"made by Python")
    assert take_snapshot(tmp_path / "runs", checkout) == first
    (checkout / "conf/train.yaml").write_text("x: 2\n")
    second = take_snapshot(tmp_path / "runs", checkout)
    assert second != first
    assert sorted(path.name for path in first.parent.iterdir()) == sorted([first.name, second.name])


def test_the_project_s_own_copy_has_its_commands_and_its_configuration(tmp_path):
    snapshot = take_snapshot(tmp_path)
    assert (snapshot / "lediflow/train.py").is_file()
    assert (snapshot / "conf/train.yaml").is_file() or (snapshot / "lediflow/conf/train.yaml").is_file()
