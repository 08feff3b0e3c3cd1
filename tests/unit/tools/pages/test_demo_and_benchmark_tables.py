"""The tables of the demo and of a benchmark, from rows as they are stored."""

from pages import demo
from pages.speed import benchmarks


def test_a_table_of_results_shows_both_methods_side_by_side():
    rows = [("LeDiFlow", 1.25, 9.5), ("Flow matching", 3.5, 5.25)]
    runs = [measured(*row) for row in rows]
    runs[0]["rows"][0]["temperature"] = 0.8
    table = demo.quality_block({"runs": runs})
    assert "midpoint solver; LeDiFlow at a temperature of 0.8. NFE" in table
    assert "| 1 | 2 | 1.25 | 3.50 | 60.0 | 60.0 | 9.5 | 5.2 |" in table
    assert "commit 0123456789ab-dirty, seed 0" in table


def test_a_table_of_sampling_shows_parts_and_their_times():
    part = {
        "model": "demo",
        "batch": 2,
        "runtime": "eager",
        "method": "FM",
        "precision": "float32",
        "part": "call",
    }
    row = {
        **part,
        "solver": "heun3",
        "NFE": 3,
        "p50 ms": 4.0,
        "p95 ms": 5.0,
        "ms/img": 2.0,
        "calls": 9,
        "rounds": 1,
    }
    certificate = measured("FM", 1.0, 1.0)["certificate"]
    table = benchmarks.block({"results": {"rows": [row]}, "certificate": certificate})
    assert "| demo | 2 | FM | call | heun3 | 3 | eager | float32 | 4 | 5 | 2 |  |" in table


def test_a_column_of_nothing_is_left_out_and_a_cell_of_nothing_is_empty():
    ranks = {"model": "demo", "ranks": 1, "ms": 4.0, "collectives ms": None}
    assert benchmarks.rows_lines({"rows": [ranks]})[0] == "| model | ranks | ms |"
    two = [ranks, ranks | {"ranks": 2, "collectives ms": 2.0}]
    assert benchmarks.rows_lines({"rows": two})[2] == "| 1 | 4 |  |"


def test_what_all_of_several_rows_have_in_common_stands_below_the_table():
    rows = [
        {"model": "demo", "ranks": ranks, "ms": 4.0, "collectives ms": 2.0, "engine": "local"}
        for ranks in (1, 2, 4)
    ]
    heads, *_, facts = benchmarks.rows_lines({"rows": rows})
    assert heads == "| ranks | ms | collectives ms |"
    assert facts == "All rows: model demo, engine local."


def measured(method: str, mmd: float, milliseconds: float) -> dict:
    """One method's part of a results file."""
    row = {
        "steps": 1,
        "nfe": 2,
        "solver": "midpoint",
        "mmd_name": "MMD (X)",
        "frechet_name": "Fréchet distance (X)",
        "mmd_unbiased": mmd,
        "frechet": 60.0,
        "ms_per_image": milliseconds,
        "sample_images": 8,
        "reference_images": 9,
    }
    certificate = {
        "command": "python",
        "commit": "0123456789abcdef-dirty",
        "seed": 0,
        "date": "2026-01-01T00:00:00",
        "hardware": {"gpus": [], "processor": "a processor", "cores": 2},
        "versions": {"torch": "2", "python": "3"},
    }
    return {"method": method, "certificate": certificate, "real_mmd": -0.001, "rows": [row]}
