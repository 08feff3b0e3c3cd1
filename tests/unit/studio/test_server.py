"""The page is for this machine only, and nothing of its users stays behind."""

import json
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from harness.commands import invoke
from harness.edited import save_tiny_runs
from harness.studios import save_photograph, served

from lediflow.errors import UserError
from lediflow.studio import command, server
from lediflow.studio.folder import private_folder, remove_abandoned


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", ""])
def test_addresses_that_others_reach_are_refused(host):
    with pytest.raises(UserError, match=r"served at 127.0.0.1 only.*ssh -L"):
        server.check_host(host)


def test_a_used_port_is_refused_and_0_is_any_free_one():
    with server.socket.socket() as other:
        other.bind((server.ADDRESS, 0))
        other.listen()
        used = other.getsockname()[1]
        assert server.chosen_port(0) not in (0, used)
        with pytest.raises(UserError, match=rf"port={used} cannot be used.*choose another"):
            server.chosen_port(used)


def test_no_variable_of_the_shell_opens_the_page_or_turns_telemetry_on(tmp_path):
    env = {
        "GRADIO_SHARE": "True",
        "GRADIO_SERVER_NAME": "0.0.0.0",
        "GRADIO_TEMP_DIR": "/x",
        "NO_PROXY": "here",
    }
    server.set_environment(tmp_path, env)
    assert {name: value for name, value in env.items() if name.startswith("GRADIO_")} == {
        "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(tmp_path),
    }  # fmt: skip
    assert env["NO_PROXY"] == "here,127.0.0.1,localhost" and env["HF_HUB_DISABLE_TELEMETRY"] == "1"


def test_without_gradio_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    for name in ("page", "tabs", "controls"):
        monkeypatch.delitem(sys.modules, f"lediflow.studio.{name}", raising=False)
    monkeypatch.setattr(command, "set_environment", lambda folder: None)
    said = invoke("studio", "run=flow", "sampler=sampler", "port=0")
    assert said.status == 2
    assert said.err.count("\n") == 1 and "pip install 'lediflow[studio]'" in said.err


def test_the_folder_is_private_and_those_of_killed_studios_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = signal.getsignal(signal.SIGTERM)
    with private_folder() as folder:
        assert folder.stat().st_mode & 0o077 == 0
        killed = tmp_path / "lediflow-studio-killed"
        killed.mkdir()
        (killed / ".lock").touch()
        (tmp_path / "of-others").touch()
        remove_abandoned(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([folder.name, "of-others"])
    assert [path.name for path in tmp_path.iterdir()] == ["of-others"]
    assert signal.getsignal(signal.SIGTERM) == before


def ask(address, host=None, **more):
    request = urllib.request.Request(address, headers={"Host": host} if host else {}, **more)
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30)


def upload(url, file: Path) -> Path:
    """Upload a file as a browser does; where the studio keeps it."""
    head = '--edge\r\nContent-Disposition: form-data; name="files"; filename="secret.png"\r\n\r\n'
    body = head.encode() + file.read_bytes() + b"\r\n--edge--\r\n"
    request = urllib.request.Request(
        f"{url}/gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=edge"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return Path(json.loads(opener.open(request, timeout=30).read())[0])


@pytest.mark.processes
def test_a_studio_serves_this_machine_only_and_leaves_no_upload_behind(tmp_path):
    save_tiny_runs(tmp_path / "runs")
    photograph = save_photograph(tmp_path / "secret.png")
    with served(tmp_path) as studio:
        assert "a learned prior, 16 x 16 grey, flow " in studio.line and "on cpu" in studio.line
        page = ask(studio.url)
        assert "default-src 'self'" in page.headers["Content-Security-Policy"]
        assert "fonts.googleapis" not in page.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="400"):
            ask(studio.url, host="elsewhere.example")
        kept = upload(studio.url, photograph)
        assert kept.read_bytes() == photograph.read_bytes() and studio.temporary in kept.parents
        status, said = studio.end(signal.SIGTERM)
        assert status == 0 and "uploads and pictures are removed" in said
        assert list(studio.temporary.iterdir()) == []
        asked = set(studio.addresses.read_text().replace("b'", "'").split("\n")) - {""}
        assert asked and all("127.0.0.1" in one or "localhost" in one for one in asked), asked
