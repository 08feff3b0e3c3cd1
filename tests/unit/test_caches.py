"""Where compiled code and packages are kept."""

from pathlib import Path

import pytest

from lediflow.caches import INDUCTOR, cache_folder, compile_cache, keep_compiled


@pytest.fixture(autouse=True)
def plain(monkeypatch, tmp_path):
    for name in (INDUCTOR, "LEDIFLOW_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_the_folder_is_the_users_unless_another_is_named(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "home" / ".cache" / "lediflow"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "lediflow"
    monkeypatch.setenv("LEDIFLOW_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_pytorch_keeps_compiled_code_there():
    env = {}
    keep_compiled(env)
    assert Path(env[INDUCTOR]) == compile_cache()
    assert compile_cache().is_dir()


def test_a_folder_that_was_chosen_stays(monkeypatch):
    monkeypatch.setenv(INDUCTOR, "/elsewhere")
    env = {INDUCTOR: "/elsewhere"}
    keep_compiled(env)
    assert env == {INDUCTOR: "/elsewhere"}
    assert compile_cache() == Path("/elsewhere")


def test_a_cache_that_cannot_be_made_leaves_pytorchs_default(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LEDIFLOW_CACHE", str(tmp_path / "file"))
    env = {}
    keep_compiled(env)
    assert env == {}
