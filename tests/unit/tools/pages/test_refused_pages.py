"""What would render a wrong, an empty or an old table is refused by the name of its file, key, block or line."""

import json

import pytest

from lediflow.errors import UserError
from pages import demo, keeping, markers
from pages.blocks import text_of
from pages.comparison.reading import compared_sets
from pages.comparison.times import BENCHES, read_times
from pages.markdown import table
from pages.speed import components, goals
from pages.speed.benchmarks import rows_lines
from pages.stored import alike, by_key, document


@pytest.fixture
def write(tmp_path):
    """Writes a results file by its name, with its certificate, as JSON or as the text that is given."""

    def written(name, results):
        path = tmp_path / "results" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"certificate": {"command": "x"}, "results": results})
        path.write_text(results if isinstance(results, str) else text)
        return path

    return written


BEGIN, END = "<!-- render: a -->", "<!-- end: a -->"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"x\n{BEGIN}\n", r"p\.md: 'a' does not end; add <!-- end: a -->"),
        (f"x\n{END}\n", r"p\.md:2: 'a' ends, but no block has begun"),
        (f"{BEGIN}\n<!-- end: b -->\n{END}", r"p\.md:2: 'b' ends, but 'a' has begun"),
        (f"{BEGIN}\n<!-- render: b -->\n<!-- end: b -->\n{END}", r"p\.md:2: 'b' begins before 'a' ends"),
        (f"{BEGIN}{END}\n\n<!--render: b-->", r"p\.md:3: '<!--render: b-->'; write <!-- render: NAME -->"),
        (f"{BEGIN}\n<!-- end: a --", r"p\.md:2: '<!-- end: a --'; write"),
    ],
)
def test_marks_without_their_other_half_are_refused_with_their_line(text, words):
    with pytest.raises(UserError, match=words):
        markers.block_names(text, "p.md")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bnech_x", "no block is called 'bnech_x'"),
        ("bench_x", r"results/bench_x\.json cannot be read \(No such file"),
        ("quality", r"results/demo\.json cannot be read"),
    ],
)
def test_a_page_is_not_left_as_it_is_where_its_block_is_unknown_or_its_results_are_gone(
    tmp_path, name, words
):
    (tmp_path / "README.md").write_text(f"<!-- render: {name} -->\n| an old table |\n<!-- end: {name} -->\n")
    with pytest.raises(UserError, match=words):
        markers.outdated(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"results": {"rows": [{"ms": 1.0}, {"ms": NaN}]}}', r"x\.json, results\.rows\.1\.ms: found nan"),
        ('{"results": {"ms": -1e999}}', r"results\.ms: found -inf"),
        ('{"certificate": {}}', r"x\.json has no 'results'"),
        ('{"results": ', r"x\.json is incomplete, or not JSON"),
        ("[]", r"x\.json holds \[\]"),
    ],
)
def test_results_files_are_refused_by_name_and_place(write, tmp_path, text, words):
    write("x", text)
    with pytest.raises(UserError, match=words):
        document(tmp_path / "results/x.json")["results"]


def test_a_missing_key_is_named_with_its_row(write, tmp_path):
    row = {"model": "m", "batch": 1, "method": "FM", "part": "chain", "solver": "euler", "NFE": 1}
    row |= {"runtime": "eager", "precision": "float32", "p50 ms": 1.0, "p95 ms": 2.0}
    write("bench_x", {"rows": [row | {"ms/img": 1.0}, row]})
    with pytest.raises(UserError, match=r"bench_x\.json, results, rows\[1\] has no 'ms/img'"):
        text_of("bench_x", tmp_path)
    decoder = {key: value for key, value in row.items() if key not in ("solver", "NFE")} | {"ms/img": 1.0}
    assert (
        rows_lines({"rows": [decoder]})[2] == "| m | 1 | FM | chain |  |  | eager | float32 | 1 | 2 | 1 |  |"
    )


def test_an_error_without_a_place_names_the_block(write, tmp_path):
    write("bench_x", {"rows": []})
    with pytest.raises(IndexError) as caught:
        text_of("bench_x", tmp_path)
    assert caught.value.__notes__ == ["in the block 'bench_x' of the documents"]


def test_tables_have_rows_and_every_row_a_cell_below_every_head():
    for body in ([], [["a", "b"], ["a"]]):
        with pytest.raises(ValueError, match="a table"):
            table(["x", "y"], body)


def test_numbers_that_a_table_would_hide_or_call_by_the_name_of_others_are_refused(write, tmp_path):
    write("x", {"rows": [{"nfe": 2, "mmd": 1.0, "name": "A"}, {"nfe": 2, "mmd": None, "name": "B"}]})
    first, second = document(tmp_path / "results/x.json")["results"]["rows"]
    with pytest.raises(UserError, match=r"x\.json, results, rows\[0\]: a second row of 2"):
        by_key([second | {"mmd": 1.0}, first], lambda row: row["nfe"], "mmd")
    with pytest.raises(UserError, match=r"rows\[1\]: 'mmd' is None, not a number"):
        by_key([second], lambda row: row["nfe"], "mmd")
    with pytest.raises(UserError, match=r"rows\[1\]: 'name' is 'B', but 'A' in .*rows\[0\]"):
        alike([first, second], "nfe", "name")
    runs = [{"method": name, "rows": [{"steps": steps, "nfe": 2}]} for name, steps in (("a", 1), ("b", 2))]
    with pytest.raises(UserError, match="'steps' is 2, but 1"):
        demo.quality_block({"runs": runs})
    runs[1]["rows"] = [runs[0]["rows"][0] | {"frechet": 1.0}]
    with pytest.raises(UserError, match="a row has no Fréchet distance, which other rows have"):
        demo.quality_block({"runs": runs})


def test_a_mean_over_trainings_is_not_one_over_those_that_were_measured(write, tmp_path):
    row = {"solver": "euler", "nfe": 1, "mmd_unbiased": 1.0, "mmd_interval": [0.9, 1.1]}
    unseen = row | {"held_out": 1.0, "held_out_interval": [0.9, 1.1]}
    facts = {"images": 9, "reference_images": 9, "mmd_name": "MMD (x)", "held_out_images": 9}
    trainings = {
        str(seed): facts | {"methods": {"fm": {"k": 1.0, "s": 0.0, "rows": rows}}}
        for seed, rows in enumerate(([unseen], [row]))
    }
    write("campaign/comparison_anime64", {"seeds": trainings})
    with pytest.raises(UserError, match=r"seeds, 1, methods, fm, rows\[0\] has no 'held_out"):
        compared_sets(tmp_path)


def test_a_part_of_the_files_of_a_table_is_no_table(write, tmp_path):
    row = {"part": "flow", "method": "FM", "batch": 1, "ms/img": 1.0, "model": "m", "precision": "float32"}
    write(BENCHES[0][0], {"rows": [row]})
    with pytest.raises(UserError, match=f"{BENCHES[0][1]}.json cannot be read"):
        read_times(tmp_path)
    write(components.DECODING, {"rows": []})
    with pytest.raises(UserError, match=f"{components.CHAINS[0]}.json cannot be read"):
        components.lines(tmp_path)
    write(goals.ONE, {"rows": [row]})
    with pytest.raises(UserError, match=f"{goals.ONE}.json has no row with .*'part': 'chain'"):
        goals.GOALS[0].line(tmp_path)
    write("campaign/flow_maps_pets64", {"rows": {}})
    with pytest.raises(UserError, match=r"widths_pets64\.json cannot be read"):
        compared_sets(tmp_path)


def test_methods_without_a_name_are_not_left_out_of_the_comparison(write, tmp_path):
    write(
        "campaign/comparison_anime64", {"seeds": {"0": {"methods": {"other": {"k": 1, "s": 1, "rows": []}}}}}
    )
    with pytest.raises(UserError, match=r"anime64 have other; name these methods in sets\.py"):
        compared_sets(tmp_path)


def test_benchmarks_that_no_block_could_show_and_demos_without_pictures_are_not_kept(write, tmp_path):
    with pytest.raises(UserError, match=r"out\.json: no block is rendered from this name"):
        keeping.keep_bench(tmp_path / "out.json", tmp_path)
    with pytest.raises(UserError, match="has no samples in flow/samples"):
        keeping.contact_sheet([], tmp_path)
