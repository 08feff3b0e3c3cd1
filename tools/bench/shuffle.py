"""Measure how well a window of shards shuffles, and its cost in reading; uses only the order, no data.

    python tools/bench/shuffle.py --shards 70 --shard-samples 1024 --batch 64 --output results/bench_shuffle.json

Samples are assumed to be stored in the worst order, sorted by a property of interest. (`prepare` distributes them to
shards at random, so its sets are already mixed.) Columns:

spread      standard deviation of a batch's mean index in the set, relative to batches drawn at random; 1 is a
            perfect shuffle, sqrt(batch) = 8 a batch of neighbours
neighbours  distance within the epoch of samples that are stored next to each other, relative to a perfect shuffle (1)
mates       probability that two samples of one batch are in one batch again in the next epoch, relative to chance (1)
shards      distinct shards that a batch reads from
open        shards in use at the same time; whole-shard reading prefetches as many
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import numpy as np
from common import Row, command_line, machine, table, write_json
from jaxtyping import Int64

from lediflow.data.streams.order import EpochOrder

Order = Int64[np.ndarray, " samples"]


def main(arguments: list[str] | None = None) -> None:
    chosen = options(arguments)
    rows = [quality(window, chosen) for window in chosen.windows]
    print(
        f"{machine()}\n{chosen.shards} shards of {chosen.shard_samples}, batches of {chosen.batch}\n\n{table(rows)}"
    )
    if chosen.output:
        print(f"\nwritten to {write_json(chosen.output, rows)}")


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--shards", type=int, default=70)
    parser.add_argument("--shard-samples", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 2, 4, 8, 16, 0], help="0 mixes all")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--output", help="JSON file for the rows and their provenance")
    return parser.parse_args(arguments)


def quality(window: int, chosen: argparse.Namespace) -> Row:
    """The columns for one window, averaged over epochs."""
    sizes = np.full(chosen.shards, chosen.shard_samples)
    places = np.arange(sizes.sum())
    orders = [
        EpochOrder(sizes, seed=0, epoch=epoch, window=window).samples_at(places)
        for epoch in range(chosen.epochs + 1)
    ]
    pairs = [*pairwise(orders)]
    return {
        "window": str(window or "all"),
        "spread": np.mean([spread(order, chosen.batch) for order in orders]).item(),
        "neighbours": np.mean([neighbour_distance(order) for order in orders]).item(),
        "mates": np.mean([mates_again(before, after, chosen.batch) for before, after in pairs]).item(),
        "shards": np.mean([shards_per_batch(order, chosen) for order in orders]).item(),
        "open": window or chosen.shards,
    }


def batches(order: Order, batch: int) -> Int64[np.ndarray, "batches batch"]:
    return order[: len(order) // batch * batch].reshape(-1, batch)


def spread(order: Order, batch: int) -> float:
    count = len(order)
    by_chance = np.sqrt((count**2 - 1) / 12 / batch * (count - batch) / (count - 1))  # without replacement
    return batches(order, batch).mean(1).std() / by_chance


def neighbour_distance(order: Order) -> float:
    came = np.argsort(order)
    return np.abs(np.diff(came)).mean() / (len(order) / 3)


def mates_again(before: Order, after: Order, batch: int) -> float:
    batch_after = np.argsort(after) // batch
    met = np.sort(batch_after[batches(before, batch)], axis=1)
    pairs = batch * (batch - 1) / 2
    again = sum((met[:, lag:] == met[:, :-lag]).sum(1).mean() for lag in range(1, batch))
    return again / pairs / ((batch - 1) / (len(before) - 1))


def shards_per_batch(order: Order, chosen: argparse.Namespace) -> float:
    shards = np.sort(batches(order, chosen.batch) // chosen.shard_samples, axis=1)
    return 1 + (np.diff(shards, axis=1) > 0).sum(1).mean()


if __name__ == "__main__":
    main()
