"""Dashboards as W&B workspaces: the specification against a stored one, and what reaches a stand-in of the server."""

import json
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
import wandb_workspaces.reports.v2.interface as reports
import wandb_workspaces.workspaces.interface as workspaces
import wandb_workspaces.workspaces.internal as internal

from lediflow.dashboard import main
from lediflow.dashboard.panels import dashboards
from lediflow.dashboard.workspace import specification, view_name
from lediflow.stages import STAGES

STORED = Path(__file__).parents[2] / "golden" / "dashboards.json"


def stored_form(found):
    """JSON with a line for each panel."""
    lines = []
    for stage, view in found.items():
        bank = view["spec"]["section"]["panelBankConfig"]
        sections = [
            {**section, "panels": [json.dumps(panel, sort_keys=True) for panel in section["panels"]]}
            for section in bank["sections"]
        ]
        lines.append({"stage": stage, "sections": sections, "view": {**view, "spec": None}})
        lines[-1]["settings"] = {**view["spec"]["section"], "panelBankConfig": {**bank, "sections": []}}
    return json.dumps(lines, indent=1, sort_keys=True) + "\n"


def test_the_specification_is_the_stored_one():
    """To change it on purpose: write `stored_form(found)` to the file, and look at the difference."""
    found = {dashboard.stage: specification(dashboard, project="lediflow") for dashboard in dashboards()}
    assert stored_form(found) == STORED.read_text()


def test_every_panel_has_images_seen_as_its_x_axis():
    for dashboard in dashboards():
        section = specification(dashboard, project="p")["spec"]["section"]
        assert section["settings"]["xAxis"] == "images_seen"
        for shown in section["panelBankConfig"]["sections"]:
            assert shown["localPanelSettings"]["xAxis"] == "images_seen"
            curves = [panel for panel in shown["panels"] if panel["viewType"] == "Run History Line Plot"]
            assert {panel["config"]["xAxis"] for panel in curves} <= {"images_seen"}


def test_panels_of_a_section_do_not_overlap():
    for dashboard in dashboards():
        for section in specification(dashboard, project="p")["spec"]["section"]["panelBankConfig"][
            "sections"
        ]:
            cells = [
                (x, y)
                for place in (panel["layout"] for panel in section["panels"])
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            ]
            assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24


class Server:
    """A stand-in of W&B that keeps the views of one project."""

    default_entity = "team"

    def __init__(self):
        self.views, self.numbers, self.has_project = {}, count(1), True

    def projects(self, entity):
        return [SimpleNamespace(name="lediflow")]

    def execute(self, api, query, variables):
        if "upsertView" in query:
            view = {"id": variables.get("id") or f"view-{next(self.numbers)}", "name": variables["name"]}
            self.views[view["id"]] = {**variables, **view}
            return {"upsertView": {"view": view | self.report(variables, view), "inserted": True}}
        if "internalId" in query:
            return {"project": {"internalId": "1"}}
        found = [
            {"id": key, "displayName": view["displayName"], "spec": view["spec"]}
            for key, view in self.views.items()
            if view["name"] == variables["viewName"]
        ]
        project = {"allViews": {"edges": [{"node": node} for node in found]}}
        return {"project": project if self.has_project else None}

    def report(self, variables, view):
        """What the server answers for a report."""
        project = {"name": variables["projectName"], "entityName": variables["entityName"]}
        return {
            "displayName": variables["displayName"],
            "project": project,
            "spec": variables["spec"],
            **view,
        }


@pytest.fixture
def server(monkeypatch):
    server = Server()
    monkeypatch.setattr(wandb, "Api", lambda: server)
    for module in (internal, reports):
        monkeypatch.setattr(module, "execute_graphql", server.execute)
    for module in (workspaces, reports):
        monkeypatch.setattr(module, "get_app_url", lambda api: "https://wandb.example")
    return server


def call(monkeypatch, *arguments):
    """Run the command; its exit status."""
    monkeypatch.setattr("sys.argv", ["dashboard", *map(str, arguments)])
    try:
        main()
    except SystemExit as leaving:
        return leaving.code
    return 0


def test_create_saves_a_view_for_each_stage_and_update_replaces_it(server, monkeypatch, capsys):
    assert call(monkeypatch, "create", "--project", "lediflow") == 0
    assert [view["displayName"] for view in server.views.values()] == [
        "LeDiFlow: auxiliary", "LeDiFlow: flow", "LeDiFlow: latent sampler",
    ]  # fmt: skip
    assert {view["entityName"] for view in server.views.values()} == {"team"}
    addresses = capsys.readouterr().out.splitlines()
    assert addresses[1] == "LeDiFlow: flow: https://wandb.example/team/lediflow?nw=lediflowflow"

    before = {key: view["spec"] for key, view in server.views.items()}
    assert call(monkeypatch, "update", "--project", "lediflow", "--stage", "flow") == 0
    assert list(server.views) == list(before)
    stored = json.loads(server.views["view-2"]["spec"])["section"]["panelBankConfig"]["sections"]
    assert stored[0]["name"] == "Loss" and server.views["view-1"]["spec"] == before["view-1"]


def test_what_exists_is_not_created_and_what_is_missing_not_updated(server, monkeypatch, capsys):
    assert call(monkeypatch, "update", "--project", "lediflow") == 2
    assert (
        "no workspace for stage=auxiliary; use `python -m lediflow.dashboard create"
        in capsys.readouterr().err
    )
    assert call(monkeypatch, "create", "--project", "lediflow", "--stage", "flow", "--entity", "lab") == 0
    assert call(monkeypatch, "create", "--project", "lediflow", "--stage", "flow", "--entity", "lab") == 2
    assert "lab/lediflow has a workspace for stage=flow; use `python" in capsys.readouterr().err
    server.has_project = False
    assert call(monkeypatch, "create", "--project", "lediflow") == 2
    assert "does not exist at W&B" in capsys.readouterr().err


def test_a_report_is_a_draft_with_the_same_panels(server, monkeypatch, capsys):
    assert call(monkeypatch, "create", "--project", "lediflow", "--stage", "flow", "--report") == 0
    view, report = server.views.values()
    assert report["type"] == "runs/draft" and report["displayName"] == "LeDiFlow: flow"
    titles = [panel["config"]["chartTitle"] for panel in panels_in(json.loads(report["spec"]))]
    assert titles == [panel["config"]["chartTitle"] for panel in panels_in(json.loads(view["spec"]))]


def panels_in(value):
    """All panels in a specification, in order."""
    if isinstance(value, dict):
        own = [value] if "chartTitle" in value.get("config", {}) else []
        return own + [panel for item in value.values() for panel in panels_in(item)]
    return [panel for item in value for panel in panels_in(item)] if isinstance(value, list) else []


def test_without_a_login_the_command_says_what_to_do(monkeypatch, capsys):
    def refuse():
        raise wandb.errors.UsageError("No API key configured")

    monkeypatch.setattr(wandb, "Api", refuse)
    assert call(monkeypatch, "create", "--project", "lediflow", "--report") == 2
    assert "run `wandb login`" in capsys.readouterr().err


def test_an_error_of_the_server_is_shown_without_secrets(monkeypatch, capsys):
    def fail():
        raise wandb.errors.CommError("https://api:0123456789abcdef@wandb.example is unreachable")

    monkeypatch.setattr(wandb, "Api", fail)
    assert call(monkeypatch, "create", "--project", "lediflow") == 2
    said = capsys.readouterr().err
    assert "wandb.example is unreachable" in said and "0123456789abcdef" not in said


def test_a_dry_run_contacts_nobody(monkeypatch, capsys):
    monkeypatch.setattr(wandb, "Api", None)
    assert call(monkeypatch, "create", "--project", "p", "--dry-run") == 0
    assert list(json.loads(capsys.readouterr().out)) == list(STAGES)


def test_names_of_views_have_no_dashes_of_their_own():
    """W&B adds `nw-` and `-v` and removes them from the address wherever they stand."""
    assert view_name("latent_sampler") == "nw-lediflowlatentsampler-v"
