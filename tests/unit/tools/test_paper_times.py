"""The table of times by component, from rows as tools/bench/sampling.py writes them."""

import importlib
import json
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[3] / "tools"


@pytest.fixture
def paper_times(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("paper_times")


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


@pytest.mark.parametrize(
    ("codecs", "last"), [([], ["", "", ""]), ([{**CODEC, "ms/img": 2.0}], ["3.5", "6", "3"])]
)
def test_chains_by_component_with_their_gain_and_the_decoder(tmp_path, paper_times, codecs, last):
    written(tmp_path, paper_times.CHAINS[0], CHAINS)
    written(tmp_path, paper_times.DECODING, codecs)
    assert paper_times.lines(tmp_path) == [
        ["m", "64", "LeDiFlow", "heun3", "6", "0.15", "0.05", "1.3", "1.5", "", last[0]],
        ["m", "64", "FM", "midpoint", "16", "", "", "3.9", "4", "", last[1]],
        ["m", "64", "LeDiFlow", "midpoint", "4", "0.15", "0.05", "0.8", "1", "4.00", last[2]],
    ]


def test_each_file_has_its_own_gain_and_pixels_no_decoder(tmp_path, paper_times):
    written(tmp_path, paper_times.CHAINS[0], CHAINS)
    written(tmp_path, paper_times.CHAINS[1], [{**row, "model": "n", "space": "pixels"} for row in CHAINS[2:]])
    written(tmp_path, paper_times.DECODING, [{**CODEC, "ms/img": 2.0}])
    lines = paper_times.lines(tmp_path)
    assert [line[0] for line in lines] == ["m", "m", "m", "n", "n"]
    assert [line[-1] for line in lines] == ["3.5", "6", "3", "", ""]


def test_nothing_measured_is_no_table(tmp_path, paper_times):
    assert paper_times.lines(tmp_path) == []
