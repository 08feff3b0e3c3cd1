"""The table of quality by the number of photographs that all models are trained on."""

from __future__ import annotations

from pathlib import Path

from pages.markdown import number, table
from pages.stored import CAMPAIGN, Results, by_key, results

FACES = ("small_wide_faces1000", "small_wide_faces4000", "small_faces64")  # campaigns with the same settings
START = "k3s0.5"  # of LeDiFlow's flow
FIRST_CHAIN = "base"  # whose auxiliary model and sampler it has
BY_PHOTOGRAPHS = (("fm", 8), ("fm", 16), ("flow", 2), ("flow", 4))


def block(root: Path) -> str:
    """Quality by the number of photographs that all models are trained on."""
    body = [row for name in FACES for row in photographs_rows(results(root / CAMPAIGN / f"{name}.json"))]
    settings = [f"{'FM' if which == 'fm' else 'LeDiFlow'} {nfe}" for which, nfe in BY_PHOTOGRAPHS]
    return "\n".join(table(["faces", "against", *settings, "images seen: FM / LeDiFlow's flow"], body))


def photographs_rows(found: Results) -> list[list[str]]:
    """MMD against the photographs of training, then against faces that no model saw, where that was measured."""
    cures, unseen, losses = found["cures"], found["unseen"], found["losses"]
    baseline = next(run for run in losses if run.startswith("fm"))
    chosen = {"fm": (FIRST_CHAIN, "gaussian", baseline), "flow": (START, "sampler", START)}
    images = [losses[run]["images_seen"] for run in (baseline, f"{START}_flow")]
    seen, others = [], []
    for which, nfe in BY_PHOTOGRAPHS:
        cure, z, run = chosen[which]
        own = by_key((row for row in cures[cure]["rows"] if row["z"] == z), evaluations, "mmd")
        other = by_key(unseen.get(run, []), evaluations, "mmd_unbiased")
        seen.append(number(own.get(nfe)))
        others.append(number(other.get(nfe)))
    faces, counts = f"{cures[START]['reference_images']:,}", " / ".join(f"{count:,}" for count in images)
    own_row = [faces, "its own photographs", *seen, counts]
    return [own_row, [faces, "other faces", *others, counts]] if any(others) else [own_row]


def evaluations(row: Results) -> int:
    found: int = row["nfe"]
    return found
