"""`python -m lediflow.prepare`: photographs -> shards of square pictures."""

from __future__ import annotations

from omegaconf import DictConfig

from lediflow.config.build import typed
from lediflow.config.cli import run_command
from lediflow.config.schema import PrepareCommand
from lediflow.data.prepare import prepare
from lediflow.tracking.progress import progress_callback


def main() -> None:
    run_command("prepare", run)


def run(config: DictConfig) -> None:
    command: PrepareCommand = typed(config)
    made = prepare(command, progress_callback)
    verb = "already prepared" if made.is_reused else "prepared"
    rejected = sum(made.rejected.values())
    print(f"{verb}: {len(made.index):,} images of {command.size} x {command.size} in {command.output}")
    if rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(made.rejected.items()))
        print(f"skipped: {rejected:,} ({reasons}); listed in {command.output}/rejected.jsonl")


if __name__ == "__main__":
    main()
