"""A process that has imported everything, and forks: `python -m harness.fork_server MODULE`.

It reads a wish a line, as JSON, and answers with a line: {"arguments", "env", "output"} starts MODULE.main(arguments)
and gives the process id, {"ended": id} gives the exit status, null while the process lives (-9: ended by SIGKILL).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable

import deepspeed  # noqa: F401 - so that no child must

Main = Callable[[list[str]], None]


def serve(main: Main) -> None:
    for line in sys.stdin:
        wish = json.loads(line)
        print(json.dumps(ended(wish["ended"]) if "ended" in wish else fork(main, **wish)), flush=True)


def fork(main: Main, arguments: list[str], env: dict[str, str], output: str) -> int:
    """Start a child in a process group of its own; its process id."""
    if child := os.fork():
        return child
    status = 1
    try:
        os.setsid()
        os.environ.update(env)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        written = os.open(output, os.O_WRONLY)
        os.dup2(written, 1)
        os.dup2(written, 2)
        main(arguments)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def ended(child: int) -> int | None:
    found, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


if __name__ == "__main__":
    serve(importlib.import_module(sys.argv[1]).main)
