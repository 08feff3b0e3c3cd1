"""Experiment: train the auxiliary model's decoder together with the flow; one flow for each setting.

    python tools/campaign/joint_decoder.py --data SHARDS --name solar --folder runs/joint --experiment demo \
        --auxiliary AUXILIARY_RUN --sampler SAMPLER_RUN --widening 0.18 --settings frozen joint:0 joint:1 joint_nll:1

The flow starts from x = mu(z) + sqrt((k sigma(z))^2 + s^2) n, with z a draw of the frozen encoder's posterior.

frozen        the decoder is frozen, as in `stage=flow` (the control)
joint:L       the flow's loss also trains the decoder, through x; L times the mean square of log sigma^2 - log sigma_0^2
              is added, with sigma_0 of the original decoder: this regularises the variance, not the mean
joint_nll:L   as joint, but with L times the variance-guided loss of the image (eq. 4 of arXiv:2505.20723) instead

A learned Gaussian source that is trained together with its flow is reported to collapse unless its variance is
regularised (Kim et al., arXiv:2602.05951). Everything runs in this process, in float32 and not compiled. Results are
written to results/campaign/joint_NAME.json after every setting; settings that are in that file are not repeated.
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jobs import facts_of_rows, results_path, rounded, set_parser
from joint_experiment import Experiment
from joint_stage import FROZEN, JointStage, Optimised, Setting
from torch import Tensor, nn

from lediflow.config.building.models import build_trained_model, load_export
from lediflow.config.building.pipeline import load_decoder
from lediflow.config.composition.schema import EvaluateCommand, PathsConfig
from lediflow.data.streams.stream import SampleStream
from lediflow.engine.ema import decays_for
from lediflow.errors import UserError
from lediflow.evaluate import MODELS
from lediflow.evaluation.config import GridConfig, RealImagesConfig
from lediflow.evaluation.images import ShardImages
from lediflow.evaluation.modes.stages.latents import RealLatents
from lediflow.evaluation.modes.stages.mode import describe_stage, with_larger_batches
from lediflow.evaluation.modes.stages.rows import StageRow, StageRows
from lediflow.evaluation.modes.stages.sources import from_pipeline, from_real, settings
from lediflow.evaluation.references import references
from lediflow.evaluation.results import birth_certificate, read_results, write_results
from lediflow.evaluation.session import Session
from lediflow.flow.noise import SampleNoise
from lediflow.models import build_model
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.specs import has_dropout
from lediflow.models.velocity import LatentSampler
from lediflow.run_folder import RunFolder
from lediflow.sampling import LeDiFlowPipeline
from lediflow.stages.flow import FlowStage
from lediflow.stages.protocol import AUTO
from lediflow.training.clock import Clock, learning_rate_factor
from lediflow.training.validation import NOISE_SEED, inference

STEPS = [1, 2, 4, 8]  # midpoint steps: 2, 4, 8 and 16 evaluations
REPORTS = 20  # losses printed in a training; the last is the mean over its last twentieth


@dataclass(frozen=True)
class Trained:
    """Averaged weights, and the losses of their training."""

    velocity: Any  # the averaged copy of a VelocityModel
    auxiliary: AuxiliaryModel
    losses: dict[str, float]
    seconds: float


def train(setting: Setting, experiment: Experiment) -> Trained:
    """Train a flow; every setting has the same initial weights and random draws."""
    command, before, config = experiment.command, experiment.parent.model, experiment.command.train
    torch.manual_seed(command.seed)
    velocity = build_trained_model(command).to(experiment.device)
    auxiliary = copy.deepcopy(before)
    parts: list[tuple[nn.Module, float]] = [(velocity, config.learning_rate)]
    if setting.trains_decoder:
        auxiliary.decoder.requires_grad_(True)
        parts.append((auxiliary.decoder, config.learning_rate * experiment.options.decoder_rate))
    spec = command.model.velocity
    drops = {"num_classes": spec.num_classes, "has_dropout": has_dropout(spec)}
    stage = JointStage(command.stage, auxiliary, before, setting, experiment.width, **drops)
    optimised, clock = Optimised(parts, command), Clock(config.images, config.global_batch)
    batch = {"micro_batch": config.global_batch, "global_batch": config.global_batch}
    stream = SampleStream(
        experiment.inputs.reader, command.data, seed=command.seed, device=experiment.device, **batch
    )
    noise, started, recent, mean = SampleNoise(command.seed), time.perf_counter(), [], {}
    while not clock.is_finished:
        found = stage.loss(velocity, stream.next_batch(), noise)
        clock.advance()
        factor = learning_rate_factor(config.schedule, clock.images_seen, clock.images)
        decays = decays_for(config.ema, clock.images_seen, clock.global_batch)
        optimised.step(found.loss, factor, decays)
        recent.append(found.metrics)
        if clock.is_due(max(config.images // REPORTS, 1)) or clock.is_finished:
            mean, recent = means(recent), []
            shown = ", ".join(f"{name} {value:.4g}" for name, value in mean.items())
            print(f"{setting.name}: {clock.images_seen} of {clock.images} images, {shown}", flush=True)
    stream.close()
    optimised.averages.swap_with_weights()
    seconds = time.perf_counter() - started
    losses = {"training": mean["loss"], "held_out": held_out_loss(stage, velocity, experiment)}
    return Trained(velocity, auxiliary, losses | {"images_seen": clock.images_seen}, seconds)


def means(metrics: list[dict[str, Tensor]]) -> dict[str, float]:
    return {name: torch.stack([each[name] for each in metrics]).mean().item() for name in metrics[0]}


def held_out_loss(stage: FlowStage, velocity: nn.Module, experiment: Experiment) -> float:
    """The flow's loss without the regulariser."""
    with inference(velocity):
        losses = [
            stage.loss(velocity, batch, SampleNoise(NOISE_SEED)).per_sample
            for batch in experiment.held_out_batches()
        ]
    return torch.cat(losses).mean().item()


class Measuring:
    """MMD of generated images against all photographs, for z of held-out images and of a sampler if there is one."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, options = experiment, experiment.options
        command = EvaluateCommand(
            count=options.count,
            seed=options.seed,
            device=str(experiment.device),
            data=RealImagesConfig(path=options.data),
            grid=GridConfig(steps=STEPS),
            paths=PathsConfig(runs=str(options.folder)),
        )
        self.session = Session.start(command, Path(options.folder), MODELS)
        self.sampler = latent_sampler(experiment)
        self.decode = load_decoder(experiment.parent.facts["codec"], None, experiment.device)

    def pipeline(self, trained: Trained) -> LeDiFlowPipeline:
        """The models of a setting; without a sampler, a placeholder that is never called."""
        experiment = self.experiment
        sampler: Any = self.sampler or build_model(experiment.command.model.latent_sampler)
        return LeDiFlowPipeline(
            trained.velocity,
            trained.auxiliary,
            sampler,
            image_size=experiment.command.model.image_size,
            decode=self.decode,
            prior_widening=experiment.width.added,
            prior_scale=experiment.width.scale,
        ).to(experiment.device)

    def __call__(self, setting: Setting, trained: Trained) -> list[StageRow]:
        experiment, pipeline = self.experiment, self.pipeline(trained)
        session = with_larger_batches(self.session, pipeline)
        command, output = session.command, experiment.options.folder / setting.name.replace(":", "_")
        session.claim(output)
        rows = StageRows.build(session, references(session, pipeline, experiment.parent.facts), output)
        models: dict[str, Any] = {name: weights_hash(module) for name, module in pipeline.modules().items()}
        models |= {"width": pipeline.width._asdict()}
        samples = experiment.held_out(command.count)
        signals = ShardImages(experiment.inputs.reader, samples, pipeline.decode, pipeline.device)
        configs = settings(command, pipeline)
        real = RealLatents(pipeline, signals, command.seed)
        sources = [from_real("heldout", real, models, command, configs)]
        if self.sampler is not None:
            sources.append(from_pipeline("sampler", pipeline, models, command, configs))
        found = [row for source in sources for row in rows.rows_for(source)]
        for row in found:
            print(f"{setting.name}: {describe_stage(row)}", flush=True)
        return found


def latent_sampler(experiment: Experiment) -> LatentSampler | None:
    """The sampler of --sampler; UserError if it was trained with another auxiliary model."""
    if experiment.options.sampler is None:
        return None
    folder = RunFolder(Path(experiment.options.sampler))
    export = folder.require_export("the latent sampler", "python -m lediflow.train stage=latent_sampler ...")
    theirs = (folder.exported_facts().get("parent") or {}).get("sha256")
    if theirs != experiment.parent.sha256:
        raise UserError(
            f"--sampler {folder.root} was trained on another auxiliary model; give one of --auxiliary"
        )
    return load_export(LatentSampler, export, "a run of stage=latent_sampler")


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers."""
    total = hashlib.sha256()
    for name, value in module.state_dict().items():
        total.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def measured(setting: Setting, experiment: Experiment, measuring: Measuring) -> dict[str, Any]:
    """Train and measure one setting."""
    trained = train(setting, experiment)
    return {
        **facts_of_rows(measuring(setting, trained)),
        "losses": trained.losses,
        "prior_held_out": experiment.prior_facts(trained.auxiliary),
        "training_seconds": trained.seconds,
    }


def kept_settings(path: Path, setup: dict[str, Any], commit: str) -> dict[str, Any]:
    """The settings that the results file has of the same setup and the same code."""
    if not path.is_file():
        return {}
    document = read_results(path)
    results = document["results"]
    is_same = results["setup"] == rounded(setup) and document["certificate"]["commit"] == commit
    return dict(results["settings"]) if is_same else {}


def carry_out(experiment: Experiment, measure: Callable[[Setting], dict[str, Any]]) -> None:
    """Measure every setting that is not in the results file, which is rewritten after each."""
    options = experiment.options
    path, certificate = results_path("joint", options.name), birth_certificate(seed=options.seed)
    found = kept_settings(path, experiment.setup, certificate["commit"])
    about = {
        "data": options.name,
        "setup": experiment.setup,
        "held_out_images": len(experiment.held_out()),
        "prior_held_out": experiment.prior_facts(experiment.parent.model),
    }
    for setting in options.settings:
        if setting.name not in found:
            found[setting.name] = measure(setting)
            write_results(path, rounded(about | {"settings": found}), certificate, is_slim=True)


def main() -> None:
    parser = set_parser(__doc__, "demo")
    parser.add_argument("--auxiliary", required=True, help="run folder")
    parser.add_argument(
        "--sampler", help="run folder of a latent sampler; without it only z of held-out images is used"
    )
    parser.add_argument("--settings", nargs="+", type=Setting.read, default=[Setting(FROZEN, FROZEN)])
    parser.add_argument("--widening", default=AUTO, help="s, or auto")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--images",
        type=int,
        help="images of each training; the defaults of this and the next options are the experiment's",
    )
    parser.add_argument("--batch", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--half-life", type=int, help="half-life of the averaged weights, in images")
    parser.add_argument(
        "--decoder-rate",
        type=float,
        default=0.1,
        help="learning rate of the decoder as a fraction of the flow's",
    )
    experiment = Experiment.build(parser.parse_args())
    measuring = Measuring(experiment)
    carry_out(experiment, lambda setting: measured(setting, experiment, measuring))


if __name__ == "__main__":
    main()
