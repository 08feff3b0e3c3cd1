"""The options of the runs, and where runs of one stage differ. Tokens and passwords are removed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lediflow.records import RecordError, leaves
from lediflow.report.content import Configuration
from lediflow.report.runs import RunRecord
from lediflow.stages import STAGES
from lediflow.tracking.secrets import without_secrets

# of one start, or different in every run
NOT_COMPARED = ("dry_run", "dry_run_ranks", "nodes", "paths", "per_stage", "run")


def configurations(runs: Sequence[RunRecord]) -> list[Configuration]:
    """The options of each stage's runs; runs whose options cannot be read are left out."""
    known = {run.folder.root: options for run in runs if (options := options_of(run)) is not None}
    found = []
    for stage in dict.fromkeys(run.stage for run in runs):
        own = [run for run in runs if run.stage == stage and run.folder.root in known]
        if own:
            kind = STAGES[stage].curve if stage in STAGES else None
            own_options = [known[run.folder.root] for run in own]
            found.append(
                Configuration(
                    title=kind.title if kind else stage,
                    runs=[run.title for run in own],
                    differing=differing(own_options),
                    options=own_options,
                )
            )
    return found


def options_of(run: RunRecord) -> dict[str, str] | None:
    """The resolved options of a run's last start as texts, by dotted name; None if they cannot be read."""
    try:
        options = without_secrets(run.folder.recorded_options())
    except RecordError:
        return None
    return {key: option_text(value) for key, value in leaves(options, in_lists=True)}


def differing(options: Sequence[Mapping[str, str]]) -> dict[str, list[str | None]]:
    """Options with more than one value, with the value of each run."""
    names = dict.fromkeys(
        name for one in options for name in one if name.partition(".")[0] not in NOT_COMPARED
    )
    rows = {name: [one.get(name) for one in options] for name in names}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


def option_text(value: Any) -> str:
    """A value as YAML and JSON write it."""
    return value if isinstance(value, str) and value else json.dumps(value)
