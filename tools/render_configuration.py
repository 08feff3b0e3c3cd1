"""Render docs/configuration.md from the dataclasses of the commands' options.

The description of an option is the comment at its field, so that page and code agree.

    python tools/render_configuration.py             write the page
    python tools/render_configuration.py --check     exit 1 if the page is out of date
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import io
import sys
import textwrap
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import yaml

from lediflow.config.composition.schema import COMMANDS
from lediflow.nn.specs import LevelSpec
from lediflow.ranges import range_of
from lediflow.stages import STAGES

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "configuration.md"
CONF = ROOT / "conf"

GROUPS = ("experiment", "model", "engine", "tracking", "codec")
CHOSEN_BY_GROUP = ("model.",)  # options that every file of a group sets
LAUNCHERS = "hydra/launcher"

INTRODUCTION = """\
# Configuration

Rendered by `tools/render_configuration.py` from the comments at the dataclasses' fields; do not edit by hand.

Every command accepts `key=value` (set an option) and `group=name` (choose a file of `conf/`). `--cfg job` prints the
configuration of a command line, `--help` the options. An unknown name is rejected, with the nearest known names;
an option of the command line that has no effect with the others is named in a warning.

String options (folders, files, names) are taken literally: `output=2024_05_03`, `source=/data/ü (1)`,
`run=runs/a,b=c`; quote the argument if the shell needs it. Exceptions: `null` is no value (a folder of that name is
`./null`), `${key}` is another option's value (`\\${` for the characters), and in a sweep (`-m`, `lediflow.submit`) a
comma separates values unless a file or folder has the whole name. Quotes inside the argument, `'run="a,b"'`, make a
value literal in every case. All other options follow Hydra's grammar.

Numbers out of range are rejected with exit status 2; in a list, the range applies to each value. NaN is never in range,
and infinity only if "inf" is listed.

The column "default" is the value unless an experiment or another file of `conf/` sets one: `experiment=demo`, for
instance, sets the length of the run for each stage.
`checkpoint`, `dashboard`, `doctor`, `report`, `status` and `sync` have flags instead of these options, which `--help`
lists.
"""


class Option(NamedTuple):
    key: str
    default: str
    range: str
    meaning: str


def page() -> str:
    """The whole document."""
    parts = [INTRODUCTION, groups_section()]
    parts += [command_section(name, command) for name, command in COMMANDS.items()]
    parts += [stages_section(), level_section()]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def groups_section() -> str:
    """The choices of each group, with the first comment of each file."""
    lines = [
        "## Groups",
        "",
        "`group=name` applies a whole file of `conf/`.",
        "",
        "| choice | description |",
        "|---|---|",
    ]
    for group in GROUPS:
        files = sorted((CONF / group).glob("*.yaml"))
        lines += [f"| `{group}={path.stem}` | {cell(first_comment(path))} |" for path in files]
    lines.append(
        f"| `-m {LAUNCHERS}=submitit_slurm` | one SLURM job for each combination of values (extra `cluster`) |"
    )
    return "\n".join(lines) + "\n"


def first_comment(path: Path) -> str:
    """The comment at the beginning of a YAML file, up to the first line that ends a sentence; not @package."""
    lines = [line.lstrip("# ").strip() for line in path.read_text().splitlines() if line.startswith("#")]
    lines = [line for line in lines if not line.startswith("@package")]
    last = next((number for number, line in enumerate(lines) if line.endswith(".")), 0)
    return " ".join(lines[: last + 1])


def command_section(name: str, command: type) -> str:
    chosen = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    options = [with_yaml_default(option, chosen) for option in options_of(command)]
    words = name.replace("_", " ")  # of edit, the second is its first argument
    return "\n".join([f"## `python -m lediflow.{words}`", "", *table(options)]) + "\n"


def with_yaml_default(option: Option, chosen: dict[str, Any]) -> Option:
    """The default that the command's own YAML gives to an option, if it gives one."""
    value: Any = chosen
    for name in option.key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return option._replace(default=shown(value)) if isinstance(value, str) else option


def stages_section() -> str:
    lines = ["## Stages", "", "Options of `python -m lediflow.train` that depend on `stage=`."]
    for name, kind in STAGES.items():
        options = [option for option in options_of(kind.options, "stage.") if option.key != "stage.name"]
        lines += ["", f"### `stage={name}`", "", *(table(options) if options else ["No options of its own."])]
    return "\n".join(lines) + "\n"


def level_section() -> str:
    lines = [
        "## Levels",
        "",
        inspect.getdoc(LevelSpec) or "",
        "",
        "One entry of a model's `levels`; they are listed from fine to coarse.",
        "",
    ]
    return "\n".join([*lines, *table(options_of(LevelSpec))]) + "\n"


def table(options: Iterator[Option] | list[Option]) -> list[str]:
    rows = [
        f"| `{option.key}` | {option.default} | {option.range} | {cell(option.meaning)} |"
        for option in options
    ]
    return ["| option | default | range | meaning |", "|---|---|---|---|", *rows]


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def options_of(config: type, prefix: str = "", chosen: Any = None) -> Iterator[Option]:
    """Every option of a dataclass; those of nested dataclasses come last.

    `chosen` is the instance that is the default of the outer dataclass's field, if any.
    """
    hints = get_type_hints(config)
    values = {field.name: default_value(field, chosen) for field in dataclasses.fields(config)}
    nested = [name for name in values if dataclasses.is_dataclass(hints[name])]
    for name in (name for name in values if name not in nested):
        default = shown_default(values[name], hints[name], prefix)
        limits = range_of(config, name)
        yield Option(prefix + name, default, str(limits) if limits else "", comment_of(config, name))
    for name in nested:
        yield from options_of(hints[name], f"{prefix}{name}.", values[name])


def default_value(field: dataclasses.Field, chosen: Any) -> Any:
    if dataclasses.is_dataclass(chosen):
        return getattr(chosen, field.name)
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def shown_default(value: Any, hint: Any, prefix: str) -> str:
    """A default as it is written on a command line, or where it is set."""
    if get_origin(hint) is list and dataclasses.is_dataclass(get_args(hint)[0]):
        return "a list, see [levels](#levels)"
    if value is dataclasses.MISSING or value == "???":
        return "set by `model=`" if prefix.startswith(CHOSEN_BY_GROUP) else "required"
    return shown(value)


def shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        value = {None: "null", True: "true", False: "false"}[value]
    return f"`{value}`" if value != "" else "empty"


def comment_of(config: type, name: str) -> str:
    """The comment at a field, from the class that declares it."""
    for owner in config.__mro__:
        comments = field_comments(owner) if dataclasses.is_dataclass(owner) else {}
        if name in comments:
            return comments[name]
    return ""


@cache
def field_comments(config: type) -> dict[str, str]:
    """Field name -> the comment on own lines directly above its declaration and on the declaration's lines."""
    source = textwrap.dedent(inspect.getsource(config))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {
        token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT
    }
    (declaration,) = ast.parse(source).body
    assert isinstance(declaration, ast.ClassDef)
    return {
        node.target.id: " ".join(comments[line] for line in lines_of(node, source) if line in comments)
        for node in declaration.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def lines_of(node: ast.stmt, source: str) -> range:
    """Line numbers of a declaration and of the comment above it."""
    lines, first = source.splitlines(), node.lineno
    while lines[first - 2].lstrip().startswith("#"):
        first -= 1
    return range(first, (node.end_lineno or node.lineno) + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if the page is out of date"
    )
    text = page()
    if not parser.parse_args().check:
        PAGE.write_text(text)
    elif PAGE.read_text() != text:
        sys.exit(f"{PAGE.name} is out of date; run: python tools/render_configuration.py")


if __name__ == "__main__":
    main()
