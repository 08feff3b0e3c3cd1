"""What a W&B run says about its origin, and which files go with it."""

import json

import pytest
from harness.event_logs import export, requeued_twice

from lediflow.run_folder import RunFolder
from lediflow.tracking.wandb.facts import (
    exported_model,
    find_results,
    read_result,
    result_files,
    run_config,
    used_models,
)
from lediflow.tracking.wandb.log_index import IndexedLog
from lediflow.tracking.wandb.record import run_id_of

TOKEN = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path):
    parent, run = RunFolder(tmp_path / "aux"), RunFolder(tmp_path / "flow")
    log = requeued_twice(run.root)
    log.event(
        "resume", 200, job="18", restart=0, commit="c2", command=f"python -m lediflow.train hub.token={TOKEN}"
    )
    run.config.write_text(
        f"data:\n  path: https://me:{TOKEN}@store.example.org/shards\nparent: {parent.root}\nseed: 0\n"
    )
    export(parent, b"p", weights_sha256="p1")
    return run


def test_configuration_attempts_jobs_and_parents(folder):
    config = run_config(folder, IndexedLog(folder.events))
    about = config["run_facts"]
    assert config["seed"] == 0
    assert about["commit"] == "c2"
    assert about["slurm_jobs"] == ["17", "18"]
    assert [start["restart"] for start in about["attempts"]] == [0, 1, 2, 0]
    assert about["parents"] == {"parent": {"path": config["parent"], "sha256": "p1"}}


def test_no_token_is_in_the_configuration(folder):
    shown = json.dumps(run_config(folder, IndexedLog(folder.events)))
    assert TOKEN not in shown
    assert "store.example.org/shards" in shown


def test_the_parents_export_is_the_artifact_that_the_parent_itself_sends(folder):
    (used,) = used_models(folder)
    parent = RunFolder(folder.root.parent / "aux")
    assert used == exported_model(parent)
    assert used.name == run_id_of(parent)
    assert not (parent.root / "wandb").exists()


def test_a_parent_whose_weights_have_changed_is_not_an_input(folder):
    export(
        folder,
        b"f",
        weights_sha256="f1",
        parent={"path": str(folder.root.parent / "aux"), "sha256": "before"},
    )
    assert used_models(folder) == []
    assert exported_model(folder).sha256 == "f1"


def test_results_get_the_names_of_evaluations_in_the_log(folder):
    results, deeper = folder.root / "results", folder.root / "results" / "grid"
    rows = [
        {"solver": "midpoint", "steps": 2, "temperature": 1.0, "mmd_unbiased": 0.5, "nfe": 4, "mmd_name": "MMD"},
        {"solver": "euler", "steps": 1, "temperature": 0.9, "mmd_unbiased": 1.5, "mmd_interval": [1, 2]},
    ]  # fmt: skip
    for place in (results, deeper, results / "checkpoints" / "000000000100", results / "rows"):
        place.mkdir(parents=True, exist_ok=True)
        (place / "results.json").write_text(json.dumps({"results": {"rows": rows}}))
    (results / "features.safetensors").write_bytes(b"0")
    (results / "rows" / "a.json").write_text("{}")
    assert set(find_results(folder)) == {
        "results/results.json",
        "results/grid/results.json",
        "results/rows/results.json",
    }
    assert read_result(folder, "results/results.json", 200) == (
        200,
        {
            "evaluation/midpoint_2/mmd_unbiased": 0.5,
            "evaluation/midpoint_2/nfe": 4,
            "evaluation/euler_1_temperature_0.9/mmd_unbiased": 1.5,
        },
    )
    logged = {"evaluation/midpoint_2/nfe"}
    assert not logged & read_result(folder, "results/results.json", 200, logged).values.keys()
    assert "evaluation/grid/midpoint_2/nfe" in read_result(folder, "results/grid/results.json", 200).values
    shown = [str(path.relative_to(results)) for path in result_files(folder)]
    assert shown == ["checkpoints/000000000100/results.json", "grid/results.json", "results.json"]


def test_a_prior_has_its_numbers_and_other_files_have_none(folder):
    place = folder.root / "results"
    place.mkdir()
    (place / "results.json").write_text(json.dumps({"results": {"prior": {"psnr": 20.5, "images": 3}}}))
    assert read_result(folder, "results/results.json", 5).values == {"evaluation/prior/psnr": 20.5}
    (place / "results.json").write_text('{"results": {"rows": [{"solv')
    assert read_result(folder, "results/results.json", 5) is None
