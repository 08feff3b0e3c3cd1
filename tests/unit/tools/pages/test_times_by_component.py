"""The table of times by component, from rows as tools/bench/sampling.py writes them."""

import json

import pytest

from pages.speed import components


def part(name, method, per_image, solver=None, nfe=None):
    row = {"model": "m", "space": "latents", "batch": 64, "method": method, "part": name, "ms/img": per_image}
    return row | ({} if solver is None else {"solver": solver, "NFE": nfe})


CHAINS = [
    part("chain", "LeDiFlow", 1.0, "midpoint", 4), part("flow", "LeDiFlow", 0.8, "midpoint", 4),
    part("chain", "LeDiFlow", 1.5, "heun3", 6), part("flow", "LeDiFlow", 1.3, "heun3", 6),
    part("sampler", "LeDiFlow", 0.15, "midpoint", 8), part("decoder", "LeDiFlow", 0.05),
    part("chain", "FM", 4.0, "midpoint", 16), part("flow", "FM", 3.9, "midpoint", 16),
]  # fmt: skip
CODEC = {
    "codec": "sd2_vae",
    "batch": 64,
    "precision": "bfloat16",
    "layout": "channels last",
    "runtime": "eager",
}


def written(root, name, rows):
    (root / "results").mkdir(exist_ok=True)
    (root / f"results/{name}.json").write_text(json.dumps({"results": {"rows": rows}}))


@pytest.fixture
def root(tmp_path):
    """A file of chains of latents, one of the same of pixels, and two without rows."""
    pixels = [{**row, "model": "n", "space": "pixels"} for row in CHAINS[2:]]
    for name, rows in zip(components.CHAINS, (CHAINS, pixels, [], []), strict=True):
        written(tmp_path, name, rows)
    return tmp_path


@pytest.mark.parametrize(
    ("codecs", "last"), [([], ["", "", ""]), ([{**CODEC, "ms/img": 2.0}], ["3.5", "6", "3"])]
)
def test_chains_by_component_with_their_gain_and_the_decoder(root, codecs, last):
    written(root, components.DECODING, codecs)
    assert components.lines(root)[:3] == [
        ["m", "64", "LeDiFlow", "heun3", "6", "0.15", "0.05", "1.3", "1.5", "", last[0]],
        ["m", "64", "FM", "midpoint", "16", "", "", "3.9", "4", "", last[1]],
        ["m", "64", "LeDiFlow", "midpoint", "4", "0.15", "0.05", "0.8", "1", "4.00", last[2]],
    ]


def test_each_file_has_its_own_gain_and_pixels_no_decoder(root):
    written(root, components.DECODING, [{**CODEC, "ms/img": 2.0}])
    lines = components.lines(root)
    assert [line[0] for line in lines] == ["m", "m", "m", "n", "n"]
    assert [line[-1] for line in lines] == ["3.5", "6", "3", "", ""]
