"""A parent is found where it was, and where it was moved to; its weights' hash says that it is the one."""

import hashlib
import json
import os

import pytest

from lediflow.config.building.models import parent_record, stored_path
from lediflow.config.building.pipeline import find_parent
from lediflow.errors import UserError

WEIGHTS = b"the auxiliary model"
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


def exported(run, weights=WEIGHTS):
    (run / "export").mkdir(parents=True)
    (run / "export/model.safetensors").write_bytes(weights)
    (run / "export/config.json").write_text(json.dumps({}))
    return run


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A tree of runs, and an empty working folder elsewhere."""
    exported(tmp_path / "disk/runs/cells/auxiliary")
    (tmp_path / "disk/runs/cells/flow").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "disk/runs"


def records(runs):
    """What releases keep of a parent: this one, and earlier ones given an absolute and a relative path."""
    parent = runs / "cells/auxiliary"
    return {
        "this release": parent_record(parent, SHA256, runs / "cells/flow"),
        "absolute": {"path": str(parent), "sha256": SHA256},
        "relative": {"path": "runs/cells/auxiliary", "sha256": SHA256},
    }


@pytest.mark.parametrize("release", ["this release", "absolute", "relative"])
@pytest.mark.parametrize("moved", ["nothing", "the tree", "the experiment", "into a link"])
def test_it_is_found_from_any_working_folder_after_any_move(runs, tmp_path, release, moved):
    record = records(runs)[release]
    match moved:
        case "nothing":
            cells = runs / "cells"
        case "the tree":
            cells = runs.parent.rename(tmp_path / "other disk") / "runs/cells"
        case "the experiment":
            cells = (runs / "cells").rename(tmp_path / "solar")
        case "into a link":
            (runs / "cells").rename(tmp_path / "solar")
            (tmp_path / "link").symlink_to(tmp_path / "solar")
            cells = tmp_path / "link"
    found = find_parent({cells / "flow": record}, SHA256)
    assert found.root.samefile(cells / "auxiliary")
    relative = os.path.relpath(cells / "flow")
    assert find_parent({type(cells)(relative): record}, SHA256).root.samefile(cells / "auxiliary")


def test_a_linked_run_finds_its_parent_next_to_the_link(runs, tmp_path):
    record = records(runs)["this release"] | {"path": "/gone/auxiliary"}
    (runs / "cells/flow").rename(tmp_path / "scratch")
    (runs / "cells/flow").symlink_to(tmp_path / "scratch")
    assert find_parent({runs / "cells/flow": record}, SHA256).root == runs / "cells/auxiliary"


def test_the_parent_may_be_at_the_path_that_the_latent_sampler_records(runs, tmp_path):
    moved = (runs / "cells/auxiliary").rename(tmp_path / "prior")
    run, sampler = runs / "cells/flow", runs / "cells/sampler"
    known = {run: records(runs)["this release"], sampler: parent_record(moved, SHA256, sampler)}
    assert find_parent(known, SHA256).root == moved


def test_another_model_at_the_path_of_the_parent_is_skipped_with_advice(runs, tmp_path):
    record = records(runs)["this release"]
    (runs / "cells/auxiliary").rename(tmp_path / "lost")
    other = exported(runs / "cells/auxiliary", b"another one")
    with pytest.raises(UserError) as refused:
        find_parent({runs / "cells/flow": record}, SHA256)
    said = str(refused.value)
    assert f"{other} has other weights ({hashlib.sha256(b'another one').hexdigest()[:12]})" in said
    assert f"weights {SHA256[:12]}" in said
    assert f"a symbolic link to it, at {other}" in said


def test_the_advice_of_the_message_works(runs, tmp_path):
    record = records(runs)["this release"]
    lost = (runs / "cells/auxiliary").rename(tmp_path / "lost")
    with pytest.raises(UserError, match="there is no exported run in"):
        find_parent({runs / "cells/flow": record}, SHA256)
    (runs / "cells/auxiliary").symlink_to(lost)
    assert find_parent({runs / "cells/flow": record}, SHA256).root.samefile(lost)


def test_records_keep_paths_absolute_and_addresses_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    assert stored_path("shards/../shards") == str(tmp_path / "shards")
    assert stored_path("s3://bucket/shards") == "s3://bucket/shards"
    assert stored_path("owner/name") == "owner/name"
