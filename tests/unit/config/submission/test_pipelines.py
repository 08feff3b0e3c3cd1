"""A pipeline's file and a command line become jobs; a mistake in one task stops them all before the first."""

import pytest
from harness.commands import load_cached
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from lediflow.cluster.jobs import SlurmConfig
from lediflow.config.submission.pipeline_jobs import pipeline_jobs
from lediflow.config.submission.pipelines import stem
from lediflow.config.submission.requests import parse_request
from lediflow.errors import UserError


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with two data sets to be prepared. Files are read once for all tests: a pipeline has up to 20 jobs."""
    monkeypatch.setattr(ConfigLoaderImpl, "_load_configuration_impl", load_cached)
    monkeypatch.chdir(tmp_path)
    for name in ("cats", "dogs.tar"):
        (tmp_path / name).mkdir()
    return tmp_path


def jobs(*arguments, pipeline="smoke"):
    return {
        job.name: job
        for job in pipeline_jobs(parse_request([f"pipeline={pipeline}", "source=cats", *arguments]))
    }


def option(job, key):
    (value,) = [item.partition("=")[2] for item in job.record.command if item.startswith(f"{key}=")]
    return value.strip("'")


@pytest.mark.parametrize("pipeline", ["ffhq256_sdv", "ffhq256_rgb"])
def test_the_papers_pipelines_lead_from_photographs_to_numbers(pipeline, place):
    found = [*jobs(pipeline=pipeline).values()]
    assert [(job.record.command[0].partition(".")[2], job.task) for job in found] == [
        ("prepare", "prepare"),
        ("encode", "encode"),
        ("train", "auxiliary"),
        ("train", "flow"),
        ("train", "latent_sampler"),
        ("evaluate", "evaluate"),
    ]
    names = {job.task: job.name for job in found}
    assert {job.task: job.record.after for job in found} == {
        "prepare": [],
        "encode": [names["prepare"]],
        "auxiliary": [names["encode"]],
        "flow": [names["auxiliary"]],
        "latent_sampler": [names["auxiliary"]],
        "evaluate": [names["flow"], names["latent_sampler"]],
    }
    prepare, encode, auxiliary, flow, sampler, evaluate = found
    assert option(encode, "source") == prepare.record.run == str(place / f"runs/{pipeline}/cats/images")
    assert option(auxiliary, "data.path") == option(evaluate, "data.path") == encode.record.run
    assert option(flow, "parent") == option(sampler, "parent") == auxiliary.record.run
    assert (option(evaluate, "run"), option(evaluate, "sampler")) == (flow.record.run, sampler.record.run)
    assert {job.record.pipeline for job in found} == {pipeline}
    assert [job.config.gpus_per_node for job in found[2:]] == [4, 4, 4, 1]
    assert (encode.record.array, flow.record.array) == (4, None)


def test_seeds_share_the_data_and_nothing_else():
    found = jobs("seed=0,1")
    assert [job.task for job in found.values()].count("prepare") == 1
    for seed in (0, 1):
        flow = found[f"smoke.cats.flow-learned-seed{seed}"]
        assert flow.record.after == [f"smoke.cats.auxiliary-learned-seed{seed}"]
        assert option(flow, "parent").endswith(f"/auxiliary-learned-seed{seed}")
        assert option(flow, "seed") == str(seed)
    assert len(found) == 2 + 2 * 4


def test_data_sets_share_nothing():
    found = jobs("source=cats,dogs.tar")
    by_data = {job.record.run.split("/smoke/")[1].partition("/")[0] for job in found.values()}
    assert by_data == {"cats", "dogs"}
    assert len(found) == 2 * 6
    assert all(
        name.split(".")[1] == other.split(".")[1] for name, job in found.items() for other in job.record.after
    )


def test_a_swept_value_separates_the_tasks_it_affects_and_their_dependents():
    found = jobs("flow.stage.cap=5,10")
    parted = {job.task for name, job in found.items() if "__flow.stage.cap-" in name}
    assert parted == {"flow", "evaluate"}
    assert len(found) == 4 + 2 * 2


def test_a_swept_value_of_all_trainings_does_not_affect_the_data():
    found = jobs("train.learning_rate=1e-3,2e-3")
    assert len(found) == 2 + 2 * 4
    parents = {option(job, "parent") for job in found.values() if job.task == "flow"}
    assert parents == {job.record.run for job in found.values() if job.task == "auxiliary"}


def test_options_reach_the_tasks_they_are_for():
    found = {job.task: job for job in jobs("train.images=32", "flow.train.images=64").values()}
    images = {name: option(found[name], "train.images") for name in ("auxiliary", "flow", "latent_sampler")}
    assert images == {"auxiliary": "32", "flow": "64", "latent_sampler": "32"}
    assert not any(item.startswith("train.") for item in found["evaluate"].record.command)


def test_resources_come_from_preset_file_command_line_and_task_in_this_order():
    given = ["slurm.account=me", "slurm.timeout_min=7", "flow.slurm.timeout_min=9", "evaluate.slurm=one_gpu"]
    found = {job.task: job.config for job in jobs(*given, "encode.array=3").values()}
    assert found["prepare"] == SlurmConfig(cpus_per_task=1, mem_gb=1, timeout_min=7, account="me")
    assert found["flow"].timeout_min == 9
    assert (found["evaluate"].gpus_per_node, found["evaluate"].cpus_per_task) == (1, 1)


def test_folders_with_unusual_names_are_passed_unchanged(place):
    odd = "it's, {here}=1"
    (place / odd).mkdir()
    prepare = next(iter(pipeline_jobs(parse_request(["pipeline=smoke", r"source='it\'s, {here}=1'"]))))
    assert prepare.record.run == str(place / f"runs/smoke/{odd}/images")


def test_the_name_of_a_folder_may_look_like_a_reference(place):
    odd = r"a ${x} ü,b=c"
    (place / odd).mkdir()
    job, *others = pipeline_jobs(parse_request(["pipeline=smoke", r"source=a \${x} ü,b=c"]))
    assert job.record.run == str(place / f"runs/smoke/{odd}/images")
    assert others[0].record.run == str(place / f"runs/smoke/{odd}/latents")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["source=nowhere"], r"task prepare: source=nowhere does not exist"),
        (["flow.train.imagess=3"], r"(?s)task flow: .*imagess.*nearest valid names: train.images"),
        (["sede=1"], r"(?s)task auxiliary: .*sede.*options of the pipeline: source, seed, folder"),
        (["flow.train.global_batch=0"], r"task flow: train.global_batch=0 must be at least 1"),
        (["prepare.slurm.nodes=2"], r"task prepare: .*one process.*2 nodes"),
        (["flow.slurm.nodse=2"], r"(?s)task flow: .*nearest valid names: slurm.nodes"),
        (["flow.array=2"], r"task flow: array=2: only encode"),
        (["source=???"], r"pipeline=smoke needs source=..."),
        (["folder=here", "source=cats,dogs.tar"], r"task prepare would make .*here/images twice"),
    ],
)
def test_a_mistake_names_the_task_and_what_to_do(arguments, words):
    with pytest.raises(UserError, match=words):
        jobs(*arguments)


def test_a_training_that_is_finished_by_its_folder_is_recognised(trained):
    finished = [f"auxiliary.run={trained.auxiliary}", "train.images=64"]
    known = {job.task: job.is_trained for job in jobs(*finished).values()}
    assert known["auxiliary"]
    assert not known["flow"]
    with pytest.raises(UserError, match=r"task auxiliary: .*trained with other options.*global_batch"):
        jobs(*finished, "train.global_batch=32")


@pytest.mark.parametrize(
    "path, name",
    [("/data/cats", "cats"), ("cats.tar.gz", "cats"), ("cats-1.0", "cats-1.0"), ("/data/Cats.ZIP", "Cats")],
)
def test_the_name_of_a_data_set_is_that_of_its_folder_or_archive(path, name):
    assert stem(path) == name
