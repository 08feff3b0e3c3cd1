"""stage.objective=flow_map and reflow: trained from a finished run, continued, exported and sampled."""

import json
import shutil

import pytest
from harness.commands import invoke, succeed
from harness.small_features import small_features

from lediflow.disk import sha256_of
from lediflow.evaluation.results import read_results
from lediflow.models import load_model
from lediflow.tracking.event_log import read_events
from lediflow.tracking.metrics import unknown_names


def command_of(trained, run, *options):
    words = [word for word in trained.commands["flow"] if not word.startswith("run=")]
    named = [f"run={run}", f"teacher={trained.flow}", f"sampler={trained.sampler}"]
    return [*words, *named, "stage.teacher_steps=2", *options]


@pytest.fixture(scope="module")
def distilled(trained, tmp_path_factory):
    """A flow map that was interrupted after two steps, and continued."""
    run = tmp_path_factory.mktemp("distilled") / "map"
    succeed(*command_of(trained, run, "stage.objective=flow_map", "train.images=32"))
    said = succeed(*command_of(trained, run, "stage.objective=flow_map"))
    assert "continuing at 32 of 64" in said.err
    return run


def facts_of(run):
    return json.loads((run / "export/config.json").read_text())


def weights(run):
    return (run / "export/model.safetensors").read_bytes()


def test_an_interrupted_run_ends_like_an_uninterrupted_one(trained, distilled, tmp_path):
    succeed(*command_of(trained, tmp_path / "map", "stage.objective=flow_map"))
    assert weights(tmp_path / "map") == weights(distilled)


def test_the_export_is_a_flow_map_with_its_teacher_and_the_teachers_width(trained, distilled):
    facts, teachers = facts_of(distilled), facts_of(trained.flow)
    assert load_model(distilled / "export").spec.is_flow_map
    assert "is_flow_map" not in teachers["spec"]
    assert facts["teacher"]["path"] == str(trained.flow)
    assert facts["teacher"]["sha256"] == sha256_of(trained.flow / "export/model.safetensors")
    assert facts["sampler"]["sha256"] == sha256_of(trained.sampler / "export/model.safetensors")
    assert facts["parent"]["sha256"] == teachers["parent"]["sha256"]
    assert facts["prior_width"] == {"rule": "teacher"}
    for name in ("prior_widening", "prior_scale"):
        assert facts[name] == teachers[name]
    (first, *_) = [event for event in read_events(distilled / "events.jsonl") if event["event"] == "train"]
    assert {"velocity_mse", "map_mse", "whole_jump_mse"} <= first.keys()
    assert unknown_names([first]) == []


def test_it_is_sampled_by_jumps(trained, distilled, tmp_path):
    command = ["sample", f"run={distilled}", f"sampler={trained.sampler}", "count=2"]
    succeed(*command, f"output={tmp_path}/a", "steps=1")
    record = json.loads((tmp_path / "a/samples.json").read_text())
    assert (record["solver"], record["nfe"]) == ("jump", 1)
    assert (record["latent_solver"], record["latent_steps"]) == ("midpoint", 4)
    said = invoke(*command, f"output={tmp_path}/b", "solver=euler")
    assert said.status == 2
    assert "this flow is a flow map, which is run by jumps; use solver=jump steps=1" in said.err


def test_a_grid_measures_a_map_by_jumps_next_to_its_teacher(trained, distilled, tmp_path):
    """Each run with the solvers that fit it; alone, a map is refused one that does not, before any row is made."""
    quick = ["evaluate", "mode=grid", f"data.path={trained.latents}", "count=4", "device=cpu", "timed_batch=1",
             f"paths.runs={tmp_path}", f"output={tmp_path}/grid", *small_features(tmp_path),
             "grid.steps=[1]"]  # fmt: skip
    runs = f"runs={{map:[{distilled},{trained.sampler}],teacher:[{trained.flow},{trained.sampler}]}}"
    succeed(*quick, runs, "grid.solvers=[euler,jump]")
    rows = read_results(tmp_path / "grid/results.json")["results"]["rows"]
    assert [(row["run"], row["solver"], row["nfe"]) for row in rows] == [
        ("map", "jump", 1),
        ("teacher", "euler", 1),
    ]
    alone = [*quick, f"run={distilled}", f"sampler={trained.sampler}", f"output={tmp_path}/alone"]
    said = invoke(*alone, "grid.solvers=[jump,euler]")
    assert (
        said.status == 2
        and "use solver=jump steps=1 (or 2, or 4; in a grid, grid.solvers=[jump])" in said.err
    )
    assert not (tmp_path / "alone/rows").exists()


def test_a_run_is_not_continued_with_another_teacher(trained, distilled, tmp_path):
    shutil.copytree(distilled, tmp_path / "map")
    shutil.copytree(trained.baseline, tmp_path / "other")
    for file in ("export/config.json", "export/model.safetensors"):
        shutil.copy(trained.flow / file, tmp_path / "other" / file)
    (tmp_path / "other/export/model.safetensors").write_bytes(changed(trained.flow, tmp_path))
    command = command_of(trained, tmp_path / "map", "stage.objective=flow_map", "train.images=96")
    said = invoke(*[word for word in command if not word.startswith("teacher=")], f"teacher={tmp_path}/other")
    assert said.status == 2 and "choose another run=" in said.err and "teacher: " in said.err


def changed(run, folder):
    """Weights of a run, one of them changed, with the hash of the description set to theirs."""
    from safetensors.torch import load_file, save

    tensors = load_file(run / "export/model.safetensors")
    tensors["hourglass.out_norm.scale"] += 1
    data = save(tensors)
    (folder / "new").write_bytes(data)
    path = folder / "other/export/config.json"
    facts = json.loads(path.read_text()) | {"weights_sha256": sha256_of(folder / "new")}
    path.write_text(json.dumps(facts))
    return data


def test_meanflow_is_a_flow_map(trained, tmp_path):
    words = [word for word in command_of(trained, tmp_path / "map") if not word.startswith("sampler=")]
    succeed(*words, "stage.objective=meanflow")
    succeed(
        "sample",
        f"run={tmp_path}/map",
        f"sampler={trained.sampler}",
        "count=1",
        f"output={tmp_path}/out",
        "steps=1",
    )
    assert json.loads((tmp_path / "out/samples.json").read_text())["solver"] == "jump"


def test_reflow_is_a_velocity_again(trained, tmp_path):
    succeed(*command_of(trained, tmp_path / "reflow", "stage.objective=reflow"))
    assert not load_model(tmp_path / "reflow/export").spec.is_flow_map
    succeed(
        "sample", f"run={tmp_path}/reflow", f"sampler={trained.sampler}", "count=1", f"output={tmp_path}/out"
    )
