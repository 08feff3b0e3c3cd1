"""Results files and the birth certificates in them."""

import json
import subprocess
from pathlib import Path

import pytest

import lediflow
from lediflow.errors import UserError
from lediflow.evaluation.results import birth_certificate, commit, read_results, read_row, write_results


def test_results_are_read_as_written(tmp_path):
    certificate = birth_certificate(seed=3, command=["python", "-m", "lediflow.evaluate", "output=a b"])
    path = write_results(tmp_path / "new" / "results.json", {"mmd": 1.5}, certificate)
    document = read_results(path)
    assert document["results"] == {"mmd": 1.5}
    assert document["certificate"] == certificate
    assert document["certificate"]["command"] == "python -m lediflow.evaluate 'output=a b'"


def test_slim_results_are_the_same_with_a_line_for_each_row(tmp_path):
    results = {
        "rows": [{"z": "a { b", "mmd": 1.5}, {"z": "line\nbreak", "mmd": 2.5}],
        "text": "{\n }",
        "none": [],
    }
    path = write_results(tmp_path / "results.json", results, {}, is_slim=True)
    assert json.loads(path.read_text())["results"] == results
    assert '   { "z": "line\\nbreak", "mmd": 2.5 }\n' in path.read_text()


def test_certificate_names_everything_needed_to_make_the_number_again():
    certificate = birth_certificate(seed=7)
    assert set(certificate) == {"command", "commit", "seed", "hardware", "date", "versions"}
    assert certificate["seed"] == 7
    assert certificate["versions"]["lediflow"] == lediflow.__version__
    assert certificate["versions"]["torch"]
    json.dumps(certificate)


def test_commit_is_the_one_checked_out():
    head = ["git", "-C", str(Path(lediflow.__file__).parent), "rev-parse", "HEAD"]
    shown = subprocess.run(head, capture_output=True, text=True, check=False)
    if shown.returncode:
        assert commit() == f"release {lediflow.__version__}"
    else:
        assert commit().removesuffix("-dirty") == shown.stdout.strip()


def test_outside_a_checkout_the_release_stands_for_the_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(lediflow, "__file__", str(tmp_path / "lediflow" / "__init__.py"))
    assert commit() == f"release {lediflow.__version__}"
    monkeypatch.setenv("LEDIFLOW_COMMIT", "abc123")
    assert commit() == "abc123"


def test_an_interrupted_write_leaves_the_old_results(tmp_path, monkeypatch):
    path = write_results(tmp_path / "results.json", {"mmd": 1.5}, {})
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_results(path, {"mmd": 2.5}, {})
    assert read_results(path)["results"] == {"mmd": 1.5}


@pytest.mark.parametrize("content", [None, "{", "[]", '{"schema_version": 0}'])
def test_a_file_without_results_is_named(tmp_path, content):
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"results\.json"):
        read_results(path)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"mmd_unbiased": "1.5"}, "mmd_unbiased: found '1.5', not a number"),
        ({"mmd_interval": 3}, "mmd_interval: found 3; give a list"),
        ({"solver": None}, "solver: found None, not text"),
    ],
)
def test_a_kept_row_of_other_types_is_refused(changes, fault, tmp_path):
    row = {
        "solver": "euler", "steps": 1, "temperature": 1.0, "nfe": 1, "ms_per_image": 2.0, "mmd_name": "MMD",
        "mmd_unbiased": 1.5, "mmd_interval": [1.0, 2.0], "frechet_name": "Fréchet", "frechet": 3.0, "sample_images": 8,
    }  # fmt: skip
    (tmp_path / "row.json").write_text(json.dumps(row))
    assert read_row(tmp_path / "row.json") == row
    (tmp_path / "row.json").write_text(json.dumps(row | changes))
    with pytest.raises(UserError, match=rf"row\.json: {fault}; delete it"):
        read_row(tmp_path / "row.json")
    (tmp_path / "row.json").write_text(json.dumps({key: row[key] for key in row if key != "nfe"}))
    with pytest.raises(UserError, match="has no 'nfe'; delete it"):
        read_row(tmp_path / "row.json")


def test_a_row_without_a_metric_is_read_where_the_table_lacks_it(tmp_path):
    row = {
        "solver": "euler", "steps": 1, "temperature": 1.0, "nfe": 1, "ms_per_image": 2.0, "mmd_name": "MMD",
        "mmd_unbiased": 1.5, "mmd_interval": [1.0, 2.0], "sample_images": 8,
    }  # fmt: skip
    (tmp_path / "row.json").write_text(json.dumps(row))
    assert read_row(tmp_path / "row.json", lacking={"frechet", "kid"}) == row
    with pytest.raises(UserError, match="has no 'frechet_name'; delete it"):
        read_row(tmp_path / "row.json")
