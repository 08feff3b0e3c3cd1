"""The comparison's sets and methods by name, and a set with its numbers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

SETS = {
    "faces64": "Faces",
    "pets64": "Cats and dogs",
    "anime64": "Drawn faces",
    "scenes64": "Landscapes and streets",
    "landscapes128": "Landscapes, 128 x 128",
    "faces256c": "Faces, 256 x 256 as latents",
}
# of a set, with other models
OTHERS = {
    "scenes64_classes": "Landscapes and streets, by class",
    "scenes64_small": "Landscapes and streets, small models",
}
METHODS = {
    "fm": "FM",
    "ot": "OT-CFM",
    "paper": "LeDiFlow as in the paper",
    "auto": "LeDiFlow, default start",
    "wide": "LeDiFlow, wide start",
    "fm_map": "flow map of FM",
    "fm_reflow": "FM, straightened",
    "auto_map": "flow map of LeDiFlow, default start",
    "wide_map": "flow map of LeDiFlow, wide start",
    "both_maps": "flow maps of LeDiFlow (wide start) and of its sampler",
    "long_map": "flow map of LeDiFlow, wide start, distilled on three times as many images",
    "wide_mean": "flow map of LeDiFlow, wide start, by MeanFlow",
}
FLOWS, MAPS = ("auto", "wide"), ("auto_map", "wide_map", "both_maps")  # LeDiFlow with what was found
WITH_MAPS = (*FLOWS, *MAPS)
FROM_NOISE = ("fm", "ot", "fm_map", "fm_reflow")
STRAIGHT = ("fm_reflow",)  # sampled by Euler steps
COLUMNS = {1: "euler", 2: "midpoint", 4: "midpoint", 6: "heun3", 8: "midpoint", 12: "heun3", 16: "midpoint"}
MAP_CALLS = (1, 2, 4)


class Cell(NamedTuple):
    """The MMD of a method at a number of evaluations: a mean over seeds."""

    value: float
    half: float  # of a 95 % interval
    held_out: float | None = None  # against held-out photographs
    held_out_half: float = 0.0
    seeds: int = 1
    decoded: float | None = None  # against a codec's reconstructions
    decoded_half: float = 0.0


@dataclass
class Compared:
    """A set, and its methods by number of evaluations."""

    name: str
    title: str
    cells: dict[str, dict[int, Cell]]
    images: int
    reference_images: int
    mmd_name: str
    held_out_images: int = 0
    starts: dict[str, tuple[float, float]] = field(default_factory=dict)  # k and s
    copies: dict[str, dict[str, float]] = field(
        default_factory=dict
    )  # the highest shares over a method's settings
    codec_floor: float | None = None  # of the photographs to their reconstructions; None: a set of pixels

    @property
    def heading(self) -> str:
        return f"{self.title}, {self.reference_images:,} {self.noun}"

    @property
    def noun(self) -> str:
        """What its images are."""
        return "drawings" if self.name == "anime64" else "photographs"

    @property
    def columns(self) -> list[int]:
        """The numbers of evaluations at which any method was measured."""
        return [nfe for nfe in COLUMNS if any(nfe in line for line in self.cells.values())]

    def cell(self, method: str, nfe: int) -> Cell | None:
        return self.cells.get(method, {}).get(nfe)

    def against_decoded(self) -> Compared:
        """A set of latents with its distances to the codec's reconstructions instead of those to the photographs."""
        cells = {
            method: {
                nfe: Cell(cell.decoded, cell.decoded_half)
                for nfe, cell in line.items()
                if cell.decoded is not None
            }
            for method, line in self.cells.items()
        }
        return replace(self, cells=cells)
