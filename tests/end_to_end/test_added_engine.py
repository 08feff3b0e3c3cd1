"""An engine is added by one entry of the table: it trains under its name, and jobs that it cannot run are refused."""

import pytest
from harness.commands import invoke, succeed
from harness.curves import assert_same_tensors, newest_state
from hydra.core.config_store import ConfigStore

from lediflow.engine.engines import ENGINES, EngineKind
from lediflow.engine.local import LocalEngine

IMAGES, BATCH = 32, 8


class CountingEngine(LocalEngine):
    """The engine of one process, which counts its steps."""

    steps = 0

    def step(self, learning_rate_factor, decays):
        CountingEngine.steps += 1
        return super().step(learning_rate_factor, decays)


@pytest.fixture
def added(monkeypatch):
    """The table with one entry more, which this file makes."""
    monkeypatch.setattr(CountingEngine, "steps", 0)
    monkeypatch.setitem(ENGINES, "counting", EngineKind(build=CountingEngine, is_one_process=True))
    yield
    # Hydra's store lasts as long as the process
    ConfigStore.instance().repo["engine"].pop("counting.yaml", None)


def command(trained, run, engine):
    return (
        "train", "experiment=smoke", "stage=auxiliary", "synthetic_images=0", f"data.path={trained.latents}",
        f"engine={engine}", "engine.device=cpu", f"train.images={IMAGES}", f"train.global_batch={BATCH}", f"run={run}",
    )  # fmt: skip


def test_it_trains_under_its_name_as_the_engine_that_it_extends(added, trained, tmp_path):
    for engine in ("counting", "local"):
        succeed(*command(trained, tmp_path / engine, engine))
    assert CountingEngine.steps == IMAGES // BATCH
    assert_same_tensors(newest_state(tmp_path / "counting"), newest_state(tmp_path / "local"))


def test_a_job_of_more_processes_than_it_has_is_refused(added, trained, tmp_path):
    _, *options = command(trained, tmp_path / "none", "counting")
    said = invoke("submit", *options, "slurm=node_4xa100", f"paths.runs={tmp_path}", "--dry-run")
    assert said.status == 2 and "engine=counting is one process" in said.err


def test_an_unknown_name_is_refused_with_the_known_ones_before_anything_is_planned(added, trained, tmp_path):
    said = invoke(*command(trained, tmp_path / "none", "local"), "engine.name=jax", "--dry-run")
    assert said.status == 2
    assert "engine.name='jax' is unknown; use engine=local or engine=deepspeed or engine=counting" in said.err
