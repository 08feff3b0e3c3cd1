"""Weights by name, from a hub of our own on this machine, by the real client in real processes."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lediflow.codecs.weights import weights_folder
from lediflow.errors import UserError

COMMIT = "a" * 40
FILES = {
    "config.json": b"{}",
    "vae/config.json": b'{"vae": 1}',
    "vae/weights": b"1234",
    "huge.ckpt": b"0" * 9999,
}

ASK = """
import json, sys
from lediflow.codecs.weights import weights_folder
from lediflow.errors import UserError
answers = []
for name in sys.argv[1:]:
    try:
        folder = weights_folder(name, ["config.json", "weights"], "taesd")
        answers.append(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))
    except UserError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


class Hub(BaseHTTPRequestHandler):
    """One model, `owner/name`; one behind consent, `owner/gated`."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/owner/name/revision/"):
            self.answer(json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": []}).encode())
        elif path.startswith("/api/models/owner/name/tree/"):
            self.answer(json.dumps([listed(name, content) for name, content in FILES.items()]).encode())
        elif path.startswith(f"/owner/name/resolve/{COMMIT}/"):
            content = FILES[path.partition(f"{COMMIT}/")[2]]
            self.answer(content, {"ETag": f'"{git_hash(content)}"', "X-Repo-Commit": COMMIT})
        else:
            self.refuse("GatedRepo" if "gated" in path else "RepoNotFound")

    def answer(self, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def refuse(self, code: str) -> None:
        self.send_response(403 if code == "GatedRepo" else 404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_) -> None:
        """Says nothing."""


def listed(name: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(content), "oid": git_hash(content)}


def git_hash(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def ask(*names: str, cache, **variables: str) -> list:
    environment = os.environ | {"HF_HOME": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1"} | variables
    asked = subprocess.run(
        [sys.executable, "-c", ASK, *names], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(asked.stdout)


@pytest.fixture(scope="module")
def hub():
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.processes
def test_names_lead_to_the_wanted_files_and_what_cannot_be_downloaded_is_explained(hub, tmp_path):
    found, part, missing, gated = ask(
        "owner/name", "owner/name/vae", "owner/none", "owner/gated", cache=tmp_path, HF_ENDPOINT=hub
    )
    assert found == ["config.json"]  # the huge file stays where it is
    assert part == ["config.json", "weights"]
    assert "there is none of that name (or it is private" in missing
    assert "accept the terms on its page" in gated

    cached, unknown = ask(
        "owner/name/vae", "owner/other", cache=tmp_path, HF_ENDPOINT=hub, HF_HUB_OFFLINE="1"
    )
    assert cached == part
    assert "HF_HUB_OFFLINE is set and it is not in the cache" in unknown

    nobody = "http://127.0.0.1:9"  # the port of the discard service: no server listens
    cached, unknown = ask("owner/name/vae", "owner/other", cache=tmp_path, HF_ENDPOINT=nobody)
    assert cached == part
    assert "it is not in the cache and the hub does not answer" in unknown


def test_an_existing_folder_is_never_looked_up_on_the_hub(tmp_path, monkeypatch):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # importing it fails
    assert weights_folder("owner/name", ["config.json"], "taesd").samefile(tmp_path / "owner" / "name")


@pytest.mark.parametrize("where", ["/no/where", "./vae", "vae", "../a/b"])
def test_a_value_that_is_neither_a_folder_nor_a_hub_name_is_refused(where):
    with pytest.raises(UserError, match=f"codec.path={where} does not exist; give the folder of the weights"):
        weights_folder(where, ["config.json"], "taesd")
