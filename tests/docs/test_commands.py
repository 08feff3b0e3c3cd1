"""What the documents tell people to type works."""

from __future__ import annotations

import pytest
from documents import DOCUMENTS, ROOT, fenced, lediflow_commands, readme_steps
from harness.commands import compose_raw, succeed

from lediflow.config.composition.command_line import undashed
from lediflow.data.synthetic import make_synthetic_images
from lediflow.run_folder import RunFolder

# the README's values -> ones that take seconds; everything else stays as it is written
SHORTER = {
    "source=PHOTOGRAPHS": ["source=pictures", "workers=1"],
    "size=64": ["size=16"],
    "experiment=demo": ["experiment=smoke", "synthetic_images=0", "train.images=32", "engine.device=cpu"],
    "count=64": ["count=4", "device=cpu"],
    "count=256": ["count=8", "device=cpu", "step_counts=[1,2]"],
}

TAKE_WORDS = ("report", "checkpoint", "status", "dashboard", "sync", "doctor")  # and no overrides


def shortened(arguments: list[str]) -> list[str]:
    return [word for argument in arguments for word in SHORTER.get(argument, [argument])]


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A folder in which someone has followed the README step by step, in small."""
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_synthetic_images(folder / "pictures", 24, size=20)
        for name, arguments in readme_steps():
            succeed(name, *shortened(arguments))
    return folder


@pytest.mark.slow
def test_the_readmes_steps_produce_a_report(followed):
    made = followed / "runs" / "mine"
    assert (made / "report.html").read_text().rstrip().endswith("</html>")
    assert len(list((made / "flow" / "samples").glob("*.png"))) == 4
    for run in ("flow", "baseline"):
        assert (made / run / "results" / "results.json").is_file()


@pytest.mark.slow
def test_the_readmes_python_generates_images_with_the_models_of_its_steps(followed, monkeypatch):
    monkeypatch.chdir(followed)
    (code,) = fenced((ROOT / "README.md").read_text(), "python")
    found: dict = {}
    exec(code, found)
    assert found["images"].shape == (16, 1, 16, 16)
    facts = RunFolder(followed / "runs/mine/flow").exported_facts()
    assert found["pipeline"].width == (facts["prior_scale"], facts["prior_widening"]) != (1, 0)


def quoted_commands():
    """Each command once, of a sweep its first point; one that several documents quote is listed for the first."""
    found = {}
    for path in DOCUMENTS:
        for block in fenced(path.read_text(), "bash"):
            for name, arguments in lediflow_commands(block):
                if name not in TAKE_WORDS:
                    point = [first_value(word) for word in arguments if word not in ("-m", "--dry-run")]
                    found.setdefault((name, *point), pytest.param(name, point, id=f"{path.stem}-{name}"))
    return found.values()


def first_value(argument: str) -> str:
    """The first value of a sweep `key=a,b`; a list or a dictionary counts as one value."""
    return argument if set("[{") & set(argument) else argument.split(",")[0]


@pytest.mark.parametrize(("name", "arguments"), quoted_commands())
def test_every_command_in_the_documents_composes(name, arguments, tmp_path, monkeypatch):
    if name == "submit":
        monkeypatch.chdir(tmp_path)
        for source in (argument for argument in arguments if argument.startswith("source=")):
            (tmp_path / source.removeprefix("source=")).mkdir(parents=True)
        succeed("submit", *arguments, "--dry-run")
        return
    compose_raw(name, *(undashed(arguments, {"watch": "RUN"}) if name == "evaluate" else arguments))
