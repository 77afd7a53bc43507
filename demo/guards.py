"""What Gradio leaves open: ways into the server that this page has no use for (it would fetch any
public URL that is sent in place of a file, and hand it to whoever asks), and threads that are still
at work when the server has been closed."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


def files_only(upload: gr.File) -> gr.File:
    """Make a file component take files from the browser and no URL.

    Not a subclass: Gradio writes a .pyi file beside the source of every new component class.
    """
    take = upload.async_move_resource_to_block_cache

    async def take_file(url_or_file_path: str | Path | None) -> str | None:
        if re.match(r"https?:", str(url_or_file_path), re.IGNORECASE):
            raise gr.Error("Only a file from your own computer is taken.", print_exception=False)
        return await take(url_or_file_path)

    upload.async_move_resource_to_block_cache = take_file  # type: ignore[method-assign]
    return upload


class NoFetching:
    """ASGI middleware that refuses URLs in Gradio's file route."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if re.search(r"/(file|proxy)=https?:", scope.get("path", ""), re.IGNORECASE):
            await PlainTextResponse("Not served.", 403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class Closing(gr.Error):
    """It is too late to begin anything."""

    def __init__(self) -> None:
        super().__init__("The server is being closed.", print_exception=False)


class AtWork:
    """Knows which handlers are at work, so that nobody leaves while one of them is.

    They run in daemon threads. One that is within torch or OpenCV when Python ends would take the
    whole process with it: "terminate called without an active exception".
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count, self._closed = 0, False

    def watch(self, blocks: gr.Blocks) -> None:
        """Count the handlers that these Blocks have by now."""
        for listener in blocks.fns.values():
            if listener.fn is not None:
                listener.fn = self.counted(listener.fn)

    def counted(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """The same, waited for; once the server is being closed it raises `Closing`."""

        @functools.wraps(handler)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self._changed:
                if self._closed:
                    raise Closing
                self._count += 1
            try:
                return handler(*args, **kwargs)
            finally:
                with self._changed:
                    self._count -= 1
                    self._changed.notify_all()

        return wrapped

    def close(self, seconds: float = 60) -> None:
        """Let nobody begin anything, and wait until everybody has ended."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._count, seconds)
