"""The session that all modes share: the options, the ranks, their device, the feature extractor, the model loader."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.engine.ranks import choose_device, find_ranks
from lediflow.errors import disk_errors_explained
from lediflow.evaluation.config import EvaluateConfig
from lediflow.evaluation.features import FeatureExtractor, build_features
from lediflow.evaluation.results import RESULTS, birth_certificate, claim_results, write_results
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.run_folder import RunFolder
from lediflow.sampling import LeDiFlowPipeline
from lediflow.tracking.progress import make_progress


@dataclass(frozen=True)
class ModelLoader:
    """How run folders become models. The command supplies the functions: they belong to `config`, a layer above."""

    pipeline: Callable[..., LeDiFlowPipeline]  # (run, sampler, device=, codec_path=)
    auxiliary: Callable[[Path], AuxiliaryModel]  # (export folder)
    decoder: Callable[[dict[str, Any], str | None, torch.device], Callable[[Tensor], Tensor]]
    # (folder, role, command that makes it): UserError with that command where there is no export
    require_export: Callable[[RunFolder, str, str], Path]
    find_parent: Callable[[Mapping[Path, Mapping[str, Any]], str], RunFolder]
    hashes: Callable[[str, str | None], dict[str, str]]  # SHA-256 of the weights of a run and its sampler


@dataclass(frozen=True)
class Session:
    """The options, the ranks that share the work, and what each rank works with."""

    command: EvaluateConfig
    runs: Path  # default parent of run folders; features of real images are cached there
    models: ModelLoader
    group: Group
    device: torch.device
    extractor: FeatureExtractor

    @classmethod
    def start(cls, command: EvaluateConfig, runs: Path, models: ModelLoader) -> Session:
        """Join the other ranks, then load the feature extractor on this rank's device."""
        group = Group.join(find_ranks())
        if not group.is_first:
            logging.getLogger("lediflow").setLevel(logging.WARNING)
        with group.together("getting ready"):
            device = choose_device(command.device, group.ranks.local_rank)
            extractor = build_features(dataclasses.replace(command.features, device=str(device)))
        return cls(command, runs, models, group, device, extractor)

    def pipeline(self, run: str, sampler: str | None) -> LeDiFlowPipeline:
        """Load the models of a run on this rank's device."""
        with self.group.together(f"loading {run}"):
            command = self.command
            pipeline = self.models.pipeline(
                run, sampler, device=str(self.device), codec_path=command.codec_path
            )
            images = command.count * len(command.step_counts)
            return pipeline.use(command.runtime, command.precision, images=images)

    def progress(self, title: str, total: int) -> tuple[Callable[[int], None], Callable[[], None]]:
        """Functions (advance by a number of images, close) of a progress bar that rank 0 shows for all ranks."""
        if not self.group.is_first:
            return lambda images: None, lambda: None
        progress, done = make_progress(title, total), 0

        def advance(images: int) -> None:
            nonlocal done
            done = min(done + images * self.group.world_size, total)
            progress.update(done)

        return advance, progress.close

    def say(self, text: str) -> None:
        """Print a line of the result, on rank 0."""
        if self.group.is_first:
            print(text, flush=True)

    def note(self, text: str) -> None:
        """Print a remark to stderr, on rank 0."""
        if self.group.is_first:
            print(f"note: {text}", file=sys.stderr, flush=True)

    def claim(self, folder: Path) -> None:
        """Create the folder of results on rank 0; UserError if it holds other files."""
        with self.group.together(f"claiming {folder}"):
            if self.group.is_first:
                claim_results(folder)

    def withdraw(self, folder: Path) -> None:
        """Remove earlier results on rank 0, before new figures are written."""
        with self.group.together(f"writing {folder}"), disk_errors_explained(folder):
            if self.group.is_first:
                (folder / RESULTS).unlink(missing_ok=True)

    def write(self, folder: Path, results: dict[str, Any], seed: int | None) -> None:
        """Write the results file on rank 0."""
        with self.group.together(f"writing {folder / RESULTS}"):
            if self.group.is_first:
                certificate = birth_certificate(seed=seed) | {"ranks": self.group.world_size}
                write_results(folder / RESULTS, results, certificate)
