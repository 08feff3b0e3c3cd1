"""A headless Chromium under test: what a page shows, says and asks for. Speaks Chromium's DevTools protocol over pipes.

A test that needs it has the marker `browser` and fails where there is none: install it (Debian and Ubuntu: `apt install
chromium`), or name another one in LEDIFLOW_BROWSER.
"""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.patience import Patience

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)


def find_browser() -> str:
    """The program; fails the test if there is none."""
    chosen = os.environ.get("LEDIFLOW_BROWSER", "")
    found = [path for name in ([chosen] if chosen else NAMES) if (path := shutil.which(name))]
    if not found:
        pytest.fail(f"no browser: {__doc__}", pytrace=False)
    return found[0]


class Browser:
    """One page of a browser, and what it has said and requested since it was opened."""

    def __init__(self, to_browser: io.FileIO, from_browser: io.FileIO) -> None:
        self.to_browser, self.from_browser = to_browser, from_browser
        self.rest = b""
        self.number = 0
        self.session: str | None = None
        self.console: list[str] = []  # errors and warnings
        self.requests: list[str] = []
        self.is_loaded = False

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.to_browser.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def receive(self) -> dict[str, Any]:
        """The next message; events are noted."""
        while b"\0" not in self.rest:
            part = self.from_browser.read(1 << 20)
            assert part, "the browser has ended"
            self.rest += part
        line, _, self.rest = self.rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self.note(message.get("method", ""), message.get("params", {}))
        return message

    def note(self, method: str, event: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.console.append(json.dumps(event["exceptionDetails"])[:500])
        elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "warning", "assert"):
            self.console.append(json.dumps(event["args"])[:500])
        elif method == "Log.entryAdded" and event["entry"]["level"] in ("error", "warning"):
            self.console.append(event["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            url = event["request"]["url"]
            self.requests += [] if url.startswith("data:") else [url]
        elif method == "Network.webSocketCreated":
            self.requests.append(event["url"])
        elif method == "Page.loadEventFired":
            self.is_loaded = True

    def start(self) -> None:
        """Open an empty page and follow its events."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, path: Path | str, *, width: int = 1200, height: int = 900, scheme: str = "light") -> None:
        """Load a file or an address in a window of this size, with the system's colours light or dark."""
        self.console, self.requests, self.is_loaded = [], [], False
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=path if isinstance(path, str) else path.absolute().as_uri())
        while not self.is_loaded:
            self.receive()
        self.settle()

    def settle(self) -> None:
        """Wait until what was begun is drawn."""
        frames = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 60))))"
        self.run(frames)

    def run(self, script: str) -> Any:
        """The value of an expression in the page; awaited if it is a promise."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, script: str, seconds: float = 30.0) -> Any:
        """The first true value of an expression in the page; fails the test after some seconds of an idle machine."""
        patience = Patience(seconds)
        while not (found := self.run(script)):
            assert not patience.is_over(), f"still not true: {script}; console: {self.console}"
            time.sleep(0.05)
        return found

    def click(self, selector: str) -> None:
        """Click the middle of an element, which is scrolled into view."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{element}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        self.settle()
        box = self.run(
            f"(box => [box.x + box.width / 2, box.y + box.height / 2])({element}.getBoundingClientRect())"
        )
        self.drag([tuple(box)])

    def drag(self, places: list[tuple[float, float]]) -> None:
        """Press the mouse at the first place, move it to the others and release it."""
        self.mouse("mouseMoved", *places[0])
        self.mouse("mousePressed", *places[0], button="left", clickCount=1)
        for place in places[1:]:
            self.mouse("mouseMoved", *place, button="left", buttons=1)
        self.mouse("mouseReleased", *places[-1], button="left", clickCount=1)

    def choose_file(self, selector: str, file: Path) -> None:
        """Give a file to a file field, as its dialogue does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def screenshot(self, path: Path | None = None, *, whole: bool = False) -> np.ndarray[Any, Any]:
        """The window, or the whole page, as RGB bytes; written to `path` if one is given."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        data = base64.b64decode(found["data"])
        if path:
            path.write_bytes(data)
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Move, press or release the mouse at a place of the window."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)


@contextmanager
def running_browser(folder: Path) -> Iterator[Browser]:
    """A browser with its profile in `folder`, ended at the end."""
    program = find_browser()
    (child_in, to_child), (from_child, child_out) = os.pipe(), os.pipe()
    child_ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (child_in, child_out)]

    def as_three_and_four() -> None:
        os.dup2(child_ends[0], 3)
        os.dup2(child_ends[1], 4)

    process = subprocess.Popen(
        [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=as_three_and_four, pass_fds=(3, 4),
    )  # fmt: skip
    for end in (child_in, child_out, *child_ends):
        os.close(end)
    browser = Browser(io.FileIO(to_child, "w"), io.FileIO(from_child, "r"))
    try:
        browser.start()
        yield browser
    finally:
        browser.to_browser.close()
        browser.from_browser.close()
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
