"""Loads an image pipeline from run folders, and checks that the exported models belong together.

The parent of flow and latent sampler is found by the hash of its weights, also after folders were moved. An export
records its parent's absolute path and its path relative to the run's folder. Exports of earlier releases have the path
as typed, relative to an unknown working folder. All are tried, from the run's folder and from the folders above it; the
first folder whose weights have the recorded SHA-256 is the parent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lediflow.codecs import CODECS, Codec, CodecConfig, PixelCodec, build_codec
from lediflow.config.building.models import absolute, load_export
from lediflow.config.composition.advice import require_export
from lediflow.disk import sha256_of
from lediflow.engine.ranks import choose_device
from lediflow.errors import UserError
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.export import WEIGHTS, exported_classes, renamed_classes
from lediflow.models.velocity import LatentSampler, VelocityModel
from lediflow.records import RecordError, changes, read_record
from lediflow.run_folder import RunFolder
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.pipeline import LOAD_ANOTHER, PIPELINE
from lediflow.stages import Place, place_of, stages_in
from lediflow.text import shown_hash

log = logging.getLogger(__name__)

NAMED = 4  # how many places an error message lists
# the stage that trains a model of a pipeline
STAGE_OF = {"velocity": "flow", "auxiliary": "auxiliary", "latent_sampler": "latent_sampler"}


def load_pipeline(
    run: str, sampler: str | None, *, device: str = "auto", codec_path: str | None = None
) -> LeDiFlowPipeline:
    """Load the pipeline of a flow run; a learned prior also needs the latent sampler's run and their common parent.

    `run` may also be a folder that `lediflow.export` wrote, which has all models.
    """
    if is_saved(run):
        return load_saved(run, sampler, device, codec_path)
    flow = RunFolder(Path(run))
    export = require_export(flow, "the flow model", "python -m lediflow.train stage=flow ...")
    facts = facts_at(flow, f"run={run}", "flow")
    where = choose_device(device)
    codec = load_codec(facts["codec"], codec_path, where)
    if facts["prior"] == "gaussian":
        if sampler is not None:
            raise UserError(
                f"run={run} is the Gaussian baseline, which has no latents for sampler={sampler}; leave sampler= out"
            )
        return LeDiFlowPipeline(
            load_export(VelocityModel, export, "a run of stage=flow"),
            None,
            None,
            image_size=facts["image_size"],
            codec=codec,
        ).to(where)
    if sampler is None:
        raise UserError(
            f"run={run} starts from a learned prior, but sampler= is not given; give the run of its latent sampler: "
            "sampler=RUN_DIR"
        )
    latent = RunFolder(Path(sampler))
    latent_export = require_export(
        latent, "the latent sampler", "python -m lediflow.train stage=latent_sampler ..."
    )
    latent_facts = facts_at(latent, f"sampler={sampler}", "latent_sampler")
    parent = _common_parent(facts, latent_facts, run, sampler)
    check_common_classes(facts, latent_facts, run, sampler)
    return LeDiFlowPipeline(
        load_export(VelocityModel, export, "a run of stage=flow"),
        load_export(AuxiliaryModel, parent, "a run of stage=auxiliary"),
        load_export(LatentSampler, latent_export, "a run of stage=latent_sampler"),
        image_size=facts["image_size"],
        codec=codec,
    ).to(where)


def is_saved(run: str) -> bool:
    """Whether a folder is one of `lediflow.export`, rather than a run."""
    return (Path(run) / PIPELINE).is_file()


def load_saved(run: str, sampler: str | None, device: str, codec_path: str | None) -> LeDiFlowPipeline:
    """The pipeline of a folder that `lediflow.export` wrote."""
    if sampler is not None:
        raise UserError(f"run={run} is an exported folder, which has its own models; leave sampler= out")
    about = read_record(Path(run) / PIPELINE, LOAD_ANOTHER, {"codec": {"name": str}})
    where = choose_device(device)
    codec = load_codec(about["codec"], codec_path, where)
    return LeDiFlowPipeline.from_pretrained(run, codec=codec).to(where)


def facts_at(folder: RunFolder, asked: str, place: Place) -> dict[str, Any]:
    """The facts of a run's export; UserError, which begins with the option, for a run of another stage."""
    facts = folder.exported_facts()
    if place_of(facts["stage"]) != place:
        raise UserError(f"{asked} is a run of stage={facts['stage']}; give a run of {stages_in(place)}")
    return facts


def _common_parent(flow: dict[str, Any], sampler: dict[str, Any], run: str, sampler_run: str) -> Path:
    """The export of the auxiliary model that both runs were trained with; UserError if they had different ones."""
    ours, theirs = flow["parent"], sampler.get("parent") or {}
    if ours["sha256"] != theirs.get("sha256"):
        raise UserError(
            f"run={run} was trained on the auxiliary model {ours['path']} ({shown_hash(ours['sha256'])}), "
            f"sampler={sampler_run} on {theirs.get('path')} ({shown_hash(theirs.get('sha256'))}); use runs of one "
            "parent"
        )
    return find_parent({Path(run): ours, Path(sampler_run): theirs}, ours["sha256"]).export


def check_common_classes(
    flow: Mapping[str, Any], sampler: Mapping[str, Any], run: str, sampler_run: str
) -> None:
    """UserError if both models have classes, but of different numbers; a warning if their names differ."""
    ours, theirs = exported_classes(flow), exported_classes(sampler)
    if ours and theirs and ours != theirs:
        raise UserError(
            f"run={run} was trained with {ours} classes, sampler={sampler_run} with {theirs}; use runs of the same "
            "classes"
        )
    if ours and (renamed := renamed_classes(sampler, (flow.get("data") or {}).get("classes") or [])):
        log.warning(
            "sampler=%s was trained on classes of other names than run=%s (%d of %d differ: %s), so a label is one "
            "class to the sampler and another to the flow; use runs that were trained on the same classes",
            sampler_run, run, len(renamed), ours, "; ".join(renamed[:NAMED]),
        )  # fmt: skip


def load_decoder(
    record: dict[str, Any], path: str | None, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """The decoder of `load_codec`."""
    return load_codec(record, path, device).decode


def load_codec(record: dict[str, Any], path: str | None, device: torch.device) -> Codec:
    """The codec that encoded a run's data; UserError if the weights are not the recorded ones, or not needed."""
    if path is not None and record["name"] == PixelCodec.name:
        raise UserError(f"codec_path={path} decodes latents, and the run was trained on pixels; leave it out")
    place = path or record.get("path")
    if place is None and record["name"] in CODECS and CODECS[record["name"]].has_weights:
        raise UserError(
            f"the models are of latents of codec={record['name']}, whose weights are needed to decode them; give the "
            "codec.path that lediflow.encode was run with as codec_path=..."
        )
    codec = build_codec(CodecConfig(name=record["name"], path=place), device)
    if changed := changes({**codec.record(), **record}, codec.record()):
        raise UserError(
            f"codec_path={path} holds other weights of {record['name']} than the run's data was encoded with "
            f"({changed}); give the codec.path that lediflow.encode was run with"
        )
    return codec


def pipeline_hashes(run: str, sampler: str | None) -> dict[str, str]:
    """SHA-256 of each exported model, by the name of its stage; of a folder of `lediflow.export`, of all models."""
    if is_saved(run):
        about = read_record(Path(run) / PIPELINE, LOAD_ANOTHER, {"models": list[str]})
        return {STAGE_OF[name]: sha256_of(Path(run) / name / WEIGHTS) for name in about["models"]}
    named = {"flow": run, "latent_sampler": sampler}
    return {name: RunFolder(Path(path)).weights_hash() for name, path in named.items() if path is not None}


def find_parent(runs: Mapping[Path, Mapping[str, Any]], sha256: str) -> RunFolder:
    """The auxiliary run with these weights; `runs` maps run folders to their records of the parent.

    Raises UserError, with the places that were tried, if none of them has the weights.
    """
    places = list(
        dict.fromkeys(place for run, record in runs.items() for place in parent_places(run, record))
    )
    found: dict[Path, str] = {}
    for place in places:
        folder = RunFolder(place)
        if not folder.is_exported:
            continue
        found[place] = weights_of(folder)
        if found[place] == sha256:
            return folder
    raise UserError(not_found(runs, sha256, places, found))


def weights_of(folder: RunFolder) -> str:
    """The SHA-256 of the exported weights; "none" if it cannot be read."""
    try:
        return folder.weights_hash()
    except RecordError:
        return "none"


def parent_places(run: Path, record: Mapping[str, Any]) -> Iterator[Path]:
    """Folders where the parent may be, the likeliest first."""
    stored = Path(record["path"])
    if stored.is_absolute():
        yield stored
    for base in (absolute(run), run.resolve()):
        for folder in (base, *base.parents):
            if "from_run" in record:
                yield absolute(folder / record["from_run"])
    if not stored.is_absolute():
        yield absolute(stored)
    parts = [part for part in stored.parts if part not in (stored.anchor, ".", "..")]
    for base in (absolute(run), run.resolve()):
        for folder in base.parents:
            for first in range(len(parts)):
                yield folder.joinpath(*parts[first:])


def not_found(
    runs: Mapping[Path, Mapping[str, Any]], sha256: str, places: list[Path], found: Mapping[Path, str]
) -> str:
    """The error message: what was searched for, where, what was found there, and what to do."""
    run, record = next(iter(runs.items()))
    name = Path(record["path"]).name
    reasons = [f"{place} has other weights ({shown_hash(weights)})" for place, weights in found.items()]
    reasons += [f"there is no exported run in {place}" for place in places if place not in found]
    more = f"; {len(reasons) - NAMED} more places" if len(reasons) > NAMED else ""
    sibling = absolute(run).parent / name
    return (
        f"run={run} was trained on the auxiliary model {record['path']} (weights {shown_hash(sha256)}), which was not "
        f"found: {'; '.join(reasons[:NAMED])}{more}. Put the run folder with these weights, or a symbolic link to it, "
        f"at {sibling}; if they are lost, train {run} again"
    )
