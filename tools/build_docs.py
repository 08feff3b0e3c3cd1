"""Build the documentation as a site of HTML pages: `make docs`, then open build/docs/index.html.

    python tools/build_docs.py [--output build/docs]

The pages are README.md, docs/*.md and those in PAGES, with their links changed to the site's names, and a reference of
the functions in MODULES from their docstrings. Sphinx, with MyST for Markdown and the theme Furo, draws them; a link
that leads nowhere, and any other warning, ends with status 1.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# pages beside those of docs/, by their names on the site
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "tools/README.md": "tools.md",
    "release/solar_cells/README.md": "solar_cells.md",
    "slurm/README.md": "slurm_files.md",
    "slurm/testcluster/README.md": "testcluster.md",
}
# the order of the pages in the menu; a page of docs/ that is not here is an error
MENU = {
    "Use": [
        *("data", "training", "checkpoints", "sampling", "solvers", "evaluation", "tracking"),
        *("configuration", "demo", "solar_cells"),
    ],
    "Clusters": ["slurm", "operations", "slurm_files", "testcluster"],
    "Applications": ["editing", "anonymising", "studio"],
    "Results": [
        *("results", "results_comparison", "results_flow_maps", "results_widths", "results_sampler"),
        *("results_few_pictures", "results_settings", "results_experiments"),
    ],
    "Speed": ["performance", "performance_gpus", "performance_data", "performance_experiments"],
    "Method": ["theory", "models", "glossary"],
    "Code": [
        *("architecture", "walkthrough", "extending", "reference", "tools", "contributing", "changelog"),
    ],
}
MODULES = (
    "lediflow.flow.losses",
    "lediflow.flow.solvers",
    "lediflow.nn.neighborhood",
    "lediflow.models.export",
    "lediflow.models.convert",
    "lediflow.sampling.pipeline",
    "lediflow.sampling.options",
    "lediflow.editing.pipeline",
    "lediflow.evaluation.cmmd",
)
CONFIGURATION = """
project = "LeDiFlow"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "LeDiFlow"
html_copy_source = False
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": False}
suppress_warnings = ["misc.highlighting_failure", "docutils"]  # shell excerpts; docstrings are Markdown, not reST
"""
LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^)\s#]+)(#[^)\s]*)?\)")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "docs")
    output = parser.parse_args().output
    source = output.with_name(f"{output.name}-source")
    assemble(source)
    from sphinx.cmd.build import build_main  # of the extra `docs`

    status = build_main(["-q", "-W", "--keep-going", "-b", "html", str(source), str(output)])
    if status == 0:
        print(f"documentation: {output / 'index.html'}")
    sys.exit(status)


def assemble(source: Path) -> None:
    """Write the pages as Sphinx reads them."""
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    shutil.copytree(ROOT / "docs" / "images", source / "images")
    for picture in (ROOT / "release").glob("*/*.png"):
        shutil.copy(picture, source / "images" / released(picture))
    files = {path: path.name for path in sorted((ROOT / "docs").glob("*.md"))}
    files |= {ROOT / path: name for path, name in PAGES.items()}
    menu = {f"{name}.md" for names in MENU.values() for name in names}
    if differing := {"index.md", "reference.md", *menu} ^ {"reference.md", *files.values()}:
        sys.exit(
            f"menu and pages differ: {', '.join(sorted(differing))}; correct MENU in tools/build_docs.py"
        )
    for path, name in files.items():
        text = with_links_of_site(path, files)
        (source / name).write_text(text + (toctrees() if name == "index.md" else ""))
    (source / "reference.md").write_text(reference())
    (source / "conf.py").write_text(CONFIGURATION)


def with_links_of_site(path: Path, files: dict[Path, str]) -> str:
    """A page whose links lead to pages of the site; links to other files of the repository become their names."""

    def changed(match: re.Match[str]) -> str:
        words, target, anchor = match.groups(default="")
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        there = (path.parent / target).resolve()
        if there in files:
            return f"{words}({files[there]}{anchor})"
        if there.is_relative_to(ROOT / "docs" / "images"):
            return f"{words}({there.relative_to(ROOT / 'docs')})"
        if there.suffix == ".png" and there.is_relative_to(ROOT / "release"):
            return f"{words}(images/{released(there)})"
        if not there.exists():
            sys.exit(f"{path.relative_to(ROOT)}: the link to {target} leads nowhere")
        return words.strip("![]") if words.strip("![]").startswith("`") else f"`{words.strip('![]')}`"

    return LINK.sub(changed, path.read_text())


def released(picture: Path) -> str:
    """The name on the site of a picture of a model card."""
    return f"{picture.parent.name}-{picture.name}"


def toctrees() -> str:
    """The menu."""
    parts = [
        "\n```{{toctree}}\n:hidden:\n:caption: {}\n\n{}\n```\n".format(caption, "\n".join(names))
        for caption, names in MENU.items()
    ]
    return "".join(parts)


def reference() -> str:
    """The page of functions and classes."""
    lines = ["# Reference", "", "Functions and classes that programs may use, from their docstrings.", ""]
    for name in MODULES:
        lines += [f"## {name}", "", "```{eval-rst}", f".. automodule:: {name}", "```", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
