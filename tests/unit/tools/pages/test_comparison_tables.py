"""The comparison's tables, goals and figures, from results written for the test."""

import json

import pytest
from PIL import Image

from lediflow.errors import UserError
from pages.comparison import decoded, factors, figures, goals, maps, repeats, starts, tables
from pages.comparison import unseen as unseen_quality
from pages.comparison.reading import compared_sets
from pages.comparison.samples import samples_grid
from pages.comparison.times import BENCHES, Times
from pages.experiments.comparison import stage_lines


def row(solver, nfe, mmd, half=0.01):
    return {"solver": solver, "nfe": nfe, "mmd_unbiased": mmd, "mmd_interval": [mmd - half, mmd + half]}


def unseen(solver, nfe, mmd, held_out, copied):
    return row(solver, nfe, mmd) | {
        "held_out": held_out,
        "held_out_interval": [held_out - 0.1, held_out + 0.1],
        "share_memorised": copied,
        "share_closer": 0.5,
    }


def seed(**methods):
    facts = {"images": 4096, "reference_images": 10_890, "held_out_images": 545, "mmd_name": "MMD (x)"}
    return facts | {
        "methods": {name: {"k": 3.0, "s": 0.5, "rows": rows} for name, rows in methods.items()},
        "losses": {},
    }


def write(root, name, results, command="python x.py"):
    path = root / "results" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"certificate": {"command": command}, "results": results}))


REPEATED = {
    "set": "anime64",
    "model": "fm",
    "images_seen": 608_000,
    "training": [0.1, 0.1],
    "held_out": [0.2, 0.3],
}


@pytest.fixture
def root(tmp_path):
    """One set of the new campaign, with a second seed of flow matching, and one of the two earlier campaigns."""
    fm = [
        unseen("midpoint", 8, 1.0, 1.25, 0.001),
        unseen("midpoint", 16, 0.80, 1.1, 0.002),
        unseen("euler", 8, 0.1, 0.1, 0.0),
    ]
    first = seed(fm=fm, auto=[unseen("midpoint", 2, 0.9, 1.0, 0.0), unseen("midpoint", 4, 0.799, 1.0, 0.0)],
                 wide_map=[unseen("jump", 1, 1.01, 1.2, 0.0)])  # fmt: skip
    write(tmp_path, "campaign/comparison_scenes64", {"seeds": {"0": first}})
    again = seed(fm=[unseen("midpoint", 16, 0.82, 1.2, 0.0)])
    write(tmp_path, "campaign/comparison_scenes64_seed1", {"seeds": {"1": again}})
    words = "--widths wide=stage.prior_scale=3,stage.prior_widening=0.6"
    maps = {"fm_euler": [row("euler", 1, 5.0), row("euler", 2, 0.1)], "fm_midpoint": [row("midpoint", 8, 2.0)],
            "flow_wide": [row("jump", 1, 3.0)]}  # fmt: skip
    facts = {"images": 3072, "reference_images": 12_000, "mmd_name": "MMD (x)", "rows": maps}
    write(tmp_path, "campaign/flow_maps_pets64", facts, words)
    rows = [{"solver": "midpoint", "nfe": 16, "z": z, "mmd": value, "low": value, "high": value + 0.1}
            for z, value in (("gaussian", 1.5), ("sampler", 1.9), ("training", 1.0))]  # fmt: skip
    write(tmp_path, "campaign/widths_pets64", {"flows": {"s0": {"rows": rows}}})
    write(tmp_path, "campaign/repeated_trainings", {"runs": [REPEATED]})
    return tmp_path


def test_sets_of_both_kinds_of_campaigns(root):
    pets, scenes = compared_sets(root)
    assert {nfe: cell.value for nfe, cell in pets.cells["fm"].items()} == {1: 5.0, 8: 2.0, 16: 1.5}
    assert pets.cells["paper"][16].value == 1.9 and pets.starts["wide_map"] == (3.0, 0.6)
    assert scenes.cells["fm"][16][:5] == (
        pytest.approx(0.81),
        pytest.approx(0.01),
        pytest.approx(1.15),
        pytest.approx(0.1),
        2,
    )
    assert 8 in scenes.cells["fm"] and scenes.cells["fm"][8].value == 1.0  # Euler steps have no column at 8
    lines = tables.quality_lines(scenes)
    assert lines[3].startswith("| LeDiFlow, default start (3 sigma, s = 0.5) |  | **0.900** |")
    assert lines[0] == "| method | 1 | 2 | 4 | 8 | 16 |"
    assert lines[2] == "| FM |  |  |  | **1.00** | **0.810** |"
    assert "Means over 2 trainings of FM, one of each other method" in "\n".join(tables.set_lines(scenes))


def test_methods_that_were_trained_later_and_again(root):
    """The numbers of several trainings are means in the tables, and each is listed."""
    later = seed(fm=[unseen("midpoint", 8, 1.2, 1.3, 0.0)], both_maps=[unseen("jump", 1, 0.7, 0.8, 0.0)])
    write(root, "campaign/comparison_scenes64_maps", {"seeds": {"0": later}})
    straight = [unseen("euler", 2, 2.0, 2.1, 0.0), unseen("midpoint", 2, 9.0, 9.0, 0.0)]
    write(root, "campaign/comparison_scenes64_maps_later", {"seeds": {"0": seed(fm_reflow=straight)}})
    scenes = compared_sets(root)[1]
    assert scenes.cells["fm"][8].value == pytest.approx(1.1) and scenes.cells["both_maps"][1].seeds == 1
    assert scenes.starts["both_maps"] == (3.0, 0.5)
    assert scenes.cells["fm_reflow"][2].value == 2.0  # its Euler steps are measured, not midpoint's
    text = repeats.block(root)
    assert "| Landscapes and streets | FM |  |  |  |  | 1.00 / 1.20 |  | 0.800 / 0.820 |" in text
    assert "differ by 10.3 % of their mean (median), at most by 18.2 %" in text


def test_held_out_photographs_and_the_highest_share_of_copies(root):
    text = unseen_quality.block(root)
    assert "### Landscapes and streets, 545 held-out photographs" in text and "Cats" not in text
    assert "| FM |  |  |  | **1.25** | **1.15** | 0.2 % | 50.0 % |" in text


def test_goals_are_decided_by_the_intervals(root):
    lines = goals.block(root).splitlines()
    two, four, one = lines[2:5]
    assert (
        "| not measured | yes: 0.900 / 1.00 | **open**: on 1 of 1 measured sets; the goal is 4 of 6 |" in two
    )
    assert "no: 0.799 / 0.810" in four  # lower, but not by more than the intervals
    assert "no: 3.00 / 2.00 | yes: 1.01 / 1.00" in one  # higher, but not by more than the intervals


def test_sets_of_latents_are_compared_with_the_reconstructions_too(root):
    assert decoded.block(root) == "Not measured yet."
    distance = {"decoded": 0.5, "decoded_interval": [0.49, 0.51]}
    fm = [row("midpoint", 8, 1.4) | distance, row("midpoint", 16, 1.3) | distance | {"decoded": 0.3}]
    wide = [row("jump", 1, 1.5) | distance | {"decoded": 0.505}]
    write(
        root,
        "campaign/comparison_faces256c",
        {"seeds": {"0": seed(fm=fm, wide_map=wide) | {"codec_floor": 0.9}}},
    )
    text = decoded.block(root)
    assert "| FM |  | **0.500** | **0.300** |" in text and "the codec's floor, is 0.900." in text
    assert "one call of a flow map as good as FM at 8: yes: 0.505 / 0.500" in text
    assert "no: 1.50 / 1.40" in goals.block(root), "the goals are decided by the photographs"
    assert "Not measured: Faces; " in goals.block(root)


def test_what_a_map_keeps_of_its_teacher(root):
    calls = [row("jump", 1, 1.0), row("jump", 2, 0.9), row("jump", 4, 1.1)]
    one = seed(wide=[unseen("midpoint", 2, 1.005, 1.0, 0.0)],
               wide_map=[each | {"held_out": 1.0, "held_out_interval": [0.9, 1.1]} for each in calls])  # fmt: skip
    one["losses"] = {"wide": {"held_out": 9.0, "velocity_mse": 0.1}, "wide_map": {"velocity_mse": 0.103}}
    write(root, "campaign/comparison_anime64", {"seeds": {"0": one}})
    text = maps.block(root)
    line = "| Drawn faces | flow map of LeDiFlow, wide start | 1.00 | 1.00 | 0.900 | 1.10 | yes | no |"
    assert f"{line} 0.1000 -> 0.1030 (+3.0 %) |" in text
    assert "| Cats and dogs | flow map of LeDiFlow, wide start |  | 3.00 |  |  |  |  |  |" in text


def test_the_wide_start_against_the_default_one(root):
    both = seed(auto=[unseen("midpoint", 2, 1.0, 1.0, 0.0), unseen("midpoint", 8, 1.0, 1.0, 0.0)],
                wide=[unseen("midpoint", 2, 1.01, 1.0, 0.0), unseen("midpoint", 8, 0.9, 1.0, 0.0)])  # fmt: skip
    write(root, "campaign/comparison_anime64", {"seeds": {"0": both}})
    lines = starts.block(root).splitlines()
    assert lines[0] == "| set, s of both starts | 2 | 8 |"
    assert lines[2] == "| Drawn faces, 0.5 / 0.5 | +1 % | **-10 %** |"


def test_losses_of_the_same_seed_on_another_machine(root):
    write(root, "campaign/repeated_trainings", {"runs": [REPEATED, REPEATED | {"model": "wide"}]})
    assert repeats.block(root).endswith(
        "| Drawn faces | wide | 608,000 | 0.10000 / 0.10000 | 0.20000 / 0.30000 |"
    )


def test_sources_of_z_and_the_stage_that_limits():
    rows = [{"z": "training", "nfe": 0, "mmd": 9.0}, {"z": "training", "nfe": 2, "mmd": 1.0},
            {"z": "gaussian", "nfe": 2, "mmd": 3.0}]  # fmt: skip
    lines = stage_lines({"rows": rows, "images": 1024, "verdict": {"text": "The flow."}})
    assert lines[3:] == [
        "| z of | prior alone | 2 |", "| --- | ---: | ---: |", "| training images | 9.00 | 1.00 |",
        "| no z: FM |  | 3.00 |", "", "> The flow.",
    ]  # fmt: skip
    assert stage_lines(None) == []


def test_milliseconds_at_equal_quality(root):
    bench = [("FM", "chain", "midpoint", 16, 16.0), ("FM", "chain", "midpoint", 8, 8.0),
             ("LeDiFlow", "flow", "jump", 1, 1.0), ("LeDiFlow", "flow", "midpoint", 2, 1.5),
             ("LeDiFlow", "flow", "midpoint", 4, 3.5),
             ("LeDiFlow", "call", "midpoint", 4, 5.0),
             ("FM", "call", "midpoint", 16, 17.0),
             ("LeDiFlow", "sampler", "midpoint", 8, 0.4), ("LeDiFlow", "decoder", None, None, 0.1)]  # fmt: skip
    rows = [
        {"model": "x", "precision": "float32", "method": method, "part": part, "batch": 1, "ms/img": spent}
        | ({"solver": solver, "NFE": nfe} if solver else {})
        for method, part, solver, nfe, spent in bench
    ]
    for name, measured in zip(BENCHES[0], (rows, [], [], []), strict=True):
        write(root, name, {"rows": measured})
    text = factors.block(root)
    map_call = "1.5 (flow map of LeDiFlow, wide start, 1)"
    assert f"| Landscapes and streets | 1.00 (FM at 8) | 1 | 8 (FM, 8) | {map_call} | 5.3 |" in text
    four = "4 (LeDiFlow, default start, 4)"
    assert f"| Landscapes and streets | 0.810 (FM at 16) | 1 | 16 (FM, 16) | {four} | 4 |" in text
    assert "| Cats and dogs | 2.00 (FM at 8) | 1 | 8 (FM, 8) | quality not reached |  |" in text
    assert "batch 1 | no: quality not reached | open, FM at 12 was not measured: 4 |" in goals.block(root)
    longer = "by the wall clock a call takes longer: 1.0 to 1.0 ms at batch 1."
    assert longer in text and "Maps are omitted" not in text


def test_evaluations_that_were_not_timed_take_as_long_as_those_that_were():
    rows = {("flow", "FM", 64, "midpoint", 16): 16.0, ("flow", "LeDiFlow", 64, "midpoint", 4): 4.4,
            ("sampler", "LeDiFlow", 64, "midpoint", 8): 0.5, ("decoder", "LeDiFlow", 64, "", 0): 0.1}  # fmt: skip
    times = Times(rows, {})
    assert times.chain("fm", 12, 64) == pytest.approx(12.0)
    assert times.chain("wide", 6, 64) == pytest.approx(7.2) and times.chain("paper", 4, 64) == pytest.approx(
        5.0
    )
    assert times.chain("wide_map", 1, 64) is None and times.chain("fm", 16, 1) is None


def test_measured_chains_of_maps_have_a_map_of_the_sampler():
    rows = {("chain", "LeDiFlow", 1, "jump", 1): 1.2, ("chain", "LeDiFlow", 1, "midpoint", 4): 4.0,
            ("chain", "FM", 1, "jump", 1): 0.9, ("flow", "LeDiFlow", 1, "jump", 1): 0.9,
            ("sampler", "LeDiFlow", 1, "midpoint", 8): 2.0, ("decoder", "LeDiFlow", 1, "", 0): 0.1}  # fmt: skip
    times = Times(rows, {})
    assert times.chain("both_maps", 1, 1) == 1.2 and times.chain("fm_map", 1, 1) == 0.9
    assert times.chain("auto_map", 1, 1) == times.chain("wide_map", 1, 1) == pytest.approx(3.0)
    assert times.chain("wide", 4, 1) == 4.0


def test_figures_are_drawn_again_only_for_other_numbers(root):
    (root / figures.FOLDER).mkdir(parents=True)
    assert figures.outdated(root) == [figures.FOLDER / "comparison.png"]
    figures.draw_outdated(root)
    drawn = (root / figures.FOLDER / "comparison.png").read_bytes()
    assert figures.outdated(root) == []
    write(
        root,
        "campaign/comparison_scenes64_seed1",
        {"seeds": {"1": seed(fm=[unseen("midpoint", 16, 0.9, 1.2, 0.0)])}},
    )
    assert figures.outdated(root) == [figures.FOLDER / "comparison.png"]
    figures.draw_outdated(root)
    assert (root / figures.FOLDER / "comparison.png").read_bytes() != drawn


def test_a_row_of_samples_for_each_setting(tmp_path, monkeypatch):
    for (method, solver, steps), side in {("fm", "midpoint", 4): 8, ("wide_map", "jump", 1): 136}.items():
        strip = Image.new("RGB", (16 * side, side), "red")
        path = tmp_path / f"quality_{method}/pictures/{solver}-{steps}.png"
        path.parent.mkdir(parents=True)
        strip.save(path)
    grid = samples_grid(tmp_path, [("fm", "midpoint", 4), ("wide_map", "jump", 1)])
    assert grid.height < 2 * 136  # larger images are reduced
    assert grid.getpixel((grid.width - 60, 40)) == grid.getpixel((grid.width - 60, 140)) == (255, 0, 0)
    with pytest.raises(UserError, match=r"no pictures .*euler-1\.png: --samples is the --folder"):
        samples_grid(tmp_path, [("fm", "euler", 1)])
