"""`lediflow COMMAND ...`, also `python -m lediflow COMMAND ...`: the same as `python -m lediflow.COMMAND ...`."""

from __future__ import annotations

import difflib
import runpy
import sys

from lediflow.errors import BAD_REQUEST

COMMANDS = {
    "prepare": "write square pictures from photographs into shards",
    "encode": "encode shards of pictures with a codec",
    "train": "train one stage",
    "checkpoint": "list, verify and export the checkpoints of a run",
    "sample": "generate images",
    "evaluate": "measure quality and cost",
    "report": "write one page about runs",
    "export": "write finished models into one folder, with a model card",
    "edit": "edit photographs",
    "studio": "try models on a page in the browser",
    "submit": "queue jobs and pipelines on SLURM",
    "status": "show, cancel and resume jobs",
    "sync": "write the W&B run of a run folder",
    "doctor": "check this machine before a long run",
    "dashboard": "save dashboards at W&B",
}


def main() -> None:
    words = sys.argv[1:]
    if not words or words[0] in ("--help", "-h"):
        print("lediflow COMMAND ...; each command has --help:\n")
        print("\n".join(f"  {name:<12}{does}" for name, does in COMMANDS.items()))
        sys.exit(0 if words else BAD_REQUEST)
    name, *arguments = words
    if name not in COMMANDS:
        near = [f"; did you mean {word}?" for word in difflib.get_close_matches(name, COMMANDS, n=1)]
        print(f"error: {name} is not a command: {', '.join(COMMANDS)}{''.join(near)}", file=sys.stderr)
        sys.exit(BAD_REQUEST)
    sys.argv[:] = [f"lediflow {name}", *arguments]
    runpy.run_module(f"lediflow.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
