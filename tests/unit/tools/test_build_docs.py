"""The pages of the documentation's site: all are in its menu, and their links lead to pages of it."""

import importlib
import re
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[3] / "tools"


@pytest.fixture(scope="module")
def build_docs():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        yield importlib.import_module("build_docs")


@pytest.fixture(scope="module")
def site(build_docs, tmp_path_factory):
    source = tmp_path_factory.mktemp("site") / "source"
    build_docs.assemble(source)
    return source


def test_links_lead_to_pages_and_pictures_of_the_site(site):
    links = 0
    for page in site.glob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                links += 1
                assert (site / target).is_file(), f"{page.name}: {target}"
    assert links > 200


def test_links_to_other_files_of_the_repository_become_their_names(site):
    assert "versions of `constraints.txt`. The C compiler" in (site / "index.md").read_text().replace(
        "\n", " "
    )
    assert "](slurm_files.md)" in (site / "slurm.md").read_text()


def test_a_page_that_is_missing_in_the_menu_and_a_broken_link_are_named(build_docs, tmp_path, monkeypatch):
    broken = tmp_path / "page.md"
    broken.write_text("[there](nowhere.md)")
    monkeypatch.setattr(build_docs, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match=r"page\.md: the link to nowhere\.md leads nowhere"):
        build_docs.with_links_of_site(broken, {})
    monkeypatch.undo()
    monkeypatch.setitem(build_docs.MENU, "Use", ["data"])
    with pytest.raises(SystemExit, match=r"menu and pages differ: .*training\.md"):
        build_docs.assemble(tmp_path / "other")
