"""Each mode of `lediflow.evaluate` on the session's tiny runs: what it writes, reuses and refuses."""

import json
import shutil
import sys
from threading import Thread
from time import monotonic, sleep

import pytest
import torch
from harness.commands import invoke, succeed
from harness.small_features import SIDE, small_features
from PIL import Image
from torch import nn

from lediflow.data.synthetic import make_synthetic_images
from lediflow.evaluation.logged import logged_values
from lediflow.evaluation.modes.compare import influence_file, read_influences
from lediflow.evaluation.results import read_results
from lediflow.tracking.event_log import read_events
from lediflow.tracking.metrics import unknown_names

COUNT = 12


def common(trained, folder, *more):
    return (f"data.path={trained.latents}", f"paths.runs={folder}", f"count={COUNT}", "device=cpu", *more)


def quick(trained, root, *more):
    """Options of tests that look neither at EfficientNet's features nor at the times of batches."""
    return common(trained, root, "timed_batch=1", *small_features(root), *more)


def run_of(trained):
    return (f"run={trained.flow}", f"sampler={trained.sampler}")


def rows(folder):
    return read_results(folder / "results.json")["results"]["rows"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folder of all outputs."""
    return tmp_path_factory.mktemp("modes")


@pytest.fixture(scope="module")
def small_options(trained, root):
    """Options of rows of small features, with the statistics of the photographs in a file of their own."""
    return (*run_of(trained), *quick(trained, root, f"statistics={root}/reference.safetensors"))


@pytest.fixture(scope="module")
def small_rows(small_options, root):
    """The rows of one step, then those of the same command for one more number of steps."""
    found = []
    for steps in ("[1]", "[1,2]"):
        succeed("evaluate", *small_options, f"step_counts={steps}", f"output={root}/small")
        found.append(rows(root / "small"))
    return found


class TestMetrics:
    @pytest.fixture(scope="class")
    def row(self, trained, root):
        """A row of EfficientNet's features."""
        succeed("evaluate", *run_of(trained), *common(trained, root, "step_counts=[1]", f"output={root}/row"))
        return rows(root / "row")[0]

    def test_every_metric_is_in_a_row_with_its_name_and_interval(self, row):
        assert row["mmd_name"] == "MMD (EfficientNet-Lite0)"
        assert row["frechet_name"] == "Fréchet distance (EfficientNet-Lite0)"
        assert row["kid_name"] == "Kernel distance (EfficientNet-Lite0)"
        assert row["mmd_interval"][0] < row["mmd_unbiased"] < row["mmd_interval"][1]
        assert {"precision", "recall", "density", "coverage"} <= row.keys()
        assert row["nearest_training"]["training_images"] == 48

    def test_a_row_has_the_cost_of_each_part(self, row):
        for batch in (row["cost"]["batch_1"], row["cost"]["batch_16"]):
            assert set(batch) == {"latent_sampler", "prior_decoder", "flow", "codec", "total"}
            assert all(value >= 0 for value in batch.values())
        assert row["ms_per_image"] == row["cost"]["batch_16"]["total"]

    def test_a_row_records_its_weights_extractor_and_references(self, row, trained):
        weights = json.loads((trained.flow / "export" / "config.json").read_text())["weights_sha256"]
        assert row["record"]["images"]["models"]["flow"] == weights
        assert row["record"]["extractor"]["features"] == "efficientnet-lite0"
        assert list(row["record"]["references"]) == ["photographs"]

    def test_adding_rows_keeps_existing_ones(self, small_rows):
        (first,), (kept, new) = small_rows
        assert kept == first
        assert new["steps"] == 2

    def test_times_of_another_runtime_are_measured_again_and_nothing_else(
        self, small_rows, small_options, root, tmp_path
    ):
        folder, kept = shutil.copytree(root / "small", tmp_path / "small"), small_rows[-1]
        for path in (folder / "results.json", *(folder / "rows").glob("*.json")):
            path.write_text(path.read_text().replace('"runtime": "eager"', '"runtime": "compiled"'))
        command = ("evaluate", *small_options, "step_counts=[1,2]", f"output={folder}")
        assert "already evaluated" not in succeed(*command).out
        timed = ("runtime", "ms_per_image", "cost")
        for row, before in zip(rows(folder), kept, strict=True):
            assert row["runtime"] == "eager" and row["cost"] != before["cost"]
            assert {key: row[key] for key in row if key not in timed} == {
                key: before[key] for key in before if key not in timed
            }
        assert "already evaluated" in succeed(*command).out

    def test_a_table_and_a_plot_are_written_with_the_numbers(self, small_rows, root):
        table = (root / "small" / "table.md").read_text()
        assert all(f"{row['mmd_unbiased']:.3f}" in table for row in small_rows[-1])
        assert Image.open(root / "small" / "pareto.png").width > 300

    def test_streaming_is_within_its_bound_of_the_exact_value(self, small_rows, small_options, root):
        options = ("step_counts=[1]", "metrics.estimator=streaming", f"output={root}/streaming")
        succeed("evaluate", *small_options, *options)
        (exact,), (streamed,) = small_rows[0], rows(root / "streaming")
        assert abs(streamed["mmd_unbiased"] - exact["mmd_unbiased"]) <= streamed["mmd_error_bound"]
        assert streamed["frechet"] == pytest.approx(exact["frechet"], rel=1e-6)

    def test_results_of_another_extractor_at_the_same_path_are_not_reused(self, trained, root, tmp_path):
        file, numbers = tmp_path / "module.pt", []
        options = [word for word in quick(trained, root, "step_counts=[0]") if "features.path" not in word]
        for factor in (1.0, 2.0):
            module = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(SIDE**2 * 3 // 16, 8))
            nn.init.constant_(module[-1].weight, factor)
            torch.jit.script(module).save(file)
            succeed("evaluate", *run_of(trained), *options, f"features.path={file}", f"output={tmp_path}/out")
            numbers.append(rows(tmp_path / "out")[0]["frechet"])
        assert numbers[1] == pytest.approx(4 * numbers[0], rel=1e-3)  # its unit is that of squared features

    def test_a_split_that_the_training_did_not_make_cannot_be_the_reference(self, trained, root):
        options = quick(trained, root, "data.split=heldout", f"output={root}/heldout")
        said = invoke("evaluate", *run_of(trained), *options)
        assert said.status == 2  # nothing was held out in these trainings
        assert "data.split=heldout" in said.err and "data.split=all" in said.err

    def test_statistics_of_other_photographs_are_refused_with_both_fingerprints(
        self, small_rows, small_options, root
    ):
        said = invoke("evaluate", *small_options, f"output={root}/small", "reference_count=20")
        assert said.status == 2
        assert "fingerprint" in said.err and "count: 48 there, 20 requested" in said.err

    def test_too_few_images_are_refused_before_any_is_made(self, trained, root):
        said = invoke("evaluate", *run_of(trained), *quick(trained, root, "count=2"))
        assert (said.status, "count=2" in said.err and "at least 3 images" in said.err) == (2, True)


class TestFolders:
    @pytest.mark.parametrize(("size", "expected"), [((20, 10), "20 x 10"), ((12, 12), "12 x 12")])
    def test_oblong_or_mixed_pictures_are_refused_by_name(self, trained, tmp_path, size, expected):
        shutil.copytree(trained.pictures / "bar", tmp_path / "pictures")
        Image.new("L", size).save(tmp_path / "pictures" / "zz-other.png")
        said = invoke("evaluate", f"images={tmp_path}/pictures", f"reference={trained.pictures}/disc",
                      f"paths.runs={tmp_path}", "device=cpu")  # fmt: skip
        assert said.status == 2
        assert "zz-other.png" in said.err and expected in said.err

    def test_two_folders_of_different_sizes_are_not_compared(self, trained, tmp_path):
        make_synthetic_images(tmp_path / "larger", 8, size=20)
        said = invoke("evaluate", f"images={tmp_path}/larger/bar", f"reference={trained.pictures}/disc",
                      f"paths.runs={tmp_path}", "device=cpu")  # fmt: skip
        assert (said.status, "20 x 20" in said.err and "16 x 16" in said.err) == (2, True)


class TestCompare:
    @pytest.fixture(scope="class")
    def folders(self, small_rows, trained, root):
        """The run and its baseline, with the same noise."""
        options = quick(trained, root, "step_counts=[1,2]", f"output={root}/baseline")
        succeed("evaluate", f"run={trained.baseline}", *options)
        return root / "small", root / "baseline"

    def test_a_verdict_is_given_for_every_setting(self, folders, root):
        both = f"results=[{folders[0]},{folders[1]}]"
        said = succeed("evaluate", "mode=compare", both, f"output={root}/verdict")
        verdicts = rows(root / "verdict")
        assert [row["steps"] for row in verdicts] == [1, 2]
        assert said.out.count("midpoint") == 2
        for row in verdicts:
            low, high = row["interval"]
            expected = "better" if high < 0 else "worse" if low > 0 else "undecided"
            assert row["verdict"] == expected
            assert row["difference"] == pytest.approx(row["mmd_a"] - row["mmd_b"])

    def test_a_run_is_neither_better_nor_worse_than_itself(self, folders, root):
        succeed("evaluate", "mode=compare", f"results=[{folders[0]},{folders[0]}]", f"output={root}/itself")
        assert {(row["verdict"], row["difference"]) for row in rows(root / "itself")} == {("undecided", 0.0)}

    def test_the_seed_is_kept_with_the_influences_so_that_another_one_is_refused(self, folders):
        for folder in folders:
            found = read_influences(influence_file(folder, rows(folder)[0]))
            assert found["mmd"].record["seed"] == 0


class TestGrid:
    @pytest.fixture(scope="class")
    def folder(self, trained, root):
        runs = f"runs={{Learned:[{trained.flow},{trained.sampler}],Gaussian:[{trained.baseline}]}}"
        options = ("grid.solvers=[euler]", "grid.steps=[0,1]", f"output={root}/grid")
        succeed("evaluate", "mode=grid", runs, *quick(trained, root, *options))
        return root / "grid"

    def test_every_run_has_a_row_for_each_of_its_cells(self, folder):
        assert [(row["run"], row["steps"]) for row in rows(folder)] == [
            ("Learned", 0),
            ("Learned", 1),
            ("Gaussian", 1),
        ]

    def test_runs_of_other_weights_have_other_numbers(self, folder):
        _, learned, gaussian = rows(folder)
        assert learned["mmd"] != gaussian["mmd"]
        assert gaussian["cost"]["batch_1"]["latent_sampler"] < gaussian["cost"]["batch_1"]["flow"]

    def test_tables_plots_and_pictures_are_written_with_the_numbers(self, folder):
        table = (folder / "table.md").read_text()
        assert "| Learned |" in table and "| Gaussian |" in table
        pictures = ("pareto.png", "images-Learned.png", "images-Gaussian.png")
        assert all(Image.open(folder / name).width > 300 for name in pictures)
        assert "<svg" in (folder / "pareto.svg").read_text()

    def test_runs_that_held_out_other_images_are_not_compared_on_them(self, trained, root, tmp_path):
        names = []
        for fraction in (0.3, 0.6):
            copy = shutil.copytree(trained.baseline / "export", tmp_path / f"run{fraction}" / "export").parent
            facts = json.loads((copy / "export" / "config.json").read_text())
            facts["data"]["held_out_fraction"] = fraction
            (copy / "export" / "config.json").write_text(json.dumps(facts))
            names.append(f"At{fraction}:[{copy}]".replace("0.", "", 1))
        runs = f"runs={{{','.join(names)}}}"
        options = ("grid.solvers=[euler]", "grid.steps=[1]", "data.split=heldout", f"output={tmp_path}/grid")
        said = invoke("evaluate", "mode=grid", runs, *quick(trained, root, *options))
        assert said.status == 2
        assert "data.split=heldout has other images" in said.err and "(At3 0.3, At6 0.6)" in said.err

    def test_each_run_has_the_shape_of_its_paths(self, folder):
        paths = read_results(folder / "results.json")["results"]["paths"]
        assert set(paths) == {"Learned", "Gaussian"}
        assert all(shape["straightness"] >= 0 and shape["curvature"] >= 0 for shape in paths.values())


class TestPrior:
    def test_numbers_plots_and_maps_are_written(self, trained, root):
        options = quick(trained, root, f"output={root}/prior", "count=2")  # of images that are not made
        said = succeed("evaluate", "mode=prior", f"run={trained.flow}", *options)
        found = read_results(root / "prior" / "results.json")["results"]["prior"]
        assert found["images"] == 48
        assert {"nll_nats", "z_histogram", "ence", "share_at_floor", "psnr", "sigma_mean"} <= found.keys()
        assert "calibration error" in said.out
        assert all((root / "prior" / name).is_file() for name in ("prior.png", "prior.svg", "sigma.png"))

    def test_the_gaussian_baseline_has_no_learned_prior(self, trained, root):
        said = invoke("evaluate", "mode=prior", f"run={trained.baseline}", *quick(trained, root))
        assert (said.status, "has no learned prior" in said.err) == (2, True)


def when_printed(text, act, seconds=60.0):
    """Call `act` once the command in the main thread has printed `text` to stderr, or after so many seconds."""
    deadline = monotonic() + seconds
    while text not in getattr(sys.stderr, "getvalue", str)() and monotonic() < deadline:
        sleep(0.02)
    act()


class TestWatch:
    @pytest.fixture(scope="class")
    def watched(self, trained, root):
        """Watched before the run exists, then again; a copy of the flow's folder, whose training has ended."""
        copy = shutil.ignore_patterns("results", "samples")
        shutil.copytree(trained.flow, root / "to-be-watched", ignore=copy)
        begin = (root / "to-be-watched").rename
        Thread(target=when_printed, args=("waiting until", lambda: begin(root / "watched"))).start()
        command = ("evaluate", "--watch", root / "watched", f"sampler={trained.sampler}", "watch_seconds=0.1",
                   *quick(trained, root, "step_counts=[1]"))  # fmt: skip
        return [succeed(*command) for _ in range(2)]

    def test_a_run_that_has_not_begun_is_waited_for_and_named(self, watched, root):
        assert f"there is no run in {root}/watched yet; waiting until" in watched[0].err
        assert watched[0].err.count("waiting") == 1

    def test_every_checkpoint_becomes_an_event_of_the_run(self, watched, root):
        checkpoints = [
            int(path.name) for path in (root / "watched" / "checkpoints").iterdir() if path.name.isdigit()
        ]
        found = [
            event
            for event in read_events(root / "watched" / "events.jsonl")
            if event["event"] == "evaluation"
        ]
        assert [event["images_seen"] for event in found] == sorted(checkpoints)
        assert all(event["midpoint_1"]["mmd"] > 0 for event in found)
        assert unknown_names(found, logged_values()) == []

    @pytest.mark.parametrize(
        ("name", "partner", "key"),
        [("sampler", "flow", "midpoint_1"), ("auxiliary", None, "prior")],
    )
    def test_the_other_stages_are_evaluated_by_their_own_metrics(self, trained, root, name, partner, key):
        folder = root / f"watched-{name}"
        shutil.copytree(trained.root / name, folder)
        flow = [f"run={trained.root}/{partner}"] if partner else []
        succeed("evaluate", "--watch", folder, *flow, *quick(trained, root, "step_counts=[1]"))
        found = [event for event in read_events(folder / "events.jsonl") if event["event"] == "evaluation"]
        assert found and all(event[key] for event in found)
        assert unknown_names(found, logged_values()) == []

    def test_a_latent_sampler_needs_the_flow_that_it_makes_latents_for(self, trained, root):
        shutil.copytree(trained.sampler, root / "alone")
        said = invoke("evaluate", "--watch", root / "alone", *quick(trained, root))
        assert (said.status, "run=FLOW_RUN" in said.err) == (2, True)

    def test_evaluated_checkpoints_are_not_evaluated_again(self, watched):
        first, second = watched
        assert "checkpoint at" in first.out
        assert "checkpoint at" not in second.out
        assert "no more checkpoints to come" in second.out

    def test_other_options_would_mix_in_one_log_and_are_refused(self, watched, trained, root):
        command = ("evaluate", "--watch", root / "watched", f"sampler={trained.sampler}")
        before = (root / "watched" / "events.jsonl").read_bytes()
        for option, said in (
            ("step_counts=[2]", "step_counts: [1] then, [2] now"),
            ("seed=5", "seed: 0 then, 5 now"),
        ):
            found = invoke(*command, *quick(trained, root, "step_counts=[1]", option))
            assert found.status == 2 and said in found.err and "use the former options" in found.err
        assert (root / "watched" / "events.jsonl").read_bytes() == before

    def test_a_folder_that_cannot_become_a_run_is_refused(self, trained, root):
        said = invoke("evaluate", "--watch", root / "no" / "where", *quick(trained, root))
        assert (said.status, "there is no folder" in said.err) == (2, True)

    def test_a_folder_of_other_files_is_refused_by_what_it_holds(self, trained, root):
        said = invoke("evaluate", "--watch", trained.pictures, *quick(trained, root))
        assert said.status == 2
        assert f"watch={trained.pictures} is not a run (found bar, " in said.err
        assert "give the run folder of lediflow.train" in said.err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("mode=best",), "metrics, grid, prior, stages, compare"),
        (("mode=compare", "results=[one]"), "takes two folders"),
        (("images=there",), "reference=DIR"),
        (("run=there",), r"data.path=SHARDS"),
        (("run=there", "data.path=x", "features.name=resnet"), "efficientnet-lite0"),
        (("run=there", "data.path=x", "features.name=clip-vit-l14-336"), "features.path=FILE"),
        (("run=there", "data.path=x", "metrics.estimator=fast"), "exact, streaming"),
    ],
)  # fmt: skip
def test_an_impossible_request_is_refused_with_a_possible_one(options, expected):
    said = invoke("evaluate", *options)
    assert (said.status, expected in said.err) == (2, True), said.err
