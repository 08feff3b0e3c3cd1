"""Milliseconds an image of the compared methods, from tools/bench/sampling.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pages.comparison.sets import FROM_NOISE
from pages.stored import Results, alike, bench, by_key, results

# of the compared networks, or if these were not measured, of the paper's
BENCHES = (
    tuple(f"bench_sampling_campaign64{part}_h200" for part in ("", "_one", "_maps", "_maps_one")),
    ("bench_sampling_batch_h200", "bench_sampling_one_h200", "bench_sampling_jump_h200"),
)
BATCHES = (1, 64)
FM, LEDIFLOW, JUMP = "FM", "LeDiFlow", "jump"
SAMPLER_CALLS = 8
Place = tuple[str, str, int, str, int]  # part, method, batch, solver, evaluations


@dataclass
class Times:
    """Milliseconds an image by part, method, batch, solver and evaluations: those of one network, on one GPU."""

    rows: dict[Place, float]
    about: Results  # a row of the benchmark

    def chain(self, method: str, nfe: int, batch: int) -> float | None:
        """A method's whole chain; None if it is unknown.

        Flows that were not measured at `nfe` evaluations take as long for each as those that were, which differ by 1 %.
        """
        kind, is_map = kind_of(method), method.endswith(("_map", "_maps", "_mean"))
        measured = {
            solver: spent
            for (part, whose, size, solver, count), spent in self.rows.items()
            if (part, whose, size, count) == ("chain", kind, batch, nfe) and (solver == JUMP) == is_map
        }
        # measured chains of LeDiFlow's maps have a sampler's map
        is_of_parts = kind != FM and is_map and method != "both_maps"
        if measured and not is_of_parts:
            return median(measured.values())
        flows = {
            count: spent
            for (part, whose, size, solver, count), spent in self.rows.items()
            if (part, whose, size) == ("flow", kind, batch) and (solver == JUMP) == is_map
        }
        if not flows or method == "both_maps":
            return None
        flow = flows.get(nfe, nfe * median(spent / count for count, spent in flows.items()))
        if kind == FM:
            return flow
        others = [
            self.rows.get(("sampler", kind, batch, "midpoint", SAMPLER_CALLS)),
            self.rows.get(("decoder", kind, batch, "", 0)),
        ]
        return None if None in others else flow + sum(part for part in others if part is not None)

    def call_overhead(self) -> str:
        """What Python and the wait for the images add to a chain, by batch size, where both were measured."""
        added: dict[int, list[float]] = {}
        for (part, kind, batch, solver, nfe), spent in self.rows.items():
            chain = self.rows.get(("chain", kind, batch, solver, nfe))
            if part == "call" and chain is not None:
                added.setdefault(batch, []).append(batch * (spent - chain))
        if not added:
            return ""
        ranges = [
            f"{min(found):.1f} to {max(found):.1f} ms at batch {batch}"
            for batch, found in sorted(added.items())
        ]
        return (
            " The factors are of chains on the GPU alone; by the wall clock a call takes longer: "
            f"{' and '.join(ranges)}."
        )


def kind_of(method: str) -> str:
    """The chain of a method, as the benchmark names it."""
    return FM if method in FROM_NOISE else LEDIFLOW


def read_times(root: Path) -> Times | None:
    """The times of the compared networks, or of the paper's; None without benchmarks. UserError for a part of them."""
    for names in BENCHES:
        if any((root / bench(name)).is_file() for name in names):
            files = [results(root / bench(name))["rows"] for name in names]
            about = alike([row for rows in files for row in rows], "model", "precision")
            found: dict[Place, float] = {}
            for rows in files:  # each has the decoder's time
                found |= by_key(rows, place, "ms/img")
            return Times(found, about)
    return None


def place(row: Results) -> Place:
    """Part, method, batch, solver and evaluations; a decoder has neither of the last two."""
    return row["part"], row["method"], row["batch"], row.get("solver", ""), row.get("NFE", 0)
