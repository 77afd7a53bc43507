"""A small web server that misbehaves on request, and a registry entry to try things on."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from checkpoints.registry import CHECKPOINTS, Checkpoint

BODY = bytes(range(256)) * 1200  # 300 KB, more than one block


@dataclass
class Page:
    """How the server answers one address."""

    body: bytes = BODY
    ranges: bool = True
    status: int = 200
    content_type: str = "application/octet-stream"
    cuts: list[int] = field(default_factory=list)  # the next answers stop after so many bytes
    pause: float = 0.0  # seconds before each tenth of the body
    gate: threading.Event | None = None  # the body waits for it
    asked: list[str | None] = field(default_factory=list)  # the Range header of every request


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path)
        if page is None:
            return self.send_error(404)
        wanted = self.headers.get("Range")
        page.asked.append(wanted)
        if page.status >= 400:
            return self.send_error(page.status)
        start = int(wanted[6:-1]) if wanted and page.ranges else 0
        if start and start >= len(page.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(page.body)}")
            return self.end_headers()
        body = page.body[start:]
        self.send_response(206 if start else 200)
        if start:
            last = len(page.body) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(page.body)}")
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if page.cuts:
            body = body[: page.cuts.pop(0)]
        if page.gate is not None:
            page.gate.wait(300)
        step = max(1, len(body) // 10) if page.pause else max(1, len(body))
        for at in range(0, len(body), step):
            time.sleep(page.pause)
            self.wfile.write(body[at : at + step])

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, Page] = {}

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that hang up are part of the game

    def add(self, path: str, page: Page) -> str:
        """Serve `page` and return its address."""
        self.pages[path] = page
        return f"http://127.0.0.1:{self.server_port}{path}"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of the package's own."""
    folder = tmp_path / "weights"
    monkeypatch.setenv("MIXCUT_CHECKPOINTS", str(folder))
    return folder


@pytest.fixture
def toy(weights_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Checkpoint]:
    """Enter a checkpoint `toy` (file toy.bin, content BODY) with the given sources."""

    def enter(*sources: Any, **changes: Any) -> Checkpoint:
        values: dict[str, Any] = {
            "name": "toy",
            "file": "toy.bin",
            "stage": "tracker",
            "summary": "a toy",
            "used_by": "nobody",
            "licence": "MIT",
            "upstream": "https://toys.example",
            "sha256": hashlib.sha256(BODY).hexdigest(),
            "size": len(BODY),
            "sources": sources,
        }
        checkpoint = Checkpoint(**(values | changes))
        monkeypatch.setitem(CHECKPOINTS, checkpoint.name, checkpoint)
        return checkpoint

    return enter
