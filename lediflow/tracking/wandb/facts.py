"""What a run folder says about its run besides the event log: options and origin, results, exported models.

Every text passes `without_secrets`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from lediflow.disk import hash_key, sha256_of
from lediflow.records import Record, RecordError, object_if_any
from lediflow.run_folder import RunFolder
from lediflow.tracking.event_log import RESUME, START, numbers
from lediflow.tracking.secrets import without_secrets
from lediflow.tracking.wandb.log_index import IndexedLog
from lediflow.tracking.wandb.record import run_id_of

EVALUATION = "evaluation"  # the event of `evaluate --watch`; results of other evaluations join its curves
PARENTS = ("parent", "teacher", "warm_start")  # facts of an export about the weights that it was trained with
SETTING = ("steps", "temperature", "seed")  # numbers of a row that say what was measured
# of each start, in the events `start` and `resume`
ATTEMPT = ("commit", "version", "command", "host", "job", "restart")
SHOWN_RESULTS = (".json", ".md", ".png", ".svg")  # files of results that are sent
IN_THE_LOG = "checkpoints"  # folder of results whose numbers are events already
LARGEST_BYTES = 32 * 2**20  # of a file of results that is sent


class Result(NamedTuple):
    """Numbers of a file of results, at the place of the weights that were measured."""

    images_seen: int
    values: dict[str, float]


class Model(NamedTuple):
    """An exported model, as an artifact: equal weights give an equal artifact, whichever run sends it."""

    name: str
    folder: Path
    sha256: str
    facts: dict[str, Any]

    @property
    def files(self) -> list[Path]:
        return [self.folder / name for name in ("model.safetensors", "config.json")]


# --- options and origin


def run_config(folder: RunFolder, log: IndexedLog) -> dict[str, Any]:
    """The options of the run, and under `run_facts` its folder, code, attempts and the weights it depends on."""
    try:
        options: dict[str, Any] = folder.recorded_options()
    except RecordError:  # training has not begun, or stopped before it wrote them
        options = {}
    starts = attempts(log)
    newest = starts[-1] if starts else {}
    about = {
        "folder": str(folder.root.resolve()),
        "commit": newest.get("commit"),
        "version": newest.get("version"),
        "command": newest.get("command"),
        "slurm_jobs": list(dict.fromkeys(start["job"] for start in starts if start.get("job"))),
        "attempts": starts,
        "parents": parent_hashes(folder, options),
    }
    found: dict[str, Any] = without_secrets({**options, "run_facts": about})
    return found


def attempts(log: IndexedLog) -> list[dict[str, Any]]:
    """Place and origin of every start of the run, in their order."""
    return [
        {"images_seen": event["images_seen"], "time": event["time"]}
        | {name: event[name] for name in ATTEMPT if event.get(name) is not None}
        for event in log.named(START, RESUME)
    ]


def exported(folder: RunFolder) -> dict[str, Any]:
    """export/config.json; empty if there is none, or none that can be read."""
    try:
        return dict(folder.exported_facts()) if folder.is_exported else {}
    except RecordError:
        return {}


def parent_hashes(folder: RunFolder, options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Path and hash of the weights that the run was trained with, by role."""
    facts = exported(folder)
    if facts:
        known = {role: facts.get(role) for role in PARENTS}
        return {
            role: {key: about.get(key) for key in ("path", "sha256")}
            for role, about in known.items()
            if isinstance(about, dict)
        }
    return {
        role: {"path": path, "sha256": exported(run_of(Path(path))).get("weights_sha256")}
        for role in PARENTS
        if isinstance(path := options.get(role), str)
    }


def run_of(path: Path) -> RunFolder:
    """The run folder that a path of weights belongs to: the folder itself, or that of an export."""
    return RunFolder(path.parent if path.name == "export" else path)


# --- results


def find_results(folder: RunFolder) -> dict[str, str]:
    """Hash of each file of results below RUN/results, by its path in the run folder."""
    root = folder.root / "results"
    paths = [path for path in sorted(root.rglob("results.json")) if IN_THE_LOG not in path.parts]
    return {str(path.relative_to(folder.root)): sha256_of(path) for path in paths}


def read_result(folder: RunFolder, file: str, images_seen: int, logged: Container[str] = ()) -> Result | None:
    """The numbers of a file of results under the names of the event `evaluation`; None if it has none.

    Those in `logged` are left out: the log has them at the same place.
    """
    found = object_if_any(folder.root / file).get("results")
    if not isinstance(found, dict):
        return None
    inner = Path(file).parent.relative_to("results")
    prefix = "/".join([EVALUATION, *inner.parts])
    values = {name: value for name, value in numbers(prefix, measured(found)) if name not in logged}
    return Result(images_seen, values) if values else None


def measured(results: dict[str, Any]) -> dict[str, Any]:
    """The numbers of results: those of each row under its setting, or those of a prior."""
    prior, rows = results.get("prior"), results.get("rows")
    if isinstance(prior, dict):
        return {"prior": {key: value for key, value in prior.items() if isinstance(value, float)}}
    return {
        setting_name(row): {
            key: value
            for key, value in row.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and key not in SETTING
        }
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict) and "solver" in row and "steps" in row
    }


def setting_name(row: dict[str, Any]) -> str:
    """`midpoint_2`, with the temperature if that is not 1."""
    temperature = row.get("temperature", 1.0)
    name = f"{row['solver']}_{row['steps']}"
    return name if temperature == 1.0 else f"{name}_temperature_{temperature:g}"


def result_files(folder: RunFolder) -> list[Path]:
    """Tables, figures and numbers of the run's evaluations; not features, nor pictures of samples."""
    root = folder.root / "results"
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.suffix in SHOWN_RESULTS
        and path.is_file()
        and not path.name.startswith(".")
        and "rows" not in path.relative_to(root).parts[:-1]
        and path.stat().st_size <= LARGEST_BYTES
    ]


def hash_of_files(paths: Iterable[Path]) -> str:
    return hash_key("\n".join(f"{path.name} {sha256_of(path)}" for path in paths), digits=64)


# --- models


def exported_model(folder: RunFolder) -> Model | None:
    """The run's exported weights; None while there are none."""
    facts = exported(folder)
    if not facts or not (folder.export / "model.safetensors").is_file():
        return None
    shown: Record = without_secrets(facts)
    return Model(run_id_of(folder), folder.export, str(facts.get("weights_sha256", "")), dict(shown))


def used_models(folder: RunFolder) -> list[Model]:
    """The exports that the run was trained with, where their weights are still the same."""
    found = []
    try:
        options = folder.recorded_options()
    except RecordError:
        options = {}
    for about in parent_hashes(folder, options).values():
        model = exported_model(run_of(Path(str(about["path"]))))
        if model is not None and model.sha256 == about["sha256"]:
            found.append(model)
    return found
