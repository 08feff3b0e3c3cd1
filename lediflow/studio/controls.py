"""Parts of the page that several tabs have: sliders, uploads, results, and what connects them to a task."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gradio as gr

from lediflow.errors import UserError
from lediflow.flow.solvers import JUMP, SOLVERS
from lediflow.sampling.methods import classes_of, is_flow_map
from lediflow.studio.models import Models
from lediflow.studio.strokes import NothingGivenError
from lediflow.studio.tasks import Made

MOST_PICTURES = 16
# all tasks share one queue, which runs one at a time
QUEUE: dict[str, Any] = {
    "concurrency_limit": 1,
    "concurrency_id": "models",
    "api_visibility": "private",
    "show_progress": "minimal",
}


class Sliders(NamedTuple):
    """The controls behind `tasks.Sliders`, in its order."""

    seed: gr.Slider
    steps: gr.Slider
    solver: gr.Dropdown
    temperature: gr.Slider
    classes: gr.Dropdown  # hidden for models without classes


def sliders(
    models: Models,
    tab: str,
    *,
    fewest_steps: int = 1,
    seed_meaning: str = "of all random draws",
    class_meaning: str = "pictures take them in turn",
) -> Sliders:
    """Sliders of sampling, which start at the options of the command line."""
    command, pipeline = models.command, models.pipeline
    method = command.method(is_flow_map(pipeline.velocity))
    solvers = [JUMP] if is_flow_map(pipeline.velocity) else [name for name in SOLVERS if name != JUMP]
    is_unaware = pipeline.latent_sampler is not None and not classes_of(pipeline.latent_sampler)
    z_meaning = "; z may be of another class, as the latent sampler has none" if is_unaware else ""
    return Sliders(
        gr.Slider(
            0, max(9999, command.seed), command.seed, step=1, label="Seed", info=seed_meaning,
            elem_id=f"{tab}-seed",
        ),
        gr.Slider(
            fewest_steps, max(32, method.steps), max(fewest_steps, method.steps), step=1, label="Steps",
            info="of the solver; more are slower and more exact",
        ),
        gr.Dropdown(solvers, value=method.solver, label="Solver", info="dopri5 chooses its own steps"),
        gr.Slider(
            0, max(2.0, command.temperature), command.temperature, step=0.05, label="Temperature",
            info="of the prior; lower is smoother",
        ),
        gr.Dropdown(
            models.classes, value=models.labels_of(command.labels), multiselect=True, label="Classes",
            info=f"{class_meaning}; none: no class{z_meaning}", visible=bool(models.classes),
            elem_id=f"{tab}-classes",
        ),
    )  # fmt: skip


def count_slider(start: int) -> gr.Slider:
    return gr.Slider(1, MOST_PICTURES, start, step=1, label="Pictures")


def upload(label: str, elem_id: str) -> gr.File:
    """A field for one file, which stays on the server as it was uploaded."""
    return gr.File(label=label, type="filepath", file_types=["image"], height=140, elem_id=elem_id)


def results(label: str, elem_id: str) -> gr.Gallery:
    """Pictures; each can be enlarged and downloaded as the PNG that was written, with its provenance."""
    return gr.Gallery(
        label=label, show_label=False, columns=4, format="png", object_fit="contain", interactive=False,
        height=None, buttons=["download", "fullscreen"], elem_id=elem_id, elem_classes="pixels",
    )  # fmt: skip


def connect(
    task: Callable[..., Made],
    given: Sequence[Any],
    outputs: Sequence[Any],
    *,
    button: gr.Button,
    live: Sequence[Any],
    shown: Callable[[Made], tuple[Any, ...]],
) -> Callable[..., tuple[Any, ...]]:
    """Run a task by a button, and by every change of the controls in `live` once there is something to work on.

    Of changes that come while the task is running, the last one is done. Returns the function of the button.
    """

    def asked(*values: Any) -> tuple[Any, ...]:
        made = explained(task, *values)
        for warning in made.warnings:
            gr.Warning(html.escape(warning), duration=None)
        return shown(made)

    def changed(*values: Any) -> tuple[Any, ...]:
        try:
            return shown(task(*values))
        except NothingGivenError:
            return (gr.skip(),) * len(outputs)
        except (UserError, ValueError) as error:
            raise message(error) from error

    inputs = [*given]
    button.click(asked, inputs, [*outputs], **QUEUE)
    triggers = [changes_of(control) for control in live]
    gr.on(triggers, changed, inputs, [*outputs], trigger_mode="always_last", **QUEUE)
    return asked


def changes_of(control: Any) -> Any:
    """The event of a control that a user changed; Gradio sends no `input` where all choices are removed at once."""
    is_multiple = isinstance(control, gr.Dropdown) and control.multiselect
    return control.change if is_multiple else control.input


def explained(function: Callable[..., Any], *values: Any) -> Any:
    """The function's result; what a user can correct becomes a message of the page."""
    try:
        return function(*values)
    except (UserError, ValueError) as error:
        raise message(error) from error


def message(error: Exception) -> gr.Error:
    """A message that stays until it is closed. Its text may hold names of uploads, and must not become markup."""
    return gr.Error(html.escape(str(error)), duration=None, print_exception=False)
