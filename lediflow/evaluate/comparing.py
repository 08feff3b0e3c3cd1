"""Finished results of two runs, paired by seed: which is better, or that the images do not say.

Rows of the same solver, steps and temperature are compared. Image i of both began with the same noise and the
photographs are the same, so what both have in common cancels, and far fewer images decide than two intervals would.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lediflow.config.schema import EvaluateCommand
from lediflow.errors import UserError
from lediflow.evaluate.rows import influence_file
from lediflow.evaluation.compare import Measured, compare
from lediflow.evaluation.results import RESULTS, birth_certificate, claim_results, read_results, write_results

Row = dict[str, Any]
Setting = tuple[str, int, float]


def compare_results(command: EvaluateCommand) -> dict[str, Any]:
    """A verdict on the first folder's rows against the second's, for every setting that both have."""
    if len(command.results) != 2:
        raise UserError(
            f"mode=compare takes two folders that this command wrote, found {len(command.results)}: "
            "'results=[RUN_A/results,RUN_B/results]'"
        )
    if command.output:
        claim_results(Path(command.output))
    first, second = (Path(folder) for folder in command.results)
    ours, theirs = rows_of(first), rows_of(second)
    shared = [setting for setting in ours if setting in theirs]
    if not shared:
        raise UserError(
            f"{first} has rows for {settings_text(ours)}, {second} for {settings_text(theirs)}: none is in both; "
            "evaluate the runs with the same solver, steps and temperature"
        )
    rows = [verdict(first, ours[setting], second, theirs[setting]) for setting in shared]
    for row in rows:
        print(sentence(row))
    results = {"a": str(first.absolute()), "b": str(second.absolute()), "rows": rows}
    if command.output:
        write_results(Path(command.output) / RESULTS, results, birth_certificate(seed=None))
    return results


def rows_of(folder: Path) -> dict[Setting, Row]:
    """By setting; several runs of a grid cannot be told apart here."""
    rows = read_results(folder / RESULTS)["results"]["rows"]
    found = {(row["solver"], row["steps"], row["temperature"]): row for row in rows if "solver" in row}
    if not found or len(found) < len(rows):
        raise UserError(
            f"{folder} does not hold the rows of one run; give the results of `lediflow.evaluate run=...`, one run each"
        )
    return found


def verdict(first: Path, ours: Row, second: Path, theirs: Row) -> Row:
    """One setting: the difference, its interval and the word for it."""
    a, b = (Measured.load(influence_file(folder, row)) for folder, row in ((first, ours), (second, theirs)))
    names = ("solver", "steps", "temperature", "mmd_name")
    values = {"mmd_a": ours["mmd_unbiased"], "mmd_b": theirs["mmd_unbiased"]}
    return {name: ours[name] for name in names} | values | asdict(compare(a, b))


def sentence(row: Row) -> str:
    low, high = row["interval"]
    return (
        f"{row['solver']} {row['steps']} steps: {row['mmd_name']} {row['mmd_a']:.3f} against {row['mmd_b']:.3f}, "
        f"difference {row['difference']:+.3f} [{low:+.3f}, {high:+.3f}]: {row['verdict']}"
    )


def settings_text(rows: dict[Setting, Row]) -> str:
    return ", ".join(f"{solver} {steps} (temperature {temperature:g})" for solver, steps, temperature in rows)
