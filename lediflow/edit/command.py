"""The first word of `python -m lediflow.edit`, and words that are no names of options in Python."""

from __future__ import annotations

import difflib
import importlib
import sys

from lediflow.config.composition.command_line import run_command
from lediflow.config.submission import register_launchers
from lediflow.errors import BAD_REQUEST

TASKS = ("interpolate", "vary", "inpaint", "anonymise", "anonymity", "attribute")
WRITTEN = {"--no-metadata": "metadata=false"}
BEGINNINGS = {"with=": "with_images=", "without=": "without_images="}
USAGE = """\
Edit photographs with trained models.

  python -m lediflow.edit interpolate run=FLOW_RUN sampler=SAMPLER_RUN output=DIR images=[A,B]    frames between two
  python -m lediflow.edit vary        run=FLOW_RUN sampler=SAMPLER_RUN output=DIR image=FILE      other versions
  python -m lediflow.edit inpaint     run=FLOW_RUN sampler=SAMPLER_RUN output=DIR image=FILE mask=FILE
                                                                                                  new pixels in a mask
  python -m lediflow.edit anonymise   run=FLOW_RUN sampler=SAMPLER_RUN output=DIR source=DIR masks=DIR key=FILE
                                                                                                  other faces
  python -m lediflow.edit anonymity   run=FLOW_RUN sampler=SAMPLER_RUN output=DIR source=DIR key=FILE
                                                                                                  how well they hide
  python -m lediflow.edit attribute   run=FLOW_RUN sampler=SAMPLER_RUN output=DIR with=DIR without=DIR image=FILE
                                                                                      more and less of an attribute
Each has --help."""


def main() -> None:
    words = sys.argv[1:]
    if not words or words[0] in ("--help", "-h"):
        print(USAGE)
        sys.exit(0 if words else BAD_REQUEST)
    name, *arguments = words
    if name not in TASKS:
        near = [f"; did you mean {word}?" for word in difflib.get_close_matches(name, TASKS, n=1)]
        print(
            f"error: lediflow.edit {name}: the first word is one of {', '.join(TASKS)}{''.join(near)}",
            file=sys.stderr,
        )
        sys.exit(BAD_REQUEST)
    sys.argv[1:] = [as_option(word) for word in arguments]
    task = importlib.import_module(f"lediflow.edit.{name}")
    run_command(f"edit_{name}", task.run, register_launchers)


def as_option(word: str) -> str:
    """A word of the command line with the name that the option has in Python."""
    for beginning, name in BEGINNINGS.items():
        if word.startswith(beginning):
            return name + word.removeprefix(beginning)
    return WRITTEN.get(word, word)
