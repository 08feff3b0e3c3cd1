"""`python -m lediflow.edit` on exported tiny models: what is written, and what is refused."""

import json
import re
from unittest.mock import ANY

import numpy as np
import pytest
from harness.commands import compose, invoke, succeed
from harness.edited import SIZE, drawn, save_random_taesd, save_tiny_runs, specs, strip_pictures
from harness.picture_files import gif_durations
from PIL import Image

from lediflow.errors import UserError
from lediflow.models import MappingSpec, VelocitySpec, save_model

RECTANGLE = "rectangle=[4,5,11,12]"
OUTSIDE = np.ones((SIZE, SIZE), dtype=bool)
OUTSIDE[5:12, 4:11] = False


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Ten bright and ten dark pictures, and a file that is none."""
    root, generator = tmp_path_factory.mktemp("sets"), np.random.default_rng(1)
    for name, level in (("bright", 190), ("dark", 60)):
        (root / name).mkdir()
        for number in range(10):
            array = np.clip(level + generator.normal(0, 20, (SIZE, SIZE)), 0, 255).astype(np.uint8)
            Image.fromarray(array).save(root / name / f"{number}.png")
    (root / "dark" / "broken.png").write_text("no picture")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Runs of tiny models, and two photographs."""
    root = save_tiny_runs(tmp_path_factory.mktemp("edit"))
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(generator.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)).save(root / f"{name}.png")
    return root


def arguments(root, task, output, *options):
    return (
        "edit", task, f"run={root}/flow", f"sampler={root}/sampler", f"output={output}", "device=cpu", *options,
    )  # fmt: skip


def edited(root, task, output, *options):
    """The record of a successful edit."""
    succeed(*arguments(root, task, output, *options))
    return json.loads((output / "edit.json").read_text())


def refused(root, task, output, *options):
    said = invoke(*arguments(root, task, output, *options))
    assert said.status == 2, said
    assert "Traceback" not in said.err
    return said.err


def pixels(path):
    return np.asarray(Image.open(path))


def test_interpolation_writes_frames_strips_and_numbers(root, tmp_path):
    pair = f"images=[{root}/a.png,{root}/b.png]"
    record = edited(root, "interpolate", tmp_path, pair, "frames=3", "frame_seconds=0.2")
    frames = [pixels(tmp_path / f"{number:06d}.png") for number in range(3)]
    assert np.array_equal(strip_pictures(tmp_path / "strip.png", 3)[0], frames)
    with Image.open(tmp_path / "strip.gif") as gif:
        assert gif.n_frames == 3
        assert gif.info["duration"] == 200
        assert json.loads(gif.info["comment"])["weights"] == record["weights"]
    assert set(record["ways"]) == {"w, linear", "z, linear", "w, spherical"}
    assert [set(end["round_trip"]) for end in record["ends"]] == [{"dopri5", "midpoint 4"}] * 2
    assert set(record["files"]) == {path.name for path in tmp_path.glob("[!.]*")} - {"edit.json"}
    assert record["settings"]["solver"] == "midpoint"


def test_an_image_to_itself_lasts_as_long_as_its_frames(root, tmp_path):
    same = f"images=[{root}/a.png,{root}/a.png]"
    record = edited(root, "interpolate", tmp_path, same, "frames=10", "path=spherical")
    first = pixels(tmp_path / "000000.png").astype(int)
    assert all(np.abs(pixels(tmp_path / f"{k:06d}.png") - first).max() <= 1 for k in range(10))
    numbers = [value for way in record["ways"].values() for values in way.values() for value in values]
    assert np.isfinite(numbers).all()
    assert gif_durations(tmp_path / "strip.gif") == [100] * 10


def test_the_ends_of_seeds_are_what_sample_makes_with_them(root, tmp_path):
    options = ("latent_solver=heun3", "latent_steps=8", "steps=3")
    edited(root, "interpolate", tmp_path / "edit", "seeds=[7,8]", "seed=7", "frames=2", *options)
    succeed(
        "sample", f"run={root}/flow", f"sampler={root}/sampler", f"output={tmp_path}/sample", "device=cpu",
        "seed=7", "count=1", *options,
    )  # fmt: skip
    made, drawn_ = pixels(tmp_path / "edit" / "000000.png"), pixels(tmp_path / "sample" / "000000.png")
    assert np.abs(made.astype(int) - drawn_).max() <= 1


@pytest.mark.parametrize("keep", ["z", "x"])
def test_variations_differ_and_are_listed(keep, root, tmp_path):
    record = edited(root, "vary", tmp_path, f"image={root}/a.png", f"keep={keep}", "count=3", "batch_size=2")
    made = [pixels(tmp_path / f"{number:06d}.png") for number in range(3)]
    assert not np.array_equal(made[0], made[1]) and not np.array_equal(made[1], made[2])
    assert np.array_equal(strip_pictures(tmp_path / "strip.png", 4)[0], [pixels(root / "a.png"), *made])
    assert ("round_trip" in record["image"]) == (keep == "x")


def test_inpainting_keeps_the_bytes_outside_and_counts(root, tmp_path):
    record = edited(root, "inpaint", tmp_path, f"image={root}/a.png", RECTANGLE, "count=3", "solver=heun3")
    made = [pixels(tmp_path / f"{number:06d}.png") for number in range(3)]
    assert all(np.array_equal(one[OUTSIDE], pixels(root / "a.png")[OUTSIDE]) for one in made)
    assert not np.array_equal(made[0], made[1])
    assert record["mask"]["repainted"] == pytest.approx(49 / 256)
    assert record["line_error"] < 1e-5
    assert record["nfe"] == 6


def test_a_turned_colour_jpeg_comes_out_upright(tmp_path):
    colours = save_tiny_runs(tmp_path / "colours", channels=3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    photograph = Image.fromarray(np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
    path = tmp_path / "фото 写真.jpg"
    photograph.save(path, exif=exif)
    edited(colours, "inpaint", tmp_path / "out", f"image={path}", RECTANGLE, "count=1")
    upright = pixels(path).swapaxes(0, 1)[:, ::-1]
    assert np.array_equal(pixels(tmp_path / "out" / "000000.png")[OUTSIDE], upright[OUTSIDE])
    assert not Image.open(tmp_path / "out" / "000000.png").getexif()


def test_z_of_the_whole_image_comes_with_a_warning(root, tmp_path):
    said = succeed(
        *arguments(root, "inpaint", tmp_path, f"image={root}/a.png", RECTANGLE, "count=1", "z_from=image")
    )
    assert "has seen what the mask hides" in said.err
    assert json.loads((tmp_path / "edit.json").read_text())["warnings"]


def test_an_attribute_gives_a_picture_for_each_strength_and_a_direction_to_use_again(root, sets, tmp_path):
    given = (f"with={sets}/bright", f"without={sets}/dark", f"image={root}/a.png")
    options = ("latent_solver=midpoint", "strengths=[-1,0,1]", "x_from=prior")
    record = edited(root, "attribute", tmp_path / "made", *given, *options)
    made = [pixels(tmp_path / "made" / f"{number:06d}.png") for number in range(3)]
    strip = pixels(tmp_path / "made" / "strip.png")
    assert np.array_equal(
        strip_pictures(tmp_path / "made" / "strip.png", 4)[0], [pixels(root / "a.png"), *made]
    )
    assert not np.array_equal(made[0], made[2])
    assert record["direction"]["test"]["auc"] == 1
    assert [row["strength"] for row in record["strengths"]] == [-1, 0, 1]
    assert record["held_out"][1]["drift"] == pytest.approx(0, abs=1e-4)
    assert record["passed_over"] == [{"set": "without", "file": "broken.png", "reason": ANY}]
    text = Image.open(tmp_path / "made" / "000000.png").text["lediflow"]
    assert "broken" not in text and str(sets) not in text
    assert "direction.safetensors" in record["files"]
    stored = f"direction={tmp_path}/made/direction.safetensors"
    again = edited(root, "attribute", tmp_path / "again", stored, f"image={root}/a.png", *options)
    assert again["direction"] == record["direction"] and "held_out" not in again
    assert np.array_equal(pixels(tmp_path / "again" / "strip.png"), strip)
    assert "lies in output" in refused(root, "attribute", tmp_path / "made", stored, f"image={root}/a.png")
    other = save_tiny_runs(tmp_path / "other", first_seed=7)
    assert "is of space=w; leave space out" in refused(
        root, "attribute", tmp_path / "no", stored, f"image={root}/a.png", "space=z"
    )
    assert "another auxiliary" in refused(other, "attribute", tmp_path / "no", stored, f"image={root}/a.png")


def test_sets_that_share_pictures_are_refused(root, sets, tmp_path):
    same = (f"with={sets}/dark", f"without={sets}/dark", f"image={root}/a.png")
    assert "have 10 pictures in common" in refused(root, "attribute", tmp_path, *same, "space=z")


def test_pictures_carry_their_origin_without_paths_unless_it_is_left_out(root, tmp_path):
    options = (f"image={root}/a.png", RECTANGLE, "count=1", "seed=3")
    record = edited(root, "inpaint", tmp_path / "with", *options)
    text = Image.open(tmp_path / "with" / "000000.png").text["lediflow"]
    origin = json.loads(text)
    assert origin["weights"] == record["weights"]
    assert set(origin["weights"]) == {"flow", "auxiliary", "latent_sampler"}
    assert (origin["settings"]["seed"], origin["number"]) == (3, 0)
    assert str(root) not in text and str(tmp_path) not in text
    edited(root, "inpaint", tmp_path / "without", *options, "--no-metadata")
    assert Image.open(tmp_path / "without" / "000000.png").text == {}
    assert np.array_equal(*(pixels(tmp_path / name / "000000.png") for name in ("with", "without")))


def test_an_edit_replaces_the_files_of_the_one_before_and_no_others(root, tmp_path):
    edited(root, "vary", tmp_path / "out", f"image={root}/a.png", "count=3")
    edited(root, "vary", tmp_path / "out", f"image={root}/a.png", "count=1")
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"000000.png", "strip.png"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.png").write_bytes(b"")
    assert "is not empty" in refused(root, "vary", tmp_path / "mine", f"image={root}/a.png", "count=1")


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [("interpolate", ["images=[a.png]"], "between two"),
     ("interpolate", [], "give two pictures"),
     ("interpolate", ["seeds=[0,1]", "space=z", "path=spherical"], "use space=w"),
     ("interpolate", ["seeds=[0,1]", "steps=0"], "steps=0"),
     ("interpolate", ["seeds=[0,1]", "frames=1"], "frames=1 must be at least 2"),
     ("vary", ["image=a.png", "keep=y"], "one of z, x"),
     ("vary", ["image=a.png", "strength=1.5"], "strength=1.5 must be"),
     ("inpaint", ["image=a.png", RECTANGLE, "strength=-1"], "strength=-1"),
     ("inpaint", ["image=a.png"], "none of them"),
     ("attribute", ["image=a.png"], "found none of them"),
     ("attribute", ["image=a.png", "with_images=a"], "found only with="),
     ("attribute", ["image=a.png", "with_images=a", "direction=b"], "both given"),
     ("attribute", ["image=a.png", "direction=b", "space=x"], "one of auto, w, z"),
     ("attribute", ["image=a.png", "direction=b", "estimator=svm"], "one of auto, means, probe"),
     ("attribute", ["image=a.png", "direction=b", "strengths=[]"], "strengths"),
     ("inpaint", ["image=a.png", RECTANGLE, "mask=m.png"], "mask= and rectangle="),
     ("inpaint", ["image=a.png", "rectangle=[1,2,3]"], "four numbers"),
     ("inpaint", ["image=a.png", "polygon=[1,2,3,4]"], "three corners"),
     ("inpaint", ["image=a.png", RECTANGLE, "solver=rk5"], "did you mean 'rk4'"),
     ("inpaint", ["image=a.png", RECTANGLE, "z_from=mask"], "one of image, masked, sampler"),
     ("inpaint", ["image=a.png", RECTANGLE, "blur=nan"], "blur=nan must be"),
     ("inpaint", ["image=a.png", RECTANGLE, "runtime=fast"], "use one of auto")],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(task, options, words):
    with pytest.raises(UserError, match=re.escape(words)):
        compose(f"edit_{task}", "run=r", "sampler=s", "output=o", *options)


def test_jumps_of_a_velocity_and_a_picture_in_the_output_are_refused(root, tmp_path):
    options = (f"image={root}/a.png", RECTANGLE)
    assert "has no jumps" in refused(root, "inpaint", tmp_path, *options, "solver=jump")
    assert "lies in output" in refused(root, "inpaint", root, *options)
    assert "image has no value" in refused(root, "vary", tmp_path)


@pytest.mark.parametrize("word", ["inpant", "interpolate=1"])
def test_an_unknown_task_is_answered_with_the_nearest(word):
    said = invoke("edit", word, "run=r")
    assert said.status == 2
    assert "did you mean in" in said.err


def test_models_of_latents_edit_photographs_of_their_codec(tmp_path):
    runs, weights = save_tiny_runs(tmp_path, channels=4, codec="taesd"), save_random_taesd(tmp_path / "taesd")
    side = 8 * SIZE
    pictures = np.random.default_rng(1).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    for name, array in zip("ab", pictures, strict=True):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    image, codec = f"image={tmp_path}/a.png", f"codec_path={weights}"
    rectangle = "rectangle=[41,30,90,70]"
    record = edited(runs, "inpaint", tmp_path / "inpaint", image, codec, rectangle, "count=1")
    outside = np.ones((side, side), dtype=bool)
    outside[30:70, 41:90] = False
    assert np.array_equal(pixels(tmp_path / "inpaint" / "000000.png")[outside], pictures[0][outside])
    assert len(record["seam"]["results"]) == 1 and record["line_error"] < 1e-4
    edited(runs, "inpaint", tmp_path / "whole", image, codec, rectangle, "count=1", "paste=false")
    assert not np.array_equal(pixels(tmp_path / "whole" / "000000.png")[outside], pictures[0][outside])
    edited(runs, "vary", tmp_path / "vary", image, codec, "count=1")
    both = f"images=[{tmp_path}/a.png,{tmp_path}/b.png]"
    edited(runs, "interpolate", tmp_path / "between", both, codec, "frames=2", "latent_solver=midpoint")
    assert pixels(tmp_path / "between" / "000001.png").shape == (side, side, 3)
    assert "give the codec.path that lediflow.encode was run with as codec_path=" in refused(
        runs, "vary", tmp_path / "no", image
    )


@pytest.mark.parametrize(("task", "option"), [("vary", "keep=z"), ("vary", "keep=x"), ("inpaint", RECTANGLE)])
def test_a_strength_below_one_finds_the_photographs_noise_and_comes_nearer_to_it(
    root, tmp_path, task, option
):
    given = (f"image={root}/a.png", option, "count=1", "solver=rk4", "steps=4")
    distances = []
    for strength in (0.1, 1):
        record = edited(root, task, tmp_path / str(strength), *given, f"strength={strength}")
        made = pixels(tmp_path / str(strength) / "000000.png").astype(int)
        distances.append(np.abs(made - pixels(root / "a.png")).mean())
        trips = record.get("round_trip") or record["image"].get("round_trip", {})
        expected = {
            ("keep=z", 1): set(),
            ("keep=x", 1): {"x"},
            ("keep=x", 0.1): {"x", "w"},
            (RECTANGLE, 1): set(),
        }
        assert set(trips) == expected.get((option, strength), {"x"})
    assert distances[0] < distances[1] / 2
    if task == "inpaint":
        assert "strength below 1" in json.loads((tmp_path / "0.1" / "edit.json").read_text())["warnings"][0]


def test_a_baseline_and_a_flow_map_are_refused(root, tmp_path):
    options = (f"image={root}/a.png", RECTANGLE)
    levels = specs(1)["flow"].levels
    baseline = VelocitySpec(
        image_channels=1, patch_size=4, levels=levels, mapping=MappingSpec(depth=1, width=16)
    )
    facts = {
        "stage": "flow",
        "prior": "gaussian",
        "image_size": SIZE,
        "codec": {"name": "pixels"},
        "parent": None,
    }
    save_model(drawn(baseline, 0), tmp_path / "baseline" / "flow" / "export", facts)
    said = refused(tmp_path / "baseline", "inpaint", tmp_path / "out", *options)
    assert "Gaussian baseline" in said and "prior=learned" in said
    sets = (f"with={root}", f"without={root}", f"image={root}/a.png")
    assert "Gaussian baseline" in refused(tmp_path / "baseline", "attribute", tmp_path / "out", *sets)
    maps = save_tiny_runs(tmp_path / "maps", is_flow_map=True)
    assert "is a flow map" in refused(maps, "inpaint", tmp_path / "out", *options)
    assert "is a flow map" in refused(maps, "interpolate", tmp_path / "out", "seeds=[0,1]")
