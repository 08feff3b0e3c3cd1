"""Gradio's server, set to serve this machine only and to load nothing from elsewhere.

Gradio reads its settings from GRADIO_* variables, some of them while it is imported: they are set here, and those of
the user's shell are left out, so that none of them opens the page to the network. Answers forbid the browser to load
anything from elsewhere (Content-Security-Policy). Requests must name this machine as their host, as otherwise a web
site could have its own name resolved to 127.0.0.1 and read the page.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from lediflow.errors import UserError

log = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
OWN_NAMES = (ADDRESS, "localhost")
POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; frame-ancestors 'none'"
PREFIX = "GRADIO_"
LARGEST_UPLOAD = "200mb"
PROXY_EXCEPTIONS = ("NO_PROXY", "no_proxy")


def check_host(host: str) -> None:
    """UserError for an address that other machines could reach."""
    if host not in OWN_NAMES:
        raise UserError(
            f"host={host}: the page has no password, so it is served at {ADDRESS} only; leave host= out. To use it "
            f"from another machine, forward the port there: ssh -L 7860:{ADDRESS}:7860 THIS_MACHINE"
        )


def chosen_port(port: int) -> int:
    """The port, or a free one for 0; UserError if it cannot be used."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((ADDRESS, port))
        except OSError as error:
            raise UserError(
                f"port={port} cannot be used ({error.strerror}); another program may be serving there: choose another "
                "one, or port=0 for any free one"
            ) from error
        found: int = trial.getsockname()[1]
        return found


def set_environment(folder: Path, env: MutableMapping[str, str] = os.environ) -> None:
    """The environment that Gradio is imported and run in; uploads and pictures go to `folder`."""
    for name in [name for name in env if name.startswith(PREFIX)]:
        log.warning("%s is ignored by the studio", name)
        del env[name]
    env.update({f"{PREFIX}ANALYTICS_ENABLED": "False", f"{PREFIX}TEMP_DIR": str(folder)})
    env.update(HF_HUB_DISABLE_TELEMETRY="1", OTEL_SDK_DISABLED="true")
    for name in PROXY_EXCEPTIONS:  # Gradio asks its own page at the start
        env[name] = ",".join(filter(None, [env.get(name), *OWN_NAMES]))


def start(page: Any, port: int, looks: dict[str, Any]) -> str:
    """Serve a page (gradio.Blocks) in threads of this process; returns its address."""
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    only_here = [Middleware(TrustedHostMiddleware, allowed_hosts=[*OWN_NAMES]), Middleware(WithPolicy)]
    # it logs each of Gradio's requests to its own page
    logging.getLogger("httpx").setLevel(logging.WARNING)
    page.launch(
        server_name=ADDRESS,
        server_port=port,
        prevent_thread_lock=True,
        share=False,
        inbrowser=False,
        quiet=True,
        show_error=True,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        max_file_size=LARGEST_UPLOAD,
        app_kwargs={"middleware": only_here},
        **looks,
    )
    return f"http://{ADDRESS}:{port}"


def stop(page: Any) -> None:
    """End the server at once: open pages hold connections that would not end by themselves."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it reports each of them with a traceback
    page.server.force_exit = True
    page.close(verbose=False)


class WithPolicy:
    """Middleware (ASGI) that adds POLICY to every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {
                    **message,
                    "headers": [*message["headers"], (b"content-security-policy", POLICY.encode())],
                }
            await send(message)

        await self.app(scope, receive, send_with_policy)
