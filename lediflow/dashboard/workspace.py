"""A dashboard as a workspace of Weights & Biases. The only module that imports wandb_workspaces.

A workspace is a saved view of a project. Its name in the address is derived from the stage, so that `update` finds what
`create` made. Building one needs no network and no login; saving it needs both. A W&B report asks the server when it is
built, so it is built only after the login was checked.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from lediflow.dashboard.panels import COLUMNS, Dashboard, Panel, X
from lediflow.errors import UserError
from lediflow.tracking.metrics import Values
from lediflow.tracking.secrets import without_secrets

WIDTHS = {"curves": 8, "bars": 8, "points": 8, "pictures": 24}  # of a row of 24
HEIGHTS = {"curves": 6, "bars": 6, "points": 6, "pictures": 12}
ROW = 24
DRAWN = ("__id__",)  # keys of a specification whose values are drawn at random
STAGE_KEY = "stage.value.name"  # how W&B stores the option stage.name


def specification(dashboard: Dashboard, *, project: str, entity: str = "") -> dict[str, Any]:
    """The workspace as W&B stores it, without the panels' drawn ids."""
    model = build_workspace(dashboard, project=project, entity=entity)._to_model()
    found: dict[str, Any] = without_drawn(model.model_dump(by_alias=True, exclude_none=True))
    return found


def without_drawn(value: Any) -> Any:
    """The value without entries that are drawn at random."""
    if isinstance(value, dict):
        return {key: without_drawn(item) for key, item in value.items() if key not in DRAWN}
    return [without_drawn(item) for item in value] if isinstance(value, list) else value


def build_workspace(dashboard: Dashboard, *, project: str, entity: str = "") -> Any:
    """The `Workspace` of a dashboard, filtered to the runs of its stage."""
    spaces = import_workspaces("workspaces")
    expressions = import_workspaces("expr")
    workspace = spaces.Workspace(
        entity=entity,
        project=project,
        name=dashboard.title,
        sections=[
            spaces.Section(
                name=section.name,
                is_open=section.is_open,
                panels=build_panels(section.panels, dashboard.values),
                panel_settings=spaces.SectionPanelSettings(x_axis=X),
            )
            for section in dashboard.sections
        ],
        # buckets keep the smallest and largest value of each, so that spikes of one step are seen
        settings=spaces.WorkspaceSettings(x_axis=X, point_visualization_method="bucketing"),
        runset_settings=spaces.RunsetSettings(
            filters=[expressions.Config(STAGE_KEY).isin([dashboard.stage])],
            pinned_columns=[f"summary:{number}.{summary}" for number, summary in COLUMNS],
        ),
    )
    workspace._internal_name = view_name(dashboard.stage)
    return workspace


def view_name(stage: str) -> str:
    """The name under which W&B stores the view of a stage; without the dashes that W&B itself adds and removes."""
    return f"nw-lediflow{''.join(filter(str.isalnum, stage))}-v"


def build_panels(panels: list[Panel], values: Values) -> list[Any]:
    """The panels, placed in rows from left to right."""
    placed, x, y, row_height = [], 0, 0, 0
    for panel in panels:
        width, height = WIDTHS[panel.kind], HEIGHTS[panel.kind]
        if x + width > ROW:
            x, y, row_height = 0, y + row_height, 0
        built = BUILDERS[panel.kind](import_workspaces("reports.v2"), panel, values)
        built.layout = import_workspaces("reports.v2").Layout(x=x, y=y, w=width, h=height)
        placed.append(built)
        x, row_height = x + width, max(row_height, height)
    return placed


def curves(reports: ModuleType, panel: Panel, values: Values) -> Any:
    lines = {"metric_regex": panel.regex} if panel.regex else {"y": list(panel.numbers)}
    return reports.LinePlot(
        title=panel.title,
        x=X,
        title_x="images seen",
        title_y=panel.unit(values) or None,
        log_y=panel.is_log or None,
        **lines,
    )


def bars(reports: ModuleType, panel: Panel, values: Values) -> Any:
    return reports.BarPlot(
        title=panel.title, metrics=list(panel.numbers), title_x=panel.unit(values) or None, orientation="v"
    )


def points(reports: ModuleType, panel: Panel, values: Values) -> Any:
    x, y = (reports.SummaryMetric(f"{number}.last") for number in panel.numbers)
    return reports.ScatterPlot(title=panel.title, x=x, y=y)


def pictures(reports: ModuleType, panel: Panel, values: Values) -> Any:
    return reports.MediaBrowser(
        title=panel.title, media_keys=list(panel.numbers), mode="gallery", gallery_axis="step"
    )


BUILDERS = {"curves": curves, "bars": bars, "points": points, "pictures": pictures}


# --- the server ---


def create(dashboard: Dashboard, *, project: str, entity: str) -> str:
    """Save a new workspace; its address. UserError if the project has one for this stage."""
    if view_id(dashboard.stage, project, entity):
        raise UserError(
            f"{entity}/{project} has a workspace for stage={dashboard.stage}; use "
            f"`python -m lediflow.dashboard update --project {project}`"
        )
    return save(build_workspace(dashboard, project=project, entity=entity))


def update(dashboard: Dashboard, *, project: str, entity: str) -> str:
    """Replace the workspace of a stage; its address. UserError if the project has none."""
    found = view_id(dashboard.stage, project, entity)
    if not found:
        raise UserError(
            f"{entity}/{project} has no workspace for stage={dashboard.stage}; use "
            f"`python -m lediflow.dashboard create --project {project}`"
        )
    workspace = build_workspace(dashboard, project=project, entity=entity)
    workspace._internal_id = found
    return save(workspace)


def save(workspace: Any) -> str:
    return str(workspace.save().url)


def view_id(stage: str, project: str, entity: str) -> str:
    """The id of the saved view of a stage; empty if the project has none. UserError if there is no such project."""
    internal = import_workspaces("workspaces.internal")
    try:
        name = internal._internal_name_to_url_query_str(view_name(stage))
        return str(internal.View.from_name(entity, project, name).id)
    except ValueError as error:  # what the package raises where there is no such view, or no such project
        if str(error).startswith("Project"):
            raise UserError(
                f"{entity}/{project} does not exist at W&B, or this account cannot read it; the first run that is "
                "sent there makes it: `python -m lediflow.sync RUN`"
            ) from error
    return ""


def create_report(dashboard: Dashboard, *, project: str, entity: str) -> str:
    """A W&B report with the panels of a dashboard, saved as a draft; its address. Contacts the server."""
    reports, expressions = import_workspaces("reports.v2"), import_workspaces("expr")
    runs = reports.Runset(
        project=project, entity=entity, filters=[expressions.Config(STAGE_KEY).isin([dashboard.stage])]
    )
    blocks = [reports.TableOfContents()]
    for section in dashboard.sections:
        panels = build_panels(section.panels, dashboard.values)
        blocks += [reports.H2(section.name), reports.PanelGrid(runsets=[runs], panels=panels)]
    report = reports.Report(
        project=project, entity=entity, title=dashboard.title, blocks=blocks, width="fluid"
    )
    return str(report.save(draft=True).url)


def require_login(entity: str | None) -> str:
    """The entity to save under: the given one, or the account's default. UserError where nobody is logged in."""
    wandb = import_module("wandb")
    try:
        api = wandb.Api()  # raises without a login
        found = entity or api.default_entity
    except wandb.errors.UsageError as error:
        raise UserError(
            "a dashboard is saved at Weights & Biases, and nobody is logged in here: run `wandb login`, or "
            "see the specification without a server: --dry-run --output dashboard.html"
        ) from error
    if not found:
        raise UserError("the W&B account has no default entity; give --entity TEAM_OR_USER")
    return str(found)


@contextlib.contextmanager
def server_errors() -> Iterator[None]:
    """Errors of the server or of the network as UserError, without secrets."""
    wandb = import_module("wandb")
    try:
        yield
    except wandb.errors.Error as error:
        raise UserError(f"W&B: {without_secrets(str(error))}; try again, or use --dry-run") from error


def import_workspaces(name: str) -> ModuleType:
    """A module of wandb_workspaces, or a UserError that says how to install the package."""
    return import_module(f"wandb_workspaces.{name}")


def import_module(name: str) -> ModuleType:
    with contextlib.suppress(ImportError):
        return importlib.import_module(name)
    raise UserError(f"{name} is not installed; `pip install 'lediflow[dashboard]'`")
