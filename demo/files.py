"""What the page fetches by itself: frames, curves and results, by the session's secret id.

/media/<session>/frame/12.jpg       a frame, which the browser keeps
/media/<session>/curves.json        scores and lost frames of the run that is shown
/media/<session>/survey.json        how far finding everything on a frame has come, from 0 to 1
/media/<session>/picture.jpg        what the run under way has just made
/media/<session>/source             the video as it was uploaded, for a comparison
/media/<session>/project.zip         all of it, to go on elsewhere: see `demo/bundles.py`
/media/<session>/result/NAME        a file of the run that is shown; with ?download it is saved
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from demo.bundles import pack
from demo.guards import AtWork, Closing
from demo.pictures import to_jpeg
from demo.sessions import Session
from demo.workspace import Workspace
from media import InputError

_FOREVER = {"cache-control": "private, max-age=86400, immutable"}  # a frame never changes
_NEVER = {"cache-control": "no-store"}
_MISSING = Response("There is nothing here.", 404, media_type="text/plain")


class Files:
    """ASGI middleware that answers below /media/ and hands on everything else."""

    def __init__(self, app: ASGIApp, workspace: Workspace, at_work: AtWork) -> None:
        self._app = app
        self._workspace, self._at_work = workspace, at_work
        self._own = Starlette(
            routes=[
                Route("/media/{session}/frame/{index:int}.jpg", self._frame),
                Route("/media/{session}/curves.json", self._curves),
                Route("/media/{session}/survey.json", self._survey),
                Route("/media/{session}/picture.jpg", self._picture),
                Route("/media/{session}/source", self._source),
                Route("/media/{session}/project.zip", self._project),
                Route("/media/{session}/result/{name}", self._result),
            ],
            exception_handlers={Closing: lambda *_: Response(status_code=503)},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        own = scope["type"] == "http" and scope["path"].startswith("/media/")
        await (self._own if own else self._app)(scope, receive, send)

    async def _aside(self, function: Callable[..., Any], *values: Any) -> Any:
        """In a thread of its own, and nobody leaves before it has ended."""
        return await run_in_threadpool(self._at_work.counted(function), *values)

    async def _session(self, request: Request) -> Session | None:
        return await self._aside(self._workspace.find, request.path_params["session"])

    async def _frame(self, request: Request) -> Response:
        session = await self._session(request)
        if session is None:
            return _MISSING
        try:
            frame = await self._aside(session.looker.frame_at, request.path_params["index"])
        except InputError:
            return _MISSING
        data = await self._aside(to_jpeg, frame)
        return Response(data, media_type="image/jpeg", headers=_FOREVER)

    async def _curves(self, request: Request) -> Response:
        session = await self._session(request)
        if session is None:
            return _MISSING
        return JSONResponse(await self._aside(session.curves), headers=_NEVER)

    async def _survey(self, request: Request) -> Response:
        session = await self._session(request)
        if session is None:
            return _MISSING
        return JSONResponse(session.looker.surveyed, headers=_NEVER)

    async def _picture(self, request: Request) -> Response:
        session = await self._session(request)
        if session is None:
            return _MISSING
        if session.job is None or session.job.picture is None:
            return Response(status_code=204)
        index, data = session.job.picture
        headers = {**_NEVER, "x-frame": str(index)}
        return Response(data, media_type="image/jpeg", headers=headers)

    async def _source(self, request: Request) -> Response:
        session = await self._session(request)
        return _MISSING if session is None else FileResponse(session.source, headers=_NEVER)

    async def _project(self, request: Request) -> Response:
        session = await self._session(request)
        if session is None:
            return _MISSING
        headers = {**_NEVER, "content-disposition": 'attachment; filename="project.zip"'}
        return StreamingResponse(pack(session), media_type="application/zip", headers=headers)

    async def _result(self, request: Request) -> Response:
        session = await self._session(request)
        name = request.path_params["name"]
        job = None if session is None else session.shown
        files = [] if job is None else job.files
        for file in files:  # nothing that is not in the list is ever opened
            if file.name == name and file.is_file():
                saved = name if "download" in request.query_params else None
                return FileResponse(file, filename=saved, headers=_NEVER)
        return _MISSING
