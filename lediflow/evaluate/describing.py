"""A row of results in a line."""

from __future__ import annotations

from typing import Any


def describe(row: dict[str, Any]) -> str:
    return f"{cost_of(row)}{quality_of(row)} on {row['sample_images']} images"


def cost_of(row: dict[str, Any]) -> str:
    if "steps" not in row:
        return ""
    tempered = "" if row["temperature"] == 1 else f", temperature {row['temperature']:g}"
    return f"{row['solver']} {row['steps']} steps{tempered} ({row['nfe']} NFE, {row['ms_per_image']:.1f} ms/img): "


def quality_of(row: dict[str, Any]) -> str:
    low, high = row["mmd_interval"]
    told = [
        f"{row['mmd_name']} {row['mmd_unbiased']:.3f} [{low:.3f}, {high:.3f}]",
        f"{row['frechet_name']} {row['frechet']:.3f}",
    ]
    if "against_reconstructions" in row:
        told.insert(1, f"{row['against_reconstructions']['mmd_unbiased']:.3f} against reconstructions")
    if "precision" in row:
        told.append(f"precision {row['precision']:.3f}, recall {row['recall']:.3f}")
    return ", ".join(told)
