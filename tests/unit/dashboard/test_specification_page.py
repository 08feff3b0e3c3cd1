"""The page of a specification: with a run's numbers and pictures, and without a run."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from lediflow.dashboard import main
from lediflow.dashboard.page import build_page, draw_curves, read_numbers, thin
from lediflow.dashboard.panels import Panel, dashboard_of
from lediflow.tracking.event_log import JsonlTracker


@pytest.fixture
def run(tmp_path):
    """A run folder with a name that is markup, whose loss was once NaN, with a picture."""
    folder = tmp_path / "<script>alert(1)<"
    (folder / "pictures").mkdir(parents=True)
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(folder / "pictures" / "a.png")
    log = JsonlTracker(folder / "events.jsonl")
    for place in range(1, 6):
        log.record(
            "train", 8 * place, loss=float("nan") if place == 3 else 1 / place, loss_by_time=[1.0] * 10
        )
    log.record(
        "pictures", 40, pictures={"samples": {"file": "pictures/a.png"}, "heldout": {"file": "../a.png"}}
    )
    log.record("resume", 24, ranks=1)
    log.record("train", 32, loss=7.0)
    log.record(
        "pictures", 32, pictures={"samples": {"file": "pictures/a.png"}, "heldout": {"file": "../x.png"}}
    )
    log.close()
    (folder / "config.yaml").write_text("stage: {name: flow}\n")
    return folder


def test_a_run_is_drawn_from_its_standing_events(run):
    found = read_numbers(run)
    np.testing.assert_array_equal(found.numbers["train/loss"], [[8, 1.0], [16, 0.5], [24, np.nan], [32, 7.0]])
    assert list(found.pictures) == ["pictures/samples"]  # a file outside the run is not shown


def test_the_page_shows_the_runs_stage_marks_nan_and_escapes_names(run, tmp_path, monkeypatch, capsys):
    output = tmp_path / "page.html"
    arguments = ["create", "--project", "p<", "--dry_run", "--output", str(output), "--run", str(run)]
    monkeypatch.setattr("sys.argv", ["dashboard", *arguments])
    main()
    page = output.read_text()
    assert "LeDiFlow: flow" in page and "LeDiFlow: auxiliary" not in page
    assert "1 values are not finite" in page and "and 4 more" in page
    assert "<script" not in page and "p&lt;" in page
    assert page.count("data:image/png") == 1 and "http" not in page
    assert list(json.loads(output.with_suffix(".json").read_text())) == ["flow"]


def test_without_a_run_panels_show_the_names_of_their_numbers():
    page = build_page([dashboard_of("auxiliary")], "p")
    assert "train/loss, validation/loss" in page and "over images seen" in page
    assert re.search(r"KL of the latents.*nats per image", page)


def test_a_folder_without_events_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "config.yaml").write_text("stage: {name: flow}\n")
    arguments = ["create", "--project", "p", "--dry-run", "--output", f"{tmp_path}/a", "--run", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["dashboard", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert "has no events; give the run folder of lediflow.train" in capsys.readouterr().err


def test_a_spike_of_one_step_among_a_million_is_kept():
    points = np.stack([np.arange(1e6), np.ones(10**6)], axis=1)
    points[123_456, 1] = 50.0
    kept = thin(points)
    assert len(kept) < 1000 and kept[:, 1].max() == 50.0


def test_one_point_is_drawn_and_zero_is_left_out_of_a_logarithmic_plot():
    drawn = draw_curves(Panel("", ("a",), is_log=True), {"a": np.array([[8.0, 0.0], [16.0, 2.0]])})
    assert drawn.paths["a"].count("L") == 1 and drawn.left_out == 1
    assert drawn.axes.end == "16"
