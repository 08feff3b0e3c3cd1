"""Photographs and masks are paired by their order or their names; what does not fit is refused by name."""

import re

import pytest
from harness.commands import compose

from lediflow.editing.pairs import paired_files
from lediflow.errors import UserError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of two photographs, one of their masks, and one without pictures."""
    root = tmp_path_factory.mktemp("pairs")
    names = (
        "photographs/b.JPG", "photographs/a.png", "photographs/notes.txt", "photographs/.hidden.png",
        "masks/a.png", "masks/b.png", "masks/c.png", "some/a.png", "twice/a.png", "twice/a.bmp", "none/readme.md",
    )  # fmt: skip
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def paired(root, *options):
    found = paired_files(
        compose(
            "edit_inpaint", "run=r", "sampler=s", "output=o", *(option.format(root) for option in options)
        )
    )
    return [tuple(path and path.replace(f"{root}/", "") for path in pair) for pair in found]


@pytest.mark.parametrize(
    ("options", "pairs"),
    [(["image=x.png", "mask=m.png"], [("x.png", "m.png")]),
     (["image=x.png", "rectangle=[0,0,1,1]"], [("x.png", None)]),
     (["images=[{0}/photographs]", "mask=m.png"], [("photographs/a.png", "m.png"), ("photographs/b.JPG", "m.png")]),
     (["images=[{0}/photographs]", "masks=[{0}/masks]"],
      [("photographs/a.png", "masks/a.png"), ("photographs/b.JPG", "masks/b.png")]),
     (["images=[z.png,{0}/photographs]", "masks=[1.png,2.png,3.png]"],
      [("z.png", "1.png"), ("photographs/a.png", "2.png"), ("photographs/b.JPG", "3.png")])],
)  # fmt: skip
def test_masks_belong_to_photographs_by_order_or_by_name(files, options, pairs):
    assert paired(files, *options) == pairs


@pytest.mark.parametrize(
    ("options", "words"),
    [(["images=[a.png,b.png]", "masks=[m.png]"], "masks= are 1, images= 2; give a mask for each"),
     (["images=[{0}/photographs]", "masks=[{0}/some]"], "for b.JPG it has none; give one mask, b.png"),
     (["images=[{0}/photographs]", "masks=[{0}/twice]"], "for a.png it has a.bmp and a.png"),
     (["images=[{0}/none]", "mask=m.png"], "is a folder without pictures"),
     (["images=[{0}/photographs]", "mask=m.png", "count=10000"], "more than 10,000 results"),
     (["mask=m.png"], "found neither"),
     (["image=a.png", "images=[b.png]", "mask=m.png"], "found both"),
     (["image=a.png", "masks=[m.png]"], "give mask=FILE with image=FILE")],
)  # fmt: skip
def test_what_does_not_fit_is_refused(files, options, words):
    with pytest.raises(UserError, match=re.escape(words)):
        paired(files, *options)
