"""`python -m lediflow.encode`: encode image shards to shards of latents."""

from __future__ import annotations

from dataclasses import replace

from omegaconf import DictConfig

from lediflow.config.composition.checks import typed
from lediflow.config.composition.command_line import run_command
from lediflow.config.composition.schema import EncodeCommand
from lediflow.config.submission import register_launchers
from lediflow.data.encode import Encoded, encode
from lediflow.data.shards.index import ShardIndex, verified
from lediflow.engine.ranks import Share, choose_device, find_share
from lediflow.errors import UserError
from lediflow.tracking.progress import progress_callback


def main() -> None:
    run_command("encode", run, register_launchers, dashed={"check": "SAMPLES"})


def run(config: DictConfig) -> None:
    asked: EncodeCommand = typed(config)
    if asked.rank and not asked.ranks:
        raise UserError(
            f"rank={asked.rank} needs the number of processes that share the work: add ranks=N, or leave rank out"
        )
    share = Share(asked.rank, asked.ranks, local_rank=asked.rank) if asked.ranks else find_share()
    device = choose_device(asked.device, share.local_rank)
    command = replace(asked, rank=share.rank, ranks=share.ranks, device=str(device))
    title = "encode" if share.ranks == 1 else f"encode, rank {share.rank} of {share.ranks}"
    for line in report(command, encode(command, progress_callback(title))):
        print(line)


def report(command: EncodeCommand, made: Encoded) -> list[str]:
    """The result of `encode`, in sentences."""
    if made.index is None:
        return [
            f"rank {command.rank} of {command.ranks} has written its shards; {made.missing} shards of other ranks are "
            "missing. The rank that writes the last one writes the index; repeat the command of a rank that was "
            "stopped"
        ]
    verb = "already encoded" if made.is_reused else "encoded"
    shape = " x ".join(map(str, made.index.contents.signal_shape))
    lines = [f"{verb}: {len(made.index):,} samples of {shape} by {command.codec.name} in {command.output}"]
    lines += rounding(made.index)
    if command.verify:
        lines.append(verified(made.index))
    return [*lines, made.check.sentence()] if made.check else lines


def rounding(index: ShardIndex) -> list[str]:
    """The error from storing latents in float16, over all channels, as a sentence; none for other dtypes."""
    statistics = index.contents.statistics or {}
    if "mean_error_max" not in statistics:
        return []
    worst, rms = max(statistics["mean_error_max"]), max(statistics["mean_error_rms"])
    line = (
        f"stored in float16: means are off by {rms:.1e} of a channel's deviation (rms), {worst:.1e} at most"
    )
    if "logvar_error_max" in statistics:
        worst, rms = max(statistics["logvar_error_max"]), max(statistics["logvar_error_rms"])
        line += f"; log-variances by {rms:.1e}, {worst:.1e} at most"
    return [line]


if __name__ == "__main__":
    main()
