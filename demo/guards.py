"""Ways into the server that Gradio leaves open and this page has no use for: it would fetch any
public URL that is sent in place of a file, and hand it to whoever asks."""

from __future__ import annotations

import re
from pathlib import Path

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
