"""A report shows what the run folders contain."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lediflow.errors import UserError
from lediflow.evaluation.results import birth_certificate, write_results
from lediflow.report.collect import report_data
from lediflow.report.content import methods
from lediflow.report.page import METHOD_COLOURS, panel_chart
from lediflow.report.quality import measurement_table, quality_lines
from lediflow.report.runs import facts_of, read_run
from lediflow.report.training import in_order
from lediflow.run_folder import RunFolder
from lediflow.tracking.event_log import JsonlTracker
from lediflow.training.prior_width import describe_width

STEPS = [1, 4]


def facts(prior: str, held_out: float = 0.1) -> dict:
    return {"stage": "flow", "prior": prior, "data": {"held_out_fraction": held_out}}


def flow_run(root, prior: str, mmd: float):
    """A finished flow run with results, written as the commands write it."""
    (root / "export").mkdir(parents=True)
    (root / "export" / "config.json").write_text(json.dumps(facts(prior)))
    log = JsonlTracker(root / "events.jsonl")
    for images_seen in (100, 200):
        log.record("train", images_seen, velocity_mse=mmd / images_seen)
    log.close()
    rows = [
        {
            "solver": "euler",
            "steps": steps,
            "nfe": steps,
            "ms_per_image": 2.0 * steps,
            "mmd": mmd,
            "mmd_unbiased": mmd / steps,
            "frechet": 1.0,
            "mmd_name": "MMD (EfficientNet-Lite0)",
            "frechet_name": "Fréchet distance (EfficientNet-Lite0)",
            "sample_images": 64,
        }
        for steps in STEPS
    ]
    pictures = {f"steps_{steps}": torch.zeros(2, 1, 8, 8) for steps in STEPS} | {
        "reals": torch.ones(3, 1, 8, 8)
    }
    if prior == "learned":
        pictures |= {
            name: torch.zeros(2, 1, 8, 8)
            for name in ("photographs", "prior_mean", "prior_draw", "prior_result")
        }
        pictures["prior_sigma"] = torch.arange(2.0).reshape(2, 1, 1, 1).expand(2, 1, 8, 8).contiguous()
        (root / "samples").mkdir()
        Image.new("L", (8, 8)).save(root / "samples" / "000000.png")
    write_results(
        root / "results" / "results.json", {"rows": rows, "real_mmd": 0.1}, birth_certificate(seed=5)
    )
    save_file(pictures, root / "results" / "pictures.safetensors")
    return read_run(root)


@pytest.fixture
def data(tmp_path):
    runs = [flow_run(tmp_path / "fm", "gaussian", 8.0), flow_run(tmp_path / "lediflow", "learned", 4.0)]
    return report_data(runs, title="Faces", lead="", commands=[])


def test_every_row_of_every_run_is_in_the_table_ours_first(data):
    table = [(row.method, row.evaluations, row.ms_per_image, row.mmd) for row in data.measurements]
    assert table == [
        ("LeDiFlow", 1, 2.0, 4.0),
        ("LeDiFlow", 4, 8.0, 1.0),
        ("Flow matching", 1, 2.0, 8.0),
        ("Flow matching", 4, 8.0, 2.0),
    ]


def test_the_metric_keeps_the_name_it_was_measured_under(data):
    assert data.mmd_name == "MMD (EfficientNet-Lite0)"
    assert (data.real_mmd, data.images_measured, data.environment["Seed"]) == (0.1, 64, "5")


def change_results(root, **changes):
    """Change what every row of a run's results says."""
    path = root / "results" / "results.json"
    found = json.loads(path.read_text())
    found["results"]["rows"] = [row | changes for row in found["results"]["rows"]]
    path.write_text(json.dumps(found))
    return read_run(root)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"mmd_name": "CMMD"}, "MMD: CMMD, here MMD (EfficientNet-Lite0)"),
        ({"sample_images": 2}, "generated images: 2, here 64"),
        ({"reference_images": 9}, "real images: 9, here None"),
    ],
)
def test_a_run_that_was_measured_otherwise_is_named_and_not_in_the_table(tmp_path, other, said):
    ours, theirs = tmp_path / "lediflow", tmp_path / "fm"
    flow_run(theirs, "gaussian", 8.0)
    runs = [change_results(theirs, **other), flow_run(ours, "learned", 4.0)]
    data = report_data(runs, title="Faces", lead="", commands=[])
    assert {row.method for row in data.measurements} == {"LeDiFlow"}
    assert len(data.facts) == 1
    assert data.left_out == [f"Flow matching was measured otherwise ({said})"]
    assert data.left_out[0] in measurement_table(data).caption


def test_the_temperature_of_a_row_is_named_unless_it_is_one(tmp_path):
    flow_run(tmp_path / "lediflow", "learned", 4.0)
    runs = [
        change_results(tmp_path / "lediflow", temperature=0.8),
        flow_run(tmp_path / "fm", "gaussian", 8.0),
    ]
    data = report_data(runs, title="Faces", lead="", commands=[])
    labels = {group.method: group.rows[0].label for group in measurement_table(data).groups}
    assert labels == {"LeDiFlow": "1 step, temperature 0.8", "Flow matching": "1 step"}
    assert data.facts[0].label == "MMD of LeDiFlow with 1 evaluation, temperature 0.8 (lower is better)"
    lines = quality_lines(data.measurements, "evaluations")
    assert [*lines] == ["LeDiFlow, temperature 0.8", "Flow matching"]


def test_pictures_are_shown_with_their_steps_and_photographs(data):
    assert data.step_comparison.steps == STEPS
    assert set(data.step_comparison.pictures) == {"LeDiFlow", "Flow matching"}
    assert len(data.samples) == 1
    assert [picture.shape for picture in data.photographs] == [(8, 8)] * 3
    assert [example.sigma.mean() for example in data.priors] == [0.0, 1.0]


def test_the_headline_has_each_method_at_its_fewest_evaluations_in_its_colour(data):
    assert [(fact.value, fact.series) for fact in data.facts] == [("4.00", 1), ("8.00", 2)]
    assert [fact.label for fact in data.facts] == [
        "MMD of LeDiFlow with 1 evaluation (lower is better)",
        "MMD of Flow matching with 1 evaluation (lower is better)",
    ]


def test_methods_have_a_fixed_order_for_any_order_of_runs(data):
    (panel,) = data.panels  # the fixture names the baseline first
    assert list(panel.curves) == list(data.step_comparison.pictures) == ["LeDiFlow", "Flow matching"]
    assert panel.compares_methods


def test_both_flows_are_drawn_in_one_plot_by_the_same_error(data):
    (panel,) = data.panels
    assert panel.curves["LeDiFlow"].images_seen.tolist() == [100, 200]
    assert panel.curves["Flow matching"].values.tolist() == pytest.approx([0.08, 0.04])


def logged_run(root, stage, prior, events):
    """A finished run with an export and a log only."""
    (root / "export").mkdir(parents=True)
    (root / "export" / "config.json").write_text(json.dumps(facts(prior) | {"stage": stage}))
    log = JsonlTracker(root / "events.jsonl")
    for event, images_seen, values in events:
        log.record(event, images_seen, **values)
    log.close()
    return read_run(root)


def curves_of(data):
    return {
        panel.title: {name: curve.values.tolist() for name, curve in panel.curves.items()}
        for panel in data.panels
    }


def test_held_out_losses_are_drawn_where_a_run_has_them(tmp_path):
    runs = [
        logged_run(
            tmp_path / "a",
            "auxiliary",
            "learned",
            [("train", 1, {"loss": 3.0}), ("validation", 1, {"loss": 4.0})],
        ),
        logged_run(
            tmp_path / "f",
            "flow",
            "learned",
            [("train", 1, {"velocity_mse": 5.0}), ("validation", 1, {"velocity_mse": 6.0})],
        ),
        logged_run(tmp_path / "b", "flow", "gaussian", [("train", 1, {"velocity_mse": 7.0})]),
        logged_run(tmp_path / "s", "latent_sampler", "learned", [("train", 1, {"loss": 8.0})]),
    ]
    assert curves_of(report_data(runs, title="", lead="", commands=[])) == {
        "Auxiliary model": {"training": [3.0], "held out": [4.0]},
        "Flow": {"LeDiFlow": [5.0], "Flow matching": [7.0]},
        "Flow, held-out samples": {"LeDiFlow": [6.0]},
        "Latent sampler": {"training": [8.0]},
    }


def test_both_flows_are_compared_by_time_through_the_error_that_is_not_weighted(tmp_path):
    tenths, empty = [float(place) for place in range(10)], [None] * 10
    learned = {"velocity_mse_by_time": tenths, "loss_by_time": [99.0] * 10, "loss_by_sigma": tenths}
    runs = [
        logged_run(tmp_path / "f", "flow", "learned", [("train", 1, learned)]),
        logged_run(tmp_path / "b", "flow", "gaussian", [("train", 1, {"loss_by_time": [2.0, *empty[1:]]})]),
    ]
    by_time, by_sigma = report_data(runs, title="", lead="", commands=[]).bin_panels
    np.testing.assert_array_equal(by_time.means["LeDiFlow"], tenths)
    np.testing.assert_array_equal(by_time.means["Flow matching"], [2.0, *[np.nan] * 9])
    assert set(by_sigma.means) == {"LeDiFlow"}
    assert len(by_sigma.edges) == 11 and len(by_time.edges) == 11


def test_bins_are_means_of_the_last_quarter_of_the_training_without_empty_ones(tmp_path):
    rows = [[9.0] * 10] * 6 + [[1.0, None, *[3.0] * 8], [2.0, 4.0, *[3.0] * 8]]
    events = [("train", place, {"loss_by_time": row}) for place, row in enumerate(rows)]
    run = logged_run(tmp_path / "b", "flow", "gaussian", events)
    (panel,) = report_data([run], title="", lead="", commands=[]).bin_panels
    assert panel.means["Flow matching"].tolist() == [1.5, 4.0, *[3.0] * 8]


def test_a_run_without_results_leaves_their_sections_out(tmp_path):
    root = tmp_path / "fm"
    (root / "export").mkdir(parents=True)
    (root / "export" / "config.json").write_text(json.dumps(facts("gaussian")))
    data = report_data([read_run(root)], title="", lead="", commands=[])
    assert (data.measurements, data.samples, data.photographs, data.priors) == ([], [], [], [])
    assert data.step_comparison is None


def test_no_runs_and_unfinished_runs_are_refused(tmp_path):
    with pytest.raises(UserError, match="at least one run"):
        report_data([], title="", lead="", commands=[])
    with pytest.raises(UserError, match="there is no run there"):
        read_run(tmp_path / "nowhere")


@pytest.mark.parametrize(("held_out", "caption"), [(0.0, "of the training set"), (0.2, "never saw")])
def test_photographs_are_called_unseen_only_if_training_held_them_out(tmp_path, held_out, caption):
    run = flow_run(tmp_path, "learned", 4.0)
    (tmp_path / "export" / "config.json").write_text(json.dumps(facts("learned", held_out)))
    page = report_data([read_run(run.folder.root)], title="", lead="", commands=[])
    assert caption in page.photographs_caption


def test_a_method_has_one_colour_whatever_the_other_runs_lack(tmp_path):
    """A run without results stands first, and another one has no held-out losses."""
    events = [("train", 100, {"velocity_mse": 1.0}), ("validation", 100, {"velocity_mse": 1.0})]
    runs = [
        logged_run(tmp_path / "new", "flow", "learned", events[:1]),
        flow_run(tmp_path / "ours", "learned", 4.0),
        flow_run(tmp_path / "fm", "gaussian", 8.0),
    ]
    made = report_data(runs, title="", lead="", commands=[])
    order = [*methods(made.measurements), "new"]
    assert order == ["ours", "Flow matching", "new"]
    (panel,) = (panel for panel in made.panels if panel.title == "Flow")
    colours = {line.name: line.colour for line in panel_chart(panel).lines}
    assert colours == {name: METHOD_COLOURS[order.index(name)] for name in panel.curves}
    assert all(
        {line.name: line.colour for line in chart.lines if not line.is_dashed}.items() <= colours.items()
        for group in made.chart_groups
        for chart in group.charts
    )
    assert in_order(["new", "ours"], panel.methods, ["red", "blue", "green"]) == ["green", "red"]


@pytest.mark.parametrize(
    ("other", "caption"),
    [
        (0.0, "Photographs that the training of ours never saw."),
        (0.1, "Photographs that training never saw."),
    ],
)
def test_photographs_that_another_run_was_trained_on_are_not_called_unseen(other, caption, tmp_path):
    runs = [flow_run(tmp_path / "ours", "learned", 4.0), flow_run(tmp_path / "theirs", "learned", 5.0)]
    (tmp_path / "theirs" / "export" / "config.json").write_text(json.dumps(facts("learned", other)))
    runs[1] = read_run(tmp_path / "theirs")
    assert report_data(runs, title="", lead="", commands=[]).photographs_caption == caption


def test_the_lowest_held_out_loss_of_the_averaged_weights_is_marked(tmp_path):
    events = [("train", seen, {"loss": 1.0, "velocity_mse": 1.0}) for seen in (100, 200, 300)]
    losses = {100: (0.5, 0.6), 200: (0.7, 0.4), 300: (0.3, 0.45)}
    events += [
        ("validation", seen, {"loss": last, "velocity_mse": last, "averaged_loss": averaged})
        for seen, (last, averaged) in losses.items()
    ]
    runs = [logged_run(tmp_path / stage, stage, "learned", events) for stage in ("auxiliary", "flow")]
    panels = {panel.title: panel for panel in report_data(runs, title="", lead="", commands=[]).panels}
    assert panels["Auxiliary model"].curves["held out"].values.tolist() == [0.6, 0.4, 0.45]
    assert panels["Auxiliary model"].lowest == {"held out": 200}
    assert panels["Flow, held-out samples"].lowest == {"LeDiFlow": 200}
    assert panels["Flow"].lowest == {}


MEASURED = {
    "rule": "auto", "prior_widening": 0.47, "prior_scale": 3.0, "factor": 1.5, "sigma": 0.31, "residual": 0.29,
    "images": 133, "split": "heldout",
}  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "measured", "shown"),
    [
        ("auto", None, None),
        ("auto", MEASURED, r"0\.47, sigma times 3 \(auto: 1.5 x the larger of .*sigma 0.31 "),
        (0.3, None, r"0\.3 \(given\)$"),
    ],
)
def test_the_width_of_a_run_that_trains_is_the_measured_or_the_given_one(asked, measured, shown, tmp_path):
    """Without an export it was reported as 0 and given, whatever it was."""
    (tmp_path / "events.jsonl").touch()
    stage = {"name": "flow", "prior_widening": asked, "prior_scale": "auto"}
    options = {"stage": stage, "prior": "learned", "data": {"held_out_fraction": 0.1}}
    (tmp_path / "config.yaml").write_text(json.dumps(options))
    if measured:
        (tmp_path / "prior_width.json").write_text(json.dumps(measured))
    width = describe_width(facts_of(RunFolder(tmp_path)))
    assert width is None if shown is None else re.match(shown, width or "")
