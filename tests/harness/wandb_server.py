"""A stand-in for W&B's server on localhost, with as much of its interface as a run needs, without accounts and without
uploads of files.

It keeps the history of every run by line, as the real one does, and answers what it holds when a run is resumed. Its
behaviour can be changed while it runs: refuse, hang, or close the connection in the middle of an answer.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USER = {
    "id": "VXNlcjox",
    "username": "someone",
    "entity": "someone",
    "email": "a@b.c",
    "flags": "{}",
    "admin": False,
}


@dataclass
class StoredRun:
    """What the server holds of one run."""

    history: dict[int, dict[str, Any]] = field(default_factory=dict)  # by line
    summary: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    display_name: str = ""
    starts: int = 0

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [self.history[line] for line in sorted(self.history)]


class StandIn:
    """The server's state; `behaviour` is one of works, refuses, hangs, dies, full."""

    def __init__(self) -> None:
        self.runs: dict[str, StoredRun] = {}
        self.behaviour = "works"
        self.released = threading.Event()  # ends requests that hang
        self.requests: list[str] = []
        self.artifacts: dict[str, str] = {}  # digests by name
        self.used: list[tuple[str, str]] = []  # run, and artifact that it used
        self.bodies: list[bytes] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL operation; fields that nobody reads are left out."""
        if operation == "Viewer":
            return {"viewer": {**USER, "teams": {"edges": []}, "apiKeys": {"edges": []}}}
        if operation == "RunResumeStatus":
            return {
                "model": {"id": "m", "name": "p", "entity": USER, "bucket": self.resumed(variables["name"])}
            }
        if operation == "UpsertBucket":
            return {"upsertBucket": self.upserted(variables)}
        if operation == "ArtifactType":
            return {"project": {"artifact": None}}
        if operation == "CreateArtifact":
            return {"createArtifact": {"artifact": self.kept(variables["input"])}}
        if operation == "UseArtifact":
            self.used.append((variables["input"]["runName"], variables["input"]["artifactID"]))
            return {"useArtifact": {"artifact": {"id": variables["input"]["artifactID"]}}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/storage/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        return {}

    def kept(self, artifact: dict[str, Any]) -> dict[str, Any]:
        """An artifact as one whose files the server has already, so that nobody uploads them."""
        name = artifact["artifactCollectionName"]
        self.artifacts[name] = artifact["digest"]
        return {"id": name, "state": "COMMITTED", "artifactSequence": {"latestArtifact": {"id": name}}}

    def resumed(self, name: str) -> dict[str, Any] | None:
        run = self.runs.get(name)
        if run is None:
            return None
        tail = [json.dumps(row) for row in run.rows[-1:]]
        return {
            "id": "b", "name": name, "summaryMetrics": json.dumps(run.summary), "displayName": run.display_name,
            "logLineCount": 0, "historyLineCount": len(run.history), "eventsLineCount": 0,
            "historyTail": json.dumps(tail), "eventsTail": "[]", "config": json.dumps(run.config), "tags": [],
            "wandbConfig": json.dumps({"t": 1}),
        }  # fmt: skip

    def upserted(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables["name"]
        is_new = name not in self.runs
        run = self.runs.setdefault(name, StoredRun())
        run.starts += 1
        if variables.get("config"):
            run.config = json.loads(variables["config"])
        run.display_name = variables.get("displayName") or run.display_name
        project = {
            "id": "p",
            "name": variables.get("project") or "p",
            "entity": {"id": "e", "name": "someone"},
        }
        bucket = {"id": "b", "name": name, "displayName": run.display_name, "description": None, "config": None,
                  "sweepName": None, "project": project, "historyLineCount": len(run.history)}  # fmt: skip
        return {"bucket": bucket, "inserted": is_new}

    def stream(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """Lines of history and summary, each written at its offset."""
        run = self.runs.setdefault(name, StoredRun())
        for file, chunk in (body.get("files") or {}).items():
            for number, line in enumerate(chunk["content"]):
                if file == "wandb-history.jsonl":
                    run.history[chunk["offset"] + number] = json.loads(line)
                elif file == "wandb-summary.json":
                    run.summary = json.loads(line)
        return {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: StandIn

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        state = self.state
        state.bodies.append(body)
        if state.behaviour == "refuses":
            return self.reply(503, {"error": "unavailable"})
        if state.behaviour == "hangs":
            state.released.wait()
        if state.behaviour == "dies":
            self.close_connection = True
            self.connection.close()
            return None
        if "/otel/" in self.path or "/storage/" in self.path:  # wandb's own measurements; files
            return self.reply(200, {})
        content = json.loads(body or b"{}")
        if self.path.endswith("/graphql"):
            operation = (
                content.get("operationName") or content["query"].split("(")[0].split("{")[0].split()[-1]
            )
            state.requests.append(operation)
            return self.reply(200, {"data": state.answer(operation, content.get("variables") or {})})
        state.requests.append(self.path)
        if self.path.endswith("/file_stream") and state.behaviour == "full":
            return self.reply(402, {"error": "quota exceeded"})
        if self.path.endswith("/file_stream"):
            return self.reply(200, state.stream(self.path.split("/")[-2], content))
        return self.reply(200, {})

    do_PUT = do_POST  # noqa: N815

    def do_GET(self) -> None:
        self.do_POST()

    def reply(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        with suppress(OSError):  # the other side has given up
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        pass


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed break their connections; that is no fault of the server."""


@contextmanager
def standing_in() -> Iterator[StandIn]:
    """A server that runs while the block does."""
    state = StandIn()
    server = QuietServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"state": state}))
    state.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield state
    finally:
        state.released.set()
        server.shutdown()
        server.server_close()
