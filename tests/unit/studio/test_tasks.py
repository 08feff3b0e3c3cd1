"""The functions behind the page give what the commands give, and say what is wrong as those do."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from harness.commands import succeed
from harness.edited import SIZE, strip_pictures
from harness.studios import canvas, save_photograph, stroke, tiny_studio
from PIL import Image

from lediflow.errors import UserError
from lediflow.studio import tasks
from lediflow.studio.strokes import enlargement
from lediflow.studio.tasks import Sliders

FACTOR = enlargement(SIZE)
PAINTED = canvas(stroke(slice(3 * FACTOR, 9 * FACTOR), slice(4 * FACTOR, 8 * FACTOR)))
SLIDERS = Sliders(seed=3, steps=2, solver="midpoint", temperature=0.8)
AS_OPTIONS = ("seed=3", "steps=2", "solver=midpoint", "temperature=0.8", "device=cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with runs and two photographs."""
    folder = tmp_path_factory.mktemp("studio")
    for seed, name in enumerate(("a", "b")):
        save_photograph(folder / f"{name}.png", seed)
    return folder


@pytest.fixture(scope="module")
def studio(folder):
    return tiny_studio(folder)


def command(folder, name, output, *options):
    succeed(
        *name.split(),
        f"run={folder}/runs/flow",
        f"sampler={folder}/runs/sampler",
        f"output={output}",
        *options,
    )
    return [pixels(file) for file in sorted(output.glob("0*.png"))]


def pixels(file):
    return np.asarray(Image.open(file))


def inpaint(studio, photograph, strokes=None, mask=None, blur=0.0, z_from="masked", is_cropped=False):
    return studio.inpaint(SLIDERS, photograph, is_cropped, strokes, mask, blur, z_from, 2)


def test_pictures_are_those_of_sample(studio, folder, tmp_path):
    made = studio.sample(SLIDERS, 3)
    assert all(
        map(
            np.array_equal,
            map(pixels, made.files),
            command(folder, "sample", tmp_path, *AS_OPTIONS, "count=3"),
        )
    )
    assert f"lediflow.sample run={folder}/runs/flow" in made.text and "seed=3" in made.text


def test_classes_are_chosen_by_name_and_are_the_labels_of_sample(tmp_path):
    studio = tiny_studio(tmp_path, classes=("1", "10", "2"), labels=["10"])  # so class 1 is called 10
    assert studio.models.classes == [("1", "1"), ("10", "10"), ("2", "2")]
    chosen = SLIDERS._replace(classes=("10", "2"))
    made = studio.sample(chosen, 3)
    wanted = command(tmp_path, "sample", tmp_path / "out", *AS_OPTIONS, "count=3", 'labels=["10","2"]')
    assert all(map(np.array_equal, map(pixels, made.files), wanted))
    without = studio.sample(SLIDERS, 3)  # the class of the command line is only where the page starts
    assert not any(map(np.array_equal, map(pixels, without.files), wanted))
    assert '\'labels=["10", "2"]\'' in made.text and "labels" not in without.text


def test_a_strip_between_seeds_begins_with_the_picture_of_sample(studio, folder, tmp_path):
    made = studio.interpolate(SLIDERS, [3, 6], [], "w, spherical", 3)
    first = command(folder, "sample", tmp_path, *AS_OPTIONS, "count=1")[0]
    assert np.array_equal(strip_pictures(made.files[0], 3)[0, 0], first)
    assert Image.open(made.files[1]).n_frames == 3


def test_a_strip_between_photographs_begins_and_ends_with_versions_of_them(studio, folder):
    files = [f"{folder}/{name}.png" for name in ("a", "b")]
    strip, again = (
        strip_pictures(studio.interpolate(SLIDERS, [0, 1], files, "z, linear", 3).files[0], 3)
        for _ in range(2)
    )
    assert np.array_equal(strip, again)  # their noise is found once
    for file, frame in zip(files, strip[0, ::2], strict=True):
        assert np.array_equal(frame, pixels(studio.vary(SLIDERS, file, "z", 1).files[1]))


@pytest.mark.parametrize("keep", ["z", "x"])
def test_versions_are_those_of_vary(studio, folder, tmp_path, keep):
    made = studio.vary(SLIDERS, f"{folder}/a.png", keep, 2)
    assert np.array_equal(pixels(made.files[0]), pixels(folder / "a.png"))
    wanted = command(
        folder, "edit vary", tmp_path, f"image={folder}/a.png", f"keep={keep}", "count=2", *AS_OPTIONS
    )
    assert len(wanted) == 2 and all(map(np.array_equal, map(pixels, made.files[1:]), wanted))


def test_painted_results_are_those_of_inpaint_and_known_pixels_those_of_the_file(studio, folder, tmp_path):
    made = inpaint(studio, f"{folder}/a.png", PAINTED)  # whose background is another picture
    wanted = command(
        folder,
        "edit inpaint",
        tmp_path,
        f"image={folder}/a.png",
        "rectangle=[4,3,8,9]",
        "count=2",
        *AS_OPTIONS,
    )
    found = list(map(pixels, made.files))
    assert all(map(np.array_equal, found, wanted))
    outside = np.ones((SIZE, SIZE), bool)
    outside[3:9, 4:8] = False
    for picture in found:
        assert np.array_equal(picture[outside], pixels(folder / "a.png")[outside])


def test_an_uploaded_mask_comes_before_strokes_and_says_so(studio, folder):
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[3:9, 4:8] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    other = canvas(stroke(slice(0, FACTOR), slice(0, FACTOR)))
    alone, both = (
        inpaint(studio, f"{folder}/a.png", strokes, f"{folder}/mask.png") for strokes in (None, other)
    )
    assert all(map(np.array_equal, map(pixels, alone.files), map(pixels, both.files)))
    assert alone.warnings == [] and "what was painted is not" in both.warnings[0]


def test_files_say_where_they_are_from_without_paths(studio, folder):
    made = inpaint(studio, f"{folder}/a.png", PAINTED, z_from="image")
    origin = json.loads(Image.open(made.files[1]).text["lediflow"])
    assert origin["command"] == "lediflow.studio inpaint" and origin["number"] == 1
    assert origin["settings"]["seed"] == 3 and origin["settings"]["temperature"] == 0.8
    assert {*origin["weights"]} == {"flow", "latent_sampler", "auxiliary"}
    assert str(folder) not in str(origin)
    assert "may return" in made.warnings[0]


def test_metadata_can_be_left_out(tmp_path):
    made = tiny_studio(tmp_path, metadata=False).sample(SLIDERS, 1)
    assert Image.open(made.files[0]).info == {}


def test_folders_of_old_pictures_are_removed(studio, monkeypatch):
    monkeypatch.setattr(tasks, "KEPT_FOLDERS", 2)
    first, *_, last = [studio.sample(SLIDERS, 1).files[0] for _ in range(len(studio.written_folders) + 3)]
    assert last.exists() and not first.exists()


def test_two_at_once_give_what_each_gives_alone(studio):
    settings = [SLIDERS._replace(seed=seed) for seed in range(4)]
    alone = [list(map(pixels, studio.sample(one, 2).files)) for one in settings]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda one: list(map(pixels, studio.sample(one, 2).files)), settings))
    assert np.array_equal(alone, together)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"no picture", "photograph=p.png is .*give another picture"),
        (
            32,
            "photograph=p.png has 32 x 32 pixels, the models 16 x 16.*set .Crop and scale the photograph first",
        ),
    ],
)
def test_unusable_photographs_are_named_as_uploaded(studio, tmp_path, content, expected):
    file = tmp_path / "p.png"
    file.write_bytes(content) if isinstance(content, bytes) else save_photograph(file, size=content)
    with pytest.raises(UserError, match=expected) as caught:
        inpaint(studio, str(file), PAINTED)
    assert str(tmp_path) not in str(caught.value)


def test_a_large_photograph_can_be_cropped_and_scaled(studio, tmp_path):
    file = str(save_photograph(tmp_path / "p.png", size=40))
    known = studio.shown(file, is_cropped=True).squeeze(-1)
    made = pixels(inpaint(studio, file, PAINTED, is_cropped=True).files[0])
    assert np.array_equal(made[:, 8:], known[:, 8:]) and made.shape == known.shape


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda studio: studio.vary(SLIDERS, None, "z", 1), "no photograph was uploaded"),
        (lambda studio: studio.vary(SLIDERS, "x.png", "y", 1), "keep='y' is unknown"),
        (lambda studio: studio.sample(SLIDERS._replace(solver="magic"), 1), "magic"),
        (
            lambda studio: studio.sample(SLIDERS._replace(solver="jump"), 1),
            "is a velocity, which has no jumps",
        ),
        (lambda studio: studio.interpolate(SLIDERS, [0, 1], [], "z, spherical", 3), "frames are not made by"),
        (lambda studio: studio.interpolate(SLIDERS._replace(steps=0), [0, 1], [], "w, linear", 3), "steps=0"),
    ],
)
def test_impossible_settings_are_refused_as_by_the_commands(studio, call, expected):
    with pytest.raises((UserError, ValueError), match=expected):
        call(studio)
