"""`python -m lediflow.prepare`: convert photographs to shards of square images.

Worker processes import this module again, because spawned processes import the main module. Imports that only the
command needs are inside its functions, so that workers start fast and need little memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    from lediflow.config.composition.command_line import run_command
    from lediflow.config.submission import register_launchers

    run_command("prepare", run, register_launchers)


def run(config: DictConfig) -> None:
    from lediflow.config.composition.checks import typed
    from lediflow.config.composition.schema import PrepareCommand
    from lediflow.data.prepare import prepare
    from lediflow.data.shards.index import verified
    from lediflow.tracking.progress import progress_callback

    command: PrepareCommand = typed(config)
    made = prepare(command, progress_callback)
    verb = "already prepared" if made.is_reused else "prepared"
    rejected = sum(made.rejected.values())
    print(f"{verb}: {len(made.index):,} images of {command.size} x {command.size} in {command.output}")
    if rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(made.rejected.items()))
        print(f"skipped: {rejected:,} ({reasons}); listed in {command.output}/rejected.jsonl")
    for note in made.notes:
        print(note)
    if command.verify:
        print(verified(made.index))


if __name__ == "__main__":
    main()
