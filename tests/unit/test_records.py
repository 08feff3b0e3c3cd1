"""The toolkit's own files, read again: what is not as it was written is refused in a sentence that names the place."""

import json
from dataclasses import dataclass, field

import pytest

from lediflow.errors import UserError
from lediflow.records import Record, RecordError, as_record, read_dataclass, read_json, read_record, typed

SPOILT = {
    "empty": (b"", "is empty"),
    "blank": (b" \n", "is empty"),
    "cut": (b'{"stage": "fl', "is incomplete, or not JSON"),
    "binary": (bytes(range(256)), "is incomplete, or not JSON"),
    "deep": (b"[" * 100_000, "is incomplete, or not JSON"),
    "list": (b"[1, 2]", r"holds \[1, 2\] where values by name belong"),
    "number": (b"7", "holds 7 where values by name belong"),
    "type": (b'{"stage": 7}', "stage: found 7, not text"),
    "inner": (b'{"codec": {"name": ["x"]}}', r"codec\.name: found \['x'\], not text"),
    "inner list": (b'{"codec": "pixels"}', "codec: found 'pixels' where values by name belong"),
}


@pytest.mark.parametrize(("content", "fault"), SPOILT.values(), ids=SPOILT)
def test_a_damaged_file_is_refused_with_its_name_fault_and_remedy(content, fault, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"config\.json:? {fault}.*; copy it again$"):
        read_record(path, "copy it again", {"stage": str, "codec": {"name": str}})


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(
        RecordError, match=r"nothing\.json cannot be read \(No such file or directory\); copy it again"
    ):
        read_json(tmp_path / "nothing.json", "copy it again")
    with pytest.raises(RecordError, match=r"cannot be read \(Is a directory\)"):
        read_json(tmp_path, "copy it again")


def test_requesting_a_missing_key_names_it():
    record = as_record({"a": 1, "rows": [{"b": 2}], "inner": {}}, "results.json", "measure again")
    assert record == {"a": 1, "rows": [{"b": 2}], "inner": {}}
    assert record.get("stage") is None
    assert json.loads(json.dumps(record)) == record
    for read, place in (
        (lambda: record["stage"], "results.json has no 'stage'"),
        (lambda: record["inner"]["sha256"], "results.json, inner has no 'sha256'"),
        (lambda: record["rows"][0]["mmd"], r"results.json, rows\[0\] has no 'mmd'"),
    ):
        with pytest.raises(RecordError, match=f"{place}; measure again"):
            read()


def test_types_of_present_values_are_checked():
    """Older releases wrote less, and null where there is nothing."""
    types = {"parent": {"path": str}, "seed": int, "mmd": float | None}
    assert isinstance(as_record({"parent": None, "mmd": None}, "config.json", "", types), Record)


@dataclass(kw_only=True)
class Inner:
    width: int
    share: float = 0.5


@dataclass(kw_only=True)
class Outer:
    levels: list[Inner]
    inner: Inner | None = None
    names: dict[str, str] = field(default_factory=dict)
    is_new: bool = False


def test_nested_dataclasses_are_read_back():
    found = read_dataclass(Outer, {"levels": [{"width": 4.0, "share": 1}], "inner": {"width": 2}}, "spec")
    assert found == Outer(levels=[Inner(width=4, share=1)], inner=Inner(width=2))
    assert type(found.levels[0].width) is int


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"levels": [{"width": "4"}]}, r"spec\.levels\[0\]\.width: found '4', not a whole number"),
        ({"levels": [{"width": 4.5}]}, r"spec\.levels\[0\]\.width: found 4\.5, not a whole number"),
        ({"levels": [{"width": True}]}, r"spec\.levels\[0\]\.width: found True, not a whole number"),
        ({"levels": [{"width": float("nan")}]}, r"spec\.levels\[0\]\.width: found nan"),
        ({"levels": [{"width": 4, "share": None}]}, r"spec\.levels\[0\]\.share: found None, not a number"),
        ({"levels": [{}]}, r"spec\.levels\[0\]: Inner without width; it needs width"),
        ({"levels": {}}, r"spec\.levels: found \{\}; give a list"),
        ({"levels": [], "inner": 3}, r"spec\.inner: found 3; a Inner is made of values by name"),
        ({"levels": [], "names": {"a": 1}}, r"spec\.names\.a: found 1, not text"),
        ({"levels": [], "is_new": 1}, r"spec\.is_new: found 1, not true or false"),
        ({"levels": [], "heads": 1}, r"spec: Outer with heads: it has levels, inner, names, is_new"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_place(values, fault):
    with pytest.raises(ValueError, match=fault):
        read_dataclass(Outer, values, "spec")


def test_long_values_are_shortened_in_messages():
    with pytest.raises(ValueError) as caught:
        typed(int, "x" * 10_000, "samples")
    assert len(str(caught.value)) < 100
