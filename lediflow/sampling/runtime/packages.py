"""Networks compiled ahead of time by AOTInductor and kept as files, so that a later process starts in seconds.

FOLDER/<part>-<key>/
  network.pt2      compiled code, without weights: they are inputs of each call
  package.json     the facts that it holds for, and its SHA-256

The key is a hash of the facts: specification, shapes, range of batch sizes, precision, routes of attention, PyTorch,
device, processor, and the code that defines the models. If one of them differs, the package is built again under
another key; a package that is damaged is replaced. Because weights are inputs, a package serves any weights of its
specification and cannot hold old ones. There is one package for single images, and one for each larger range of batch
sizes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import sys
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.pt2_archive._package import AOTICompiledModel

import lediflow
from lediflow.caches import cache_folder
from lediflow.disk import hash_key, sha256_of, whole_or_absent, write_json
from lediflow.errors import UserError
from lediflow.nn.attention import SelfAttention
from lediflow.records import RecordError, read_record
from lediflow.sampling.runtime.compiled import Guarded, Report
from lediflow.sampling.runtime.copies import WorkingCopy
from lediflow.sampling.runtime.networks import KINDS, Networks, Part, networks_of

log = logging.getLogger(__name__)

NETWORK, RECORD = "network.pt2", "package.json"
# sizes of batches that share a package: entries of up to 256 images can be counted in 32 bits, which is faster
BATCH_RANGES = ((1, 1), (2, 256), (257, 4096))
# a package must use the C++ library of PyTorch. Some compilers link one of their own into it; with two of them in the
# process, PyTorch's loader looks a facet of the locale up in the wrong one and ends in a segmentation fault
CPP_LIBRARY = "libstdc++.so.6" if sys.platform == "linux" else None
CODE = ("nn", "models", "flow/gaussians.py")  # what a network's function depends on, below lediflow/

Facts = dict[str, Any]


@cache
def code_hash() -> str:
    """SHA-256 of the modules that define the models."""
    root = Path(lediflow.__file__).parent
    files = [
        path
        for name in CODE
        for path in ([root / name] if name.endswith(".py") else (root / name).rglob("*.py"))
    ]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sorted(files))).hexdigest()


def device_name(device: torch.device) -> str:
    """The device as far as generated code depends on it, beside the processor, which runs code for GPUs, too."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"{torch.cuda.get_device_name(device)}, compute capability {major}.{minor}"
    return "cpu"


def processor() -> str:
    """The processor as far as generated code depends on it: the instructions that PyTorch can use, and tests for."""
    further = {"VNNI": torch.cpu._is_vnni_supported(), "AMX": torch.cpu._is_amx_tile_supported()}
    known = [name for name, is_supported in further.items() if is_supported]
    return " ".join([platform.machine(), torch.backends.cpu.get_cpu_capability(), *known])


def facts_of(name: str, part: Part, inputs: tuple[Tensor | None, ...], precision: str) -> Facts:
    """What a package of this part, for batches like these inputs, depends on."""
    first = inputs[0]
    assert first is not None
    return {
        "part": name,
        "spec": asdict(part.model.spec),  # type: ignore[call-overload]
        "inputs": [None if one is None else [str(one.dtype), one.ndim, *one.shape[1:]] for one in inputs],
        "batch": batch_range(len(first)),
        "precision": precision,
        "routes": sorted({module.route for module in part.modules() if isinstance(module, SelfAttention)}),
        "torch": torch.__version__,
        "device": device_name(first.device),
        "processor": processor(),
        "code": code_hash(),
    }


def batch_range(size: int) -> list[int]:
    """The smallest and the largest batch of the package for batches of this size."""
    for smallest, largest in BATCH_RANGES:
        if size <= largest:
            return [smallest, largest]
    raise UserError(
        f"runtime=exported with a batch of {size} images: packages are for up to {BATCH_RANGES[-1][1]}; use smaller "
        "batches (with guidance, a batch counts twice)"
    )


def key_of(facts: Facts) -> str:
    return hash_key(json.dumps(facts, sort_keys=True))


class WithWeights(nn.Module):
    """A part whose weights are inputs, so that its compiled form has none of its own."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, weights: dict[str, Tensor], *inputs: Tensor | None) -> Any:
        return torch.func.functional_call(self.part, weights, inputs, strict=True)


class Package:
    """The compiled forms of one part, by kind of input; each is loaded, or built, at its first call."""

    def __init__(self, name: str, part: Part, precision: str, folder: Path) -> None:
        self.name, self.part, self.precision, self.folder = name, part, precision, folder
        self.weights = dict([*part.named_parameters(), *part.named_buffers()])
        self.loaded: dict[str, Callable[..., Any]] = {}

    def __call__(self, *inputs: Tensor | None) -> Any:
        facts = facts_of(self.name, self.part, inputs, self.precision)
        key = key_of(facts)
        if key not in self.loaded:
            self.loaded[key] = self.load(self.folder / f"{self.name}-{key}", facts, inputs)
        return self.loaded[key](self.weights, *inputs)

    def load(self, place: Path, facts: Facts, inputs: tuple[Tensor | None, ...]) -> Callable[..., Any]:
        """The package of these facts, from its file if that is whole."""
        if (reason := why_unusable(place, facts)) is not None:
            log.info("%s %s: building it, which takes a minute or two", place, reason)
            build(place, facts, self.part, self.weights, inputs)
            check_cpp_library(place / NETWORK)
        return loaded(place / NETWORK)


def loaded(package: Path) -> Callable[..., Any]:
    """The function of a package.

    torch._inductor.aoti_load_package would compare the processor first, for which it compiles and runs a program for
    each set of instructions (10 to 20 s with PyTorch 2.11), and then only warn; here the processor is one of the facts.
    """
    # CUDA graphs do not record the synchronisation of several threads; Runtime lets one in at a time
    is_single_threaded, runners, any_device = True, 1, -1
    loader = torch._C._aoti.AOTIModelPackageLoader(
        str(package), "model", is_single_threaded, runners, any_device
    )
    return AOTICompiledModel(loader)


def why_unusable(place: Path, facts: Facts) -> str | None:
    """Why the package there cannot be loaded; None if it can."""
    if not (place / RECORD).exists():
        return "does not exist yet"
    try:
        record = read_record(place / RECORD, "it is built again", {"facts": dict[str, Any], "sha256": str})
    except RecordError:
        return f"has an unreadable {RECORD}"
    if differing := [
        name for name in facts if record["facts"].get(name) != json.loads(json.dumps(facts[name]))
    ]:
        return f"was built for another {', '.join(differing)}"
    if not (place / NETWORK).exists() or sha256_of(place / NETWORK) != record["sha256"]:
        return f"has a damaged {NETWORK}"
    if brings_cpp_library(place / NETWORK):
        return "brings a C++ library of its own"
    return None


def check_cpp_library(package: Path) -> None:
    """UserError for a package that PyTorch cannot load beside its own C++ library."""
    if brings_cpp_library(package):
        raise UserError(
            f"{package} was built with a C++ library of its own instead of {CPP_LIBRARY}, which is PyTorch's, and "
            "cannot be loaded; set CXX to a compiler that does not link its C++ library statically, such as the "
            "system's g++, or use runtime=compiled"
        )


def brings_cpp_library(package: Path) -> bool:
    """Whether a shared library in the package does not name PyTorch's C++ library as needed."""
    if CPP_LIBRARY is None:
        return False
    with zipfile.ZipFile(package) as archive:
        libraries = [name for name in archive.namelist() if name.endswith(".so")]
        return any(CPP_LIBRARY.encode() not in archive.read(name) for name in libraries)


def build(
    place: Path, facts: Facts, part: nn.Module, weights: dict[str, Tensor], inputs: tuple[Tensor | None, ...]
) -> None:
    """Compile a part for batches like these inputs; two processes may build the same package at once."""
    smallest, largest = facts["batch"]
    batch = torch.export.Dim("batch", min=smallest, max=largest) if largest > 1 else None
    shapes = {
        "weights": dict.fromkeys(weights),
        "inputs": tuple({0: batch} if batch and one is not None and one.ndim else None for one in inputs),
    }
    # by its file name, and before what the compiler adds by itself
    settings = {"aot_inductor.custom_op_libs": [f":{CPP_LIBRARY}"]} if CPP_LIBRARY else {}
    exported = torch.export.export(WithWeights(part), (weights, *inputs), dynamic_shapes=shapes, strict=True)
    place.mkdir(parents=True, exist_ok=True)
    with whole_or_absent(place / NETWORK) as stream:
        torch._inductor.aoti_compile_and_package(exported, package_path=stream, inductor_configs=settings)
    write_record(place, facts)


def write_record(place: Path, facts: Facts) -> None:
    write_json(place / RECORD, {"facts": facts, "sha256": sha256_of(place / NETWORK)})


def packaged_networks(
    copies: dict[str, WorkingCopy], precision: str, report: Report, folder: Path | None = None
) -> Networks:
    """Each part from its package."""

    def packaged(name: str, module: nn.Module) -> Guarded:
        part = KINDS[name](module)
        return Guarded(Package(name, part, precision, folder or cache_folder() / "packages"), part, report)

    return networks_of({name: copied.module for name, copied in copies.items()}, packaged)
