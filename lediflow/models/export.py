"""Export folders of trained models: `model.safetensors` and `config.json`.

config.json has the model's kind and specification, the SHA-256 of its weights and facts added by the caller.
Both files are written under temporary names and renamed; the hash shows whether they belong together.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lediflow.disk import flush, replacing, sha256_of
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.specs import AuxiliarySpec, LatentSamplerSpec, VelocitySpec
from lediflow.models.velocity import LatentSampler, VelocityModel
from lediflow.nn.hourglass import Hourglass
from lediflow.nn.specs import HourglassSpec
from lediflow.records import EXPORT_AGAIN, RecordError, one_line, read_dataclass, read_record

WEIGHTS, CONFIG = "model.safetensors", "config.json"
RECORD = "export_record"  # attribute of a loaded model: its config.json

Spec = AuxiliarySpec | VelocitySpec | LatentSamplerSpec | HourglassSpec
SPECS: dict[str, type[Any]] = {
    "auxiliary": AuxiliarySpec,
    "velocity": VelocitySpec,
    "latent_sampler": LatentSamplerSpec,
    "hourglass": HourglassSpec,
}
Model = AuxiliaryModel | VelocityModel | LatentSampler | Hourglass
Kind = TypeVar("Kind", bound=nn.Module)
MODELS: dict[type[Any], Any] = {
    AuxiliarySpec: AuxiliaryModel,
    VelocitySpec: VelocityModel,
    LatentSamplerSpec: LatentSampler,
    HourglassSpec: Hourglass,
}


def exported_classes(facts: Mapping[str, Any]) -> int:
    """Number of classes that an export's model has embeddings for, by its config.json; 0: none."""
    return (facts.get("spec") or {}).get("num_classes") or 0


def renamed_classes(facts: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Labels that mean another class in `names` than to an export's model, such as `1 was bee, here it is cat`.

    Empty for a model without classes, and for exports of earlier releases, which do not hold the names.
    """
    known = (facts.get("data") or {}).get("classes") or [] if exported_classes(facts) else []
    pairs = enumerate(zip(known, names, strict=False))
    return [f"{n} was {then}, here it is {now}" for n, (then, now) in pairs if then != now]


def build_model(spec: Spec, attention_route: str = "auto") -> Model:
    """Build the model that the specification describes, with random weights."""
    return MODELS[type(spec)](spec, attention_route)


def save_model(
    module: Model, path: str | Path, extra: dict[str, Any] | None = None, dtype: torch.dtype | None = None
) -> None:
    """Write an export folder; `extra` is added to config.json.

    `dtype` is the type in which parameters are stored (None: as they are); `load_model` makes them float32 again.
    Buffers, such as the frequencies of times, stay as they are.
    """
    rounded = {name for name, _ in module.named_parameters()} if dtype is not None else set()
    weights = {
        name: tensor.detach().to("cpu", dtype if name in rounded else None).contiguous()
        for name, tensor in module.state_dict().items()
    }
    save_tensors(weights, path, {**describe(module.spec), **(extra or {})})


def save_tensors(weights: dict[str, Tensor], path: str | Path, description: dict[str, Any]) -> None:
    """Write an export folder from a state dict; `description` is the content of config.json, without the hash."""
    publish(lambda new: new.write_bytes(save(weights)), Path(path), description)


def save_weights(weights: Path, path: str | Path, description: dict[str, Any]) -> None:
    """Write an export folder from a file of weights; `description` is the content of config.json, without the hash."""
    publish(lambda new: shutil.copyfile(weights, new), Path(path), description)


def publish(write: Callable[[Path], Any], folder: Path, description: dict[str, Any]) -> None:
    """Write both files under temporary names and rename them; remove temporary files of a killed attempt."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in (*folder.glob(f".{WEIGHTS}.*"), *folder.glob(f".{CONFIG}.*")):
        left.unlink(missing_ok=True)
    with replacing(folder / WEIGHTS) as new:
        write(new)
        config = {**description, "weights_sha256": sha256_of(new)}
        flush(new)
    write_description(folder, config)


def write_description(folder: Path, config: dict[str, Any]) -> None:
    """Replace config.json; when this returns, both files of the export are durable on disk."""
    with replacing(folder / CONFIG) as new:
        new.write_text(json.dumps(config, indent=2) + "\n")
        flush(new)
    flush(folder)


def load_as(kind: type[Kind], path: str | Path) -> Kind:
    """`load_model`, with a ValueError if the export is of another class."""
    module = load_model(path)
    if not isinstance(module, kind):
        raise ValueError(
            f"{path} holds a model of class {type(module).__name__}; {kind.__name__} is needed here"
        )
    return module


def load_model(path: str | Path) -> Model:
    """Load the model of an export folder, in evaluation mode; its specification is `.spec`, `record_of` its record."""
    config, weights = read_export(path)
    module = build_model(spec_from_config(config, str(Path(path) / CONFIG)))
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise RecordError(
            f"{Path(path) / WEIGHTS} does not fit {CONFIG} ({one_line(error)}); {EXPORT_AGAIN}"
        ) from error
    module.__dict__[RECORD] = config
    return module.eval()


def record_of(module: nn.Module | None) -> dict[str, Any]:
    """The config.json that a model was loaded with; empty for one that was built, and for None."""
    return dict(getattr(module, "__dict__", {}).get(RECORD, {}))


def read_export(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read an export folder: config.json, and the weights by name. RecordError if it is damaged."""
    config, weights = read_config(path), Path(path) / WEIGHTS
    try:
        found = sha256_of(weights)
        if config.get("weights_sha256") not in (None, found):
            raise RecordError(
                f"{weights}: its hash differs from the one in {CONFIG}, so it is damaged, or the two files are from "
                f"different exports; {EXPORT_AGAIN}"
            )
        return config | {"weights_sha256": found}, load_file(weights)
    except (OSError, SafetensorError) as error:
        raise RecordError(f"{weights} cannot be read ({error}); {EXPORT_AGAIN}") from error


def read_config(path: str | Path) -> dict[str, Any]:
    """Read the config.json of an export folder."""
    folder = Path(path)
    missing = [name for name in (WEIGHTS, CONFIG) if not (folder / name).exists()]
    if missing:
        found = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else "no such folder"
        raise ValueError(
            f"load a model from {folder}: {' and '.join(missing)} missing (found: {found}); "
            f"give the export folder of a finished run, RUN/export"
        )
    return read_record(folder / CONFIG, EXPORT_AGAIN, {"kind": str, "weights_sha256": str | None})


def describe(spec: Spec) -> dict[str, Any]:
    """Kind and specification of a model, for JSON."""
    kind = next(name for name, cls in SPECS.items() if type(spec) is cls)
    values = asdict(spec)
    if not values.get("is_flow_map", True):  # as in exports from before there were flow maps
        del values["is_flow_map"]
    return {"kind": kind, "spec": values}


def spec_from_config(config: dict[str, Any], place: str = CONFIG) -> Spec:
    """The specification that `describe` wrote; RecordError, naming `place`, if it is invalid."""
    kind = config.get("kind")
    if kind not in SPECS:
        raise RecordError(
            f"{place}: model kind {kind!r}: known kinds are {sorted(SPECS)}; edited? {EXPORT_AGAIN}"
        )
    try:
        return read_dataclass(SPECS[kind], config.get("spec"), "spec")
    except ValueError as error:
        raise RecordError(
            f"{place}, of kind {kind}: {error}; edited, or of another version? {EXPORT_AGAIN}"
        ) from error
