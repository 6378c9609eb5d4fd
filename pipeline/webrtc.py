"""WebRTC by aiortc, with HTTP for its signalling: WHIP (RFC 9725) to send, WHEP to watch."""

import asyncio
import contextlib
import secrets
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from pipeline.access import LOOPBACK, Access
from pipeline.errors import SinkError
from pipeline.serving import FRAMING, listening

T = TypeVar("T")

_watched: set["asyncio.Future[None]"] = set()
"""What waits for peers to be connected; a loop forgets tasks that nobody holds."""

CONNECT_WITHIN = 10.0
"""Seconds after its answer in which a peer is connected, or never: no way leads to it."""

NEEDED = 'needs pip install "fauve[live]"'


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.run_until_complete(self._cancel())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    async def _cancel(self) -> None:
        """Cancel what is left in the loop, and have it end."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Have the loop do `work`; its result.

        Raises:
            TimeoutError: it takes longer than `timeout` seconds, and is given up.
        """
        doing = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return doing.result(timeout)
        except TimeoutError:
            doing.cancel()
            raise

    def close(self) -> None:
        """End it, and what is left in it."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(2.0)


def parse_host(address: str) -> tuple[str, int]:
    """Host and port of whip:[HOST]:PORT or whep:[HOST]:PORT; this machine alone if no host is given.

    Raises:
        ValueError: it is none of these.
    """
    kind, _, place = address.partition(":")
    host, _, port = place.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{address}: is not of the form {kind}::8090 or {kind}:0.0.0.0:8090")
    return host.strip("[]") or "127.0.0.1", int(port)


def bind(address: str) -> tuple[socket.socket, Access, str]:
    """A socket that listens at `address`, who may connect, and the URL to give away.

    Raises:
        SinkError: the port is taken, or `address` is none, or as `Access`.
    """
    try:
        host, port = parse_host(address)
    except ValueError as error:
        raise SinkError(str(error)) from error
    access, kind = Access(host), address.partition(":")[0]
    there = listening(kind, host, port)
    return there, access, access.url(there.getsockname()[1], kind)


def connection(aiortc: Any, url: str) -> Any:
    """A new connection with somebody whom it meets at `url`.

    As aiortc has it, a STUN server of Google's is asked as whom others see this machine (RFC 8489); not where
    nobody else is met.
    """
    here = (urlsplit(url).hostname or "") in LOOPBACK
    return aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]) if here else None)


def end_unless_connected(peer: Any, end: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Have `end` called with `peer` if it is not connected within `CONNECT_WITHIN`; called in the loop."""

    async def watch() -> None:
        await asyncio.sleep(CONNECT_WITHIN)
        if peer.connectionState in ("new", "connecting"):
            await end(peer)

    watching = asyncio.ensure_future(watch())
    _watched.add(watching)
    watching.add_done_callback(_watched.discard)


def signalling(path: str, access: Access, accept: Any, end: Any, page: str = "") -> Any:
    """A web application that takes offers at `path` by POST and ends sessions by DELETE.

    Args:
        accept: coroutine that takes an offer's SDP and gives the answer's SDP and the peer.
        end: coroutine that ends a peer's session.
        page: HTML to serve at /, if any.
    """
    from starlette.applications import Starlette
    from starlette.responses import HTMLResponse, PlainTextResponse, Response
    from starlette.routing import Route

    # Most viewers leave without a word; their peers are not kept for that.
    sessions: WeakValueDictionary[str, Any] = WeakValueDictionary()

    def query(request: Any) -> str:
        return str(request.scope["query_string"].decode("latin-1"))

    def allowed(request: Any) -> bool:
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        return access.allows(f"token={bearer}" if bearer else query(request), request.headers)

    async def offer(request: Any) -> Any:
        if not allowed(request):
            return PlainTextResponse("The address has a token; use the whole of it.", 403)
        if not request.headers.get("Content-Type", "").startswith("application/sdp"):
            return PlainTextResponse("An offer is application/sdp.", 415)
        try:
            answer, peer = await accept((await request.body()).decode())
        except Exception as error:  # whatever aiortc says of a broken offer
            return PlainTextResponse(f"This offer cannot be answered: {error}", 400)
        name = secrets.token_urlsafe(8)
        sessions[name] = peer
        # With the token of an offer that had it there: who ends the session has nothing but this address.
        headers = {"Location": f"/{path}/{name}" + (f"?{query(request)}" if query(request) else "")}
        return Response(answer, 201, headers, "application/sdp")

    async def delete(request: Any) -> Any:
        peer = sessions.pop(request.path_params["name"], None) if allowed(request) else None
        if peer is None:
            return PlainTextResponse("No such session.", 404)
        await end(peer)
        return Response(status_code=200)

    async def index(request: Any) -> Any:
        if not allowed(request):
            return PlainTextResponse("The address has a token; open the whole of it.", 403)
        return HTMLResponse(page, headers=FRAMING)

    routes = [
        Route(f"/{path}", offer, methods=["POST"]),
        Route(f"/{path}/{{name}}", delete, methods=["DELETE"]),
    ]
    return Starlette(routes=[*routes, Route("/", index)] if page else routes)


def serve(loop: Loop, there: socket.socket, application: Any) -> Callable[[], None]:
    """Serve `application` on `there` in `loop`; what ends it."""
    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config(application, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    )
    serving = asyncio.run_coroutine_threadsafe(server.serve(sockets=[there]), loop.loop)

    def end() -> None:
        server.should_exit = True
        with contextlib.suppress(TimeoutError):
            serving.result(2.0)
        there.close()

    return end
