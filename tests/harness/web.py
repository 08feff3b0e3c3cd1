"""A web server over a folder, as plain as object stores are: GET and HEAD, byte ranges, and bad days on demand."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FolderServer(ThreadingHTTPServer):
    """Serves `folder`, each answer after a delay; the next `failures` requests get status 500."""

    daemon_threads = True
    request_queue_size = 256  # a batch of ranges comes at once

    def __init__(self, folder: Path, delay_seconds: float):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.delay_seconds = folder, delay_seconds
        self.failures = 0
        self.knows_ranges = True
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, range

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: FolderServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append((self.command, self.path, wanted))
        time.sleep(self.server.delay_seconds)
        file = self.server.folder / self.path.partition("?")[0].lstrip("/")
        if self.server.failures:
            self.server.failures -= 1
            return self._send(500, b"", {})
        if not file.is_file():
            return self._send(404, b"", {})
        size, headers, status = file.stat().st_size, {"Accept-Ranges": "bytes"}, 200
        begin, end = 0, size - 1
        if wanted and self.server.knows_ranges and (match := re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)):
            begin, end = int(match[1]), min(int(match[2] or end), end)
            headers["Content-Range"], status = f"bytes {begin}-{end}/{size}", 206
        with file.open("rb") as stream:
            stream.seek(begin)
            self._send(status, stream.read(end + 1 - begin), headers, with_body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], with_body: bool = True) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def serving(folder: Path, delay_seconds: float = 0.0) -> Iterator[FolderServer]:
    """The folder on the web, as long as the block lasts."""
    server = FolderServer(folder, delay_seconds)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
