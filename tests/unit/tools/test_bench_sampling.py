"""The benchmark of generation runs where the tests run; its parts make the pipeline's images; its tables add up."""

import importlib
import json
from pathlib import Path

import pytest
import torch

from lediflow.errors import UserError
from lediflow.sampling import SamplingConfig

BENCH = Path(__file__).parents[3] / "tools" / "bench"
TINY = (
    "--models", "smoke", "--device", "cpu", "--precision", "float32", "--route", "sdpa", "--runtimes", "eager",
    "--batch", "2", "--lediflow", "midpoint:2", "--fm", "heun3:3", "--seconds", "0.001", "--rounds", "1",
)  # fmt: skip


@pytest.fixture
def bench(monkeypatch):
    """Imports a script of tools/bench as `python tools/bench/NAME.py` would see its neighbours."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


def rows_of(path):
    return json.loads(path.read_text())["results"]["rows"]


def row(part, milliseconds, **more):
    """A row of a chain's part as sampling.py writes it."""
    about = {
        "model": "paper_sdv",
        "batch": 4,
        "runtime": "compiled",
        "precision": "bfloat16",
        "space": "latents",
    }
    return {
        **about,
        "method": "LeDiFlow",
        "solver": "midpoint",
        "NFE": 4,
        "part": part,
        "ms/img": milliseconds,
        **more,
    }


def lines_of(table):
    """The words of each line below the heads of the first table."""
    return [line.split() for line in table.split("\n\n")[1].splitlines()[1:]]


def test_every_part_of_both_methods_and_the_codec_are_timed(bench, tmp_path, capsys):
    output = tmp_path / "rows.json"
    codec = ("--codecs", "taesd", "--codec_runtimes", "eager", "--latent_side", "2")
    bench("sampling").main([*TINY, *codec, "--output", str(output)])
    rows = rows_of(output)
    found = [(row.get("method"), row["part"], row.get("NFE")) for row in rows]
    assert found == [
        ("LeDiFlow", "call", 2), ("LeDiFlow", "chain", 2), ("LeDiFlow", "flow", 2),
        ("LeDiFlow", "sampler", 8), ("LeDiFlow", "decoder", None),
        ("FM", "call", 3), ("FM", "chain", 3), ("FM", "flow", 3),
        (None, "codec", None), (None, "codec", None),
    ]  # fmt: skip
    for one in rows:
        assert one["rounds"] == 1
        assert one["ms/img"] == pytest.approx(one["p50 ms"] / 2)
        assert 0 < one["p50 ms"] <= one["p95 ms"]
    assert {one["layout"] for one in rows[-2:]} == {"channels last", "contiguous"}
    printed = capsys.readouterr().out
    assert "Milliseconds per image, eager, float32, batch 2" in printed
    bench("sampling").main(["--table", str(output)])
    assert capsys.readouterr().out.split("\n\n")[-1].rstrip() in printed


@pytest.mark.parametrize("method", ["LeDiFlow", "FM"])
def test_the_parts_one_after_the_other_make_the_images_of_the_pipeline(bench, method):
    chains = bench("chains")
    pipeline = chains.random_pipeline("smoke", method, torch.device("cpu"), "sdpa", [])
    parts = chains.parts_of(pipeline, [chains.Evaluations("heun3", 6)], 3)
    inputs = chains.inputs_of(pipeline, 3)
    config = SamplingConfig(solver="heun3", steps=2)
    images, start = pipeline(3, config).images, pipeline(3, config).start
    expected = {"chain": images, "flow": images, "sampler": start.z, "decoder": start.x}
    made = {part.name: part.function(inputs) for part in parts if part.name != "call"}
    assert made.keys() == ({"chain", "flow"} if method == "FM" else expected.keys())
    for name, found in made.items():
        found = found.clamp(-1, 1) if name in ("chain", "flow") else found
        assert torch.equal(found, expected[name]), name


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", ["LeDiFlow", "FM"])
def test_recorded_parts_make_the_images_of_the_pipeline(bench, method):
    chains = bench("chains")
    pipeline = chains.random_pipeline("smoke", method, torch.device("cuda"), "auto", [])
    expected = pipeline(3, SamplingConfig(solver="heun3", steps=2))
    pipeline.use("compiled", "float32")
    inputs = chains.inputs_of(pipeline, 3)
    for part in chains.parts_of(pipeline, [chains.Evaluations("heun3", 6)], 3):
        run = chains.runnable(part, pipeline.runtime, inputs)
        assert isinstance(run, chains.Replay) == (part.name != "call")
        if part.name in ("chain", "flow"):
            # sums are reordered
            torch.testing.assert_close(run().clamp(-1, 1), expected.images, rtol=0, atol=1e-3)


@pytest.mark.parametrize("text", ["midpoint:3", "heun3:0", "dopri5:6", "midpoint", "leapfrog:2"])
def test_evaluations_that_a_solver_cannot_take_are_refused(bench, text, capsys):
    with pytest.raises(SystemExit):
        bench("sampling").main([*TINY, "--lediflow", text])
    assert text in capsys.readouterr().err


def test_a_network_that_cannot_be_compiled_leaves_the_other_rows(bench, tmp_path, monkeypatch, capsys):
    sampling, output = bench("sampling"), tmp_path / "rows.json"
    prepare = sampling.chain_cases

    def broken(about, *rest):
        if about["method"] == "LeDiFlow":
            raise RuntimeError("no compiler")
        return prepare(about, *rest)

    monkeypatch.setattr(sampling, "chain_cases", broken)
    with pytest.raises(SystemExit) as ended:
        sampling.main([*TINY, "--output", str(output)])
    assert ended.value.code == 1
    assert [one.get("error") for one in rows_of(output)] == ["RuntimeError: no compiler", None, None, None]
    assert "no compiler" in capsys.readouterr().err


def test_a_run_that_is_cut_off_keeps_what_it_has_measured(bench, tmp_path):
    interleaved, output = bench("interleaved"), tmp_path / "rows.json"
    journal = interleaved.Journal(str(output))
    calls = iter(range(3))
    done = interleaved.Case({"part": "flow"}, 2, lambda: None, torch.device("cpu"))
    cut_off = interleaved.Case({"part": "chain"}, 2, lambda: next(calls), torch.device("cpu"))
    interleaved.measure_alone(done, 0.0, journal)
    with pytest.raises(StopIteration):
        interleaved.measure_alone(cut_off, 0.0, journal)
    assert [(one["part"], one["rounds"]) for one in rows_of(output)] == [("flow", 0)]


def test_cases_take_turns(bench):
    interleaved = bench("interleaved")
    order = []
    cases = [
        interleaved.Case({"part": name}, 1, lambda name=name: order.append(name), torch.device("cpu"))
        for name in "ab"
    ]
    interleaved.measure_in_turns(cases, seconds=0.0, rounds=2, journal=interleaved.Journal(None))
    turns = [name for name, before in zip(order, [None, *order], strict=False) if name != before]
    assert turns == ["a", "b", "a", "b"]


class TestThePapersTable:
    """By component, with the codec for latents, and flow matching's total as a multiple of LeDiFlow's."""

    FOUR, SIXTEEN = ({"solver": "midpoint", "NFE": nfe} for nfe in (4, 16))
    ROWS = (
        row("chain", 4.0, **FOUR),
        row("sampler", 1.0, solver="midpoint", NFE=8),
        row("decoder", 0.5),
        row("flow", 2.5, **FOUR),
        row("flow", 3.5, solver="midpoint", NFE=6),
        row("chain", 10.0, method="FM", **SIXTEEN),
        row("flow", 9.5, method="FM", **SIXTEEN),
        {"part": "codec", "codec": "sd2_vae", "batch": 4, "runtime": "eager", "precision": "bfloat16",
         "layout": "channels last", "ms/img": 2.0},
    )  # fmt: skip

    def test_of_latents(self, bench):
        table = bench("sampling_tables").summary([self.ROWS[:-1], self.ROWS[-1:]], "eager")
        assert lines_of(table) == [
            ["paper_sdv", "FM", "midpoint", "16", "9.5", "2", "12"],
            ["paper_sdv", "LeDiFlow", "midpoint", "4", "1", "0.5", "2.5", "2", "6", "2"],
        ]

    def test_of_pixels(self, bench):
        rows = [{**one, "space": "pixels"} if "space" in one else one for one in self.ROWS]
        table = bench("sampling_tables").summary([rows], "eager")
        assert lines_of(table) == [
            ["paper_sdv", "FM", "midpoint", "16", "9.5", "10"],
            ["paper_sdv", "LeDiFlow", "midpoint", "4", "1", "0.5", "2.5", "4", "2.5"],
        ]

    def test_exists_where_one_run_measured_both_methods(self, bench):
        tables = bench("sampling_tables")
        assert tables.summary([self.ROWS[:5], self.ROWS[5:7]], "eager") == ""
        assert tables.conditions(self.ROWS) == [("compiled", 4)]

    def test_lacks_a_codec_that_was_measured_in_another_way(self, bench):
        table = bench("sampling_tables").summary([self.ROWS], "compiled")
        assert [line[-1] for line in lines_of(table)] == ["10", "2.5"]


def test_first_images_are_timed_from_the_start_of_a_process_with_cold_and_warm_caches(bench):
    stamps = {"start": 1.0, "imports": 3.0, "models": 3.5, "image": 10.0}
    seen = []

    def run(arguments, environment):
        assert environment["PYTHONDONTWRITEBYTECODE"] == ""
        seen.append((arguments, environment["TORCHINDUCTOR_CACHE_DIR"], environment["PYTHONPYCACHEPREFIX"]))
        return stamps

    for runtime in ("compiled", "exported"):
        cold, warm = bench("first_images").start_rows("smoke", runtime, ["--device", "cpu"], run)
        assert (cold[0]["caches"], warm[0]["caches"]) == ("cold", "warm")
        assert cold[1] == {"imports s": 2.0, "models s": 0.5, "image s": 6.5, "total s": 9.0}
    assert seen[0][0] == ["--model", "smoke", "--runtime", "compiled", "--device", "cpu"]
    caches = [folders for _, *folders in seen]
    assert caches[0] == caches[1] != caches[2] == caches[3]


@pytest.mark.processes
def test_a_process_says_when_its_first_image_was_there(bench):
    options = ["--model", "smoke", "--runtime", "eager", "--device", "cpu", "--route", "sdpa"]
    stamps = bench("first_images").run_start(options, {})
    assert stamps["start"] < stamps["imports"] < stamps["models"] < stamps["image"]


def test_flow_maps_are_run_by_jumps_and_not_together_with_solvers(bench, tmp_path):
    output = tmp_path / "rows.json"
    jumps = ("--lediflow", "jump:1", "--sampler", "jump:1", "--fm", "--parts", "sampler", "flow")
    deeper = "model.latent_sampler.levels.0.depth=2"
    bench("sampling").main([*TINY, *jumps, "--output", str(output), deeper])
    found = [(row["part"], row["solver"], row["NFE"]) for row in rows_of(output)]
    assert found == [("flow", "jump", 1), ("sampler", "jump", 1)]
    chains = bench("chains")
    with pytest.raises(UserError, match="velocity: a flow map is run by jumps only"):
        chains.maps_of([chains.evaluations("jump:1"), chains.evaluations("euler:1")], chains.PAPERS)
