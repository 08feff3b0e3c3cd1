"""What people's files are like: turned, in odd modes and sizes, many at once. Every edit here is the command's."""

import json
import re

import numpy as np
import pytest
from harness.commands import invoke, succeed
from harness.edited import SIZE, save_tiny_runs, strip_pictures
from PIL import Image

from lediflow.data.photograph import TURNS
from lediflow.editing.photographs import centred

UPRIGHT = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
INVERSE = {
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}
INSIDE = np.zeros((SIZE, SIZE), dtype=bool)
INSIDE[3:9, 2:14] = True
WHITE = np.where(INSIDE, 255, 0).astype(np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Runs of tiny models."""
    return save_tiny_runs(tmp_path_factory.mktemp("field"))


def arguments(root, output, images, masks, *options):
    return (
        "edit", "inpaint", f"run={root}/flow", f"sampler={root}/sampler", f"output={output}", "device=cpu",
        f"images=[{','.join(map(str, images))}]", f"masks=[{','.join(map(str, masks))}]", *options,
    )  # fmt: skip


def inpainted(root, output, images, masks, *options):
    """The results of a command, one for each image, its record, and what it wrote to stderr."""
    said = succeed(*arguments(root, output, images, masks, "count=1", *options))
    record = json.loads((output / "edit.json").read_text())
    files = [name for one in record["pictures"] for name in one["files"]]
    return [np.asarray(Image.open(output / name)) for name in files], record, said.err


def saved(path, image, **options):
    image.save(path, **options)
    return path


def turned(orientation):
    """The upright picture as a camera stores it with this orientation, and the tag for it."""
    picture = Image.fromarray(UPRIGHT)
    if orientation in TURNS:
        picture = picture.transpose(INVERSE.get(TURNS[orientation], TURNS[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return picture, exif


def palette():
    picture = Image.fromarray(np.where(INSIDE, 0, 1).astype(np.uint8), "P")
    picture.putpalette([255, 255, 255, 0, 0, 0])
    return picture


def white_under_transparency():
    return Image.fromarray(np.dstack([np.full((SIZE, SIZE, 3), 255, np.uint8), WHITE]), "RGBA")


def test_a_photograph_in_all_orientations_and_an_upright_mask_give_equal_upright_results(root, tmp_path):
    images = []
    for orientation in range(1, 9):
        picture, exif = turned(orientation)
        images.append(saved(tmp_path / f"{orientation}.png", picture, exif=exif))
    mask = saved(tmp_path / "mask.bmp", Image.fromarray(WHITE))
    results, _, _ = inpainted(root, tmp_path / "out", images, [mask] * 8)
    assert all(np.array_equal(one, results[0]) for one in results)
    assert np.array_equal(results[0][~INSIDE], UPRIGHT[~INSIDE])


def test_one_mask_in_every_mode_gives_one_result_and_a_jpeg_a_warning(root, tmp_path):
    masks = [
        saved(tmp_path / "grey.png", Image.fromarray(WHITE)),
        saved(tmp_path / "bit.png", Image.fromarray(WHITE).convert("1")),
        saved(tmp_path / "palette.png", palette()),
        saved(tmp_path / "alpha.png", white_under_transparency()),
        saved(tmp_path / "lossy.jpg", Image.fromarray(WHITE), quality=60),
    ]
    image = saved(tmp_path / "a.png", Image.fromarray(UPRIGHT))
    results, record, said = inpainted(root, tmp_path / "hard", [image] * 5, masks)
    assert all(np.array_equal(one, results[0]) for one in results)
    assert {one["mask"]["sha256"] for one in record["pictures"]} == {record["pictures"][0]["mask"]["sha256"]}
    assert said.count("save masks as PNG") == 1 and "lossy.jpg is a JPEG" in said
    assert len(record["warnings"]) == 1 and "lossy.jpg is a JPEG" in record["warnings"][0]
    [blurred], _, _ = inpainted(root, tmp_path / "soft", [image], masks[:1], "blur=1.5")
    assert not np.array_equal(blurred, results[0])


def test_every_pixel_of_a_thin_line_is_repainted(root, tmp_path):
    line = np.zeros((SIZE, SIZE), dtype=bool)
    line[7] = True
    mask = saved(tmp_path / "line.png", Image.fromarray(line))
    images = [
        saved(tmp_path / f"{level}.png", Image.fromarray(np.where(line, level, UPRIGHT).astype(np.uint8)))
        for level in (0, 255)
    ]
    results, record, _ = inpainted(root, tmp_path / "out", images, [mask] * 2)
    assert np.array_equal(*results)  # nothing is left of what the line hid
    assert np.array_equal(results[0][~line], UPRIGHT[~line])
    assert record["pictures"][0]["mask"]["repainted"] == 1 / SIZE


def test_a_large_photograph_of_any_depth_is_refused_by_name_or_keeps_its_tones(root, tmp_path):
    levels = np.linspace(30, 220, 641 * 427).reshape(641, 427).astype(np.uint8)
    eight = saved(tmp_path / "eight.png", Image.fromarray(levels))
    sixteen = saved(tmp_path / "sixteen.png", Image.fromarray(levels.astype(np.uint16) * 257))
    mask = saved(
        tmp_path / "mask.png",
        Image.fromarray(np.where(np.arange(641)[:, None] < 300, 255, 0 * levels).astype(np.uint8)),
    )
    said = invoke(*arguments(root, tmp_path / "no", [eight], [mask]))
    assert said.status == 2
    assert re.search(r"eight\.png has 427 x 641 pixels, the models 16 x 16.*fit=centre", said.err)
    results, record, _ = inpainted(root, tmp_path / "out", [eight, sixteen], [mask] * 2, "fit=centre")
    assert np.array_equal(*results)
    # rows below the mask; 107 rows above the square are cut off
    kept = slice(-(-(300 - 107) * SIZE // 427), None)
    expected = centred(str(eight), "image", SIZE, 1).pixels[0].numpy()
    assert np.array_equal(results[0][kept], expected[kept])
    assert abs(expected.mean() - levels[107:534].mean()) < 0.5
    assert record["pictures"][0]["mask"]["repainted"] == kept.start / SIZE


def test_a_photograph_of_16_bits_and_the_models_size_is_refused_by_name(root, tmp_path):
    image = saved(tmp_path / "deep.png", Image.fromarray(UPRIGHT.astype(np.uint16) * 257))
    mask = saved(tmp_path / "mask.png", Image.fromarray(WHITE))
    said = invoke(*arguments(root, tmp_path / "out", [image], [mask]))
    assert said.status == 2
    assert re.search(r"deep\.png has 16 bits per channel", said.err)


def test_each_of_four_photographs_with_four_masks_is_repainted_as_if_it_was_alone(root, tmp_path):
    generator = np.random.default_rng(1)
    images, masks = [], []
    (tmp_path / "photographs").mkdir()
    (tmp_path / "masks").mkdir()
    for place, name in enumerate(("a", "b", "d", "вид")):
        picture = Image.fromarray(generator.integers(0, 256, (SIZE, SIZE), dtype=np.uint8))
        images.append(saved(tmp_path / "photographs" / f"{name}.png", picture))
        hidden = np.roll(WHITE, place, axis=0)
        masks.append(saved(tmp_path / "masks" / f"{name}.bmp", Image.fromarray(hidden)))
    (tmp_path / "photographs" / "notes.txt").write_text("no picture")
    folders = [tmp_path / "photographs"], [tmp_path / "masks"]
    together, record, _ = inpainted(root, tmp_path / "together", *folders)
    assert [one["files"] for one in record["pictures"]] == [[f"{k:06d}.png"] for k in range(4)]
    strip = strip_pictures(tmp_path / "together" / "strip.png", columns=3, rows=4)
    assert np.array_equal(strip[:, 0], [np.asarray(Image.open(path)) for path in images])
    assert np.array_equal(strip[:, 2], together)
    for place in (0, 3):
        [alone], _, _ = inpainted(
            root, tmp_path / f"{place}", images[place : place + 1], masks[place : place + 1]
        )
        assert np.abs(together[place].astype(int) - alone).max() <= 1
    origin = json.loads(Image.open(tmp_path / "together" / "000003.png").text["lediflow"])
    assert (origin["number"], origin["image"]) == (0, record["pictures"][3]["image"])
    assert "вид" not in json.dumps(origin, ensure_ascii=False)
