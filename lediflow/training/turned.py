"""Messages about a held-out loss that has turned (held_out.py): log and event, overview, last line of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lediflow.tracking.event_log import TURNED, Event, number
from lediflow.training.config import TrainingConfig
from lediflow.training.held_out import Point, Turn


def warning(point: Point | Turn, config: TrainingConfig) -> str:
    """The message of the log and of the event."""
    return (
        f"held-out loss was lowest, {figure(point.best_loss)}, at {point.best_images_seen:,} images and is "
        f"{point.rise:+.2g} since (noise {point.noise:.1g}): the model memorises; use {advice(config)}"
    )


def advice(config: TrainingConfig) -> str:
    """Remedies that the configuration does not use yet."""
    options = ["train.export=best"] * (config.export != "best")
    options += ["train.patience_images=..."] * (not config.patience_images)
    return ", ".join([*options, "dropout", "augmentation", "or more pictures"])


def final_message(point: Point | None, config: TrainingConfig, ran_out_of_patience: bool) -> str:
    """The last line of a run that ended above its lowest held-out loss, or by patience; empty for others."""
    if point is None or not (point.is_above or ran_out_of_patience):
        return ""
    why = (
        f"stopped at {point.images_seen:,} images by train.patience_images={config.patience_images}: "
        if ran_out_of_patience
        else ""
    )
    ended = (
        f"{why}held-out loss was lowest, {figure(point.best_loss)}, at {point.best_images_seen:,} images and ended "
        f"{point.rise:+.2g} from there (noise {point.noise:.1g})"
    )
    if config.export == "best":
        return f"{ended}; exported are the averaged weights of {point.best_images_seen:,} images"
    exported = f"exported are the averaged weights of {point.images_seen:,} images"
    return f"{ended}; {exported}" + (
        f", which memorise: use {advice(config)}"
        if point.is_above
        else "; train.export=best takes the lowest"
    )


def remark(standing: Sequence[Event]) -> str:
    """The remark in the overview, from the valid events; empty where the loss has not turned, or fell again."""
    turned = [event for event in standing if event["event"] == TURNED]
    validations = [event for event in standing if event["event"] == "validation" and "best_loss" in event]
    if not turned or not validations:
        return ""
    last = validations[-1]
    if last.get("best_images_seen") != turned[-1].get("best_images_seen"):
        return ""
    return f"held-out loss has turned: {since_lowest(last)}"


def since_lowest(values: Mapping[str, Any]) -> str:
    """`lowest -1.48 at 262,144 images, +0.12 since`, from the values of an event."""
    loss, rise, seen = (number(values.get(key)) for key in ("best_loss", "rise", "best_images_seen"))
    if loss is None or rise is None or seen is None:
        return "the event log does not say when"
    return f"lowest {figure(loss)} at {seen:,.0f} images, {rise:+.2g} since"


def figure(loss: float) -> str:
    """Three digits: -1.48, 0.107."""
    return f"{loss:.3g}"
