"""The numbers of an evaluation do not depend on the number of ranks, nor on kills in between."""

import shutil
import signal

import pytest
from harness.processes import wait_for_all

from lediflow.evaluation.results import read_results

MODULE = "lediflow.evaluate"
COUNT, BATCH = 40, 4
OF_TIME = ("cost", "ms_per_image")
# float64, in the order of ranks
SUMMED = (
    "nll_nats",
    "z_variance",
    "ence",
    "coverage_error",
    "sigma_mean",
    "psnr",
)


def options(trained, output, *more):
    return (
        f"run={trained.flow}", f"sampler={trained.sampler}", f"data.path={trained.latents}", "device=cpu",
        "step_counts=[1]", "timed_batch=1", f"count={COUNT}", f"batch_size={BATCH}",
        f"paths.runs={output}", f"output={output}", *more,
    )  # fmt: skip


def quality(output):
    """The rows without times."""
    document = read_results(output / "results.json")
    rows = document["results"]["rows"]
    return [{key: value for key, value in row.items() if key not in OF_TIME} for row in rows]


def outputs(finished):
    return "\n".join(process.output for process in finished)


@pytest.fixture(scope="module")
def alone(forks, trained, tmp_path_factory):
    """One process's rows."""
    output = tmp_path_factory.mktemp("alone")
    finished = forks.start(MODULE, *options(trained, output)).wait()
    assert finished.status == 0, finished.output
    return quality(output)


def test_three_ranks_have_the_bits_of_one_and_rank_0_alone_prints(forks, trained, alone, tmp_path):
    finished = forks.run_on_ranks(3, MODULE, *options(trained, tmp_path))
    assert [process.status for process in finished] == [0, 0, 0], outputs(finished)
    assert quality(tmp_path) == alone
    assert read_results(tmp_path / "results.json")["certificate"]["ranks"] == 3
    assert outputs(finished).count(f"on {COUNT} images") == 1


def test_the_batch_size_changes_nothing_but_roundings(forks, trained, alone, tmp_path):
    finished = forks.run_on_ranks(1, MODULE, *options(trained, tmp_path, "batch_size=7"))
    assert [process.status for process in finished] == [0], outputs(finished)
    (row,), (expected,) = quality(tmp_path), alone
    for name in ("mmd", "mmd_unbiased", "mmd_standard_error", "frechet", "kid", "density"):
        assert row[name] == pytest.approx(expected[name], rel=1e-3)  # float32 convolutions, in other orders
    assert row["record"] == expected["record"]


def test_killed_and_started_again_with_other_ranks_finished_batches_are_kept(forks, trained, alone, tmp_path):
    started = forks.start_on_ranks(2, MODULE, *options(trained, tmp_path))
    started[0].wait_until(lambda: len(pieces(tmp_path)) >= 3)
    for process in started:
        process.send(signal.SIGKILL)
    wait_for_all(started)
    assert 3 <= len(pieces(tmp_path)) < COUNT // BATCH
    finished = forks.run_on_ranks(1, MODULE, *options(trained, tmp_path))
    assert finished[0].status == 0, outputs(finished)
    assert quality(tmp_path) == alone
    assert not (tmp_path / "features").exists()  # a finished row needs none


def pieces(output):
    """Finished batches of generated images."""
    return sorted((output / "features").glob(".*.pieces/*.safetensors"))


def test_the_priors_diagnostics_are_those_of_one_rank(forks, trained, tmp_path):
    found = []
    for ranks in (1, 2):
        output = tmp_path / str(ranks)
        finished = forks.run_on_ranks(ranks, MODULE, "mode=prior", *options(trained, output))
        assert {process.status for process in finished} == {0}, outputs(finished)
        found.append(read_results(output / "results.json")["results"]["prior"])
    one, two = found
    assert two["z_histogram"] == one["z_histogram"]
    assert [two[name] for name in SUMMED] == pytest.approx([one[name] for name in SUMMED], rel=1e-12)


def test_a_rank_that_fails_ends_all_and_is_named(forks, trained, tmp_path):
    generated = tmp_path / "generated"
    shutil.copytree(trained.pictures / "bar", generated)
    broken = sorted(generated.iterdir())[BATCH + 1]  # in the second batch, which is the second rank's
    broken.write_bytes(broken.read_bytes()[:60])
    finished = forks.run_on_ranks(2, MODULE, f"images={generated}", f"reference={trained.pictures}/disc", "device=cpu",
                            f"batch_size={BATCH}", f"paths.runs={tmp_path}", f"output={tmp_path}/results")  # fmt: skip
    assert [process.status for process in finished] == [2, 2], outputs(finished)
    message = f"images={generated}: {broken.name} is not a picture that can be read"
    assert f"error: rank 1 of 2 failed while extracting features: {message}" in finished[0].output
    assert f"error: {message}" in finished[1].output
    assert "Traceback" not in outputs(finished)
