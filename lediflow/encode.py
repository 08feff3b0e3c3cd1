"""`python -m lediflow.encode`: image shards -> shards of what the models learn, sample for sample."""

from __future__ import annotations

from omegaconf import DictConfig

from lediflow.config.build import typed
from lediflow.config.cli import run_command
from lediflow.config.schema import EncodeCommand
from lediflow.data.encode import encode
from lediflow.tracking.progress import progress_callback


def main() -> None:
    run_command("encode", run)


def run(config: DictConfig) -> None:
    command: EncodeCommand = typed(config)
    made = encode(command, progress_callback("encode"))
    verb = "already encoded" if made.is_reused else "encoded"
    shape = " x ".join(map(str, made.index.contents.signal_shape))
    print(f"{verb}: {len(made.index):,} samples of {shape} by {command.codec.name} in {command.output}")


if __name__ == "__main__":
    main()
