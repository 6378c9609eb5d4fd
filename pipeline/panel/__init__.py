"""The control panel in the browser: the picture, big sliders for a dark stage, and how it goes."""

import asyncio
import base64
import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import cv2

from engines import Engine, EngineError, Look, bundled
from pipeline.access import Access
from pipeline.controls import Controls
from pipeline.errors import SinkError
from pipeline.frame import Frame
from pipeline.midi import Midi
from pipeline.serving import FRAMING, listening
from pipeline.sinks import Sink
from pipeline.sinks.preview import Jpegs

log = logging.getLogger("fauve")

STATUS_EVERY = 0.5
"""Seconds between two reports of how it goes."""


class PanelSink(Sink):
    """Keeps the newest picture for whoever looks at the panel."""

    name = "panel"

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number = 0
        self._image: Any = None
        self._jpegs = Jpegs()
        self._over = False

    def write(self, frame: Frame) -> None:
        """Show one frame."""
        with self._changed:
            self._number, self._image = self._number + 1, frame.image
            self._changed.notify_all()

    def newer(self, than: int, timeout: float) -> tuple[int, bytes]:
        """The newest picture as a JPEG and its number; `than` and nothing if no other comes in time."""
        with self._changed:
            # A page that was open before this run has seen larger numbers.
            self._changed.wait_for(lambda: self._over or self._number not in (0, than), timeout)
            number, image = self._number, self._image
        return (than, b"") if number in (0, than) else (number, self._jpegs.of(number, image))

    def mux(self, packet: Any) -> None:
        """The panel is silent."""

    def close(self) -> None:
        """Leave the last picture where it is, and nobody waiting for another."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def abort(self) -> None:
        """The same."""
        self.close()


def thumbnails(engine: Engine) -> dict[str, str]:
    """The pack's golden picture in each of its styles, as data URLs by name; none for a pack without one."""
    golden = engine.style.golden()
    if golden is None:
        return {}
    pictures = {}
    for style in engine.style.styles:
        try:
            painted = engine(golden.image, Look({style: 1.0}))
        except EngineError:
            return {}
        written, content = cv2.imencode(".jpg", painted[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
        assert written, "JPEG takes any 8-bit picture"
        pictures[style] = "data:image/jpeg;base64," + base64.b64encode(content.tobytes()).decode()
    return pictures


def parsed(text: str | None) -> Any:
    """What a message says; None is one in binary.

    Raises:
        ValueError: it is no JSON that anybody could mean.
    """
    try:
        return json.loads(text or "")
    except (ValueError, RecursionError) as error:
        raise ValueError("a message is an object in JSON") from error


class _Page:
    """What an open page has not been told yet; used in the loop that serves it."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._news: dict[str, Any] = {}

    def tell(self, message: Mapping[str, Any]) -> None:
        """Add to it. Only the newest counts: of a thousand changes a second, a page gets what it can take."""
        self._news.update(message)
        self._changed.set()

    async def news(self, timeout: float) -> dict[str, Any]:
        """What is new since the last call, as soon as anything is; nothing if nothing is in time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout)
        news, self._news = self._news, {}
        self._changed.clear()
        return news


class Panel:
    """Serves the panel at http://HOST:PORT/ and takes what is turned there.

    One WebSocket for each page: the state after each change from anywhere and a report twice a second go
    out, the pictures of a pack's styles, as data URLs, before it is played, and what MIDI learns;
    `{"set": NAME, "value": ...}` and `{"learn": CONTROL}` come in.

    Args:
        status: gives how the run goes.
        midi: learns what its knobs and keys turn; None where MIDI is not listened to.

    Raises:
        SinkError: the port is taken, or starlette and uvicorn are not installed.
    """

    def __init__(
        self,
        controls: Controls,
        status: Callable[[], dict[str, Any]],
        host: str,
        port: int,
        *,
        midi: Midi | None = None,
    ) -> None:
        try:
            import uvicorn
        except ImportError as error:
            raise SinkError('--panel needs pip install "fauve[live]"') from error
        self.sink = PanelSink()
        self._controls = controls
        self._status = status
        self._pictures: dict[str, dict[str, str]] = {}
        """Of the styles of each pack."""
        self._midi = midi
        self._access = Access(host)
        self._pages: set[_Page] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = threading.Event()
        self._listening = listening("--panel", host, port)
        self.url = self._access.url(self._listening.getsockname()[1])
        config = uvicorn.Config(
            self._app(), log_level="error", lifespan="off", ws_max_size=65536, timeout_graceful_shutdown=1
        )
        self._server: Any = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="panel", daemon=True)
        self._thread.start()
        controls.listen(lambda state: self._spread({"state": state}))
        if midi is not None:
            midi.changed = lambda: self._spread({"midi": midi.state})

    def _serve(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._listening]))

    def show_styles(self, pack: str, engine: Engine) -> None:
        """Have each page show what the styles of `pack` paint; `engine` paints nothing else meanwhile."""
        self._pictures = {**self._pictures, pack: thumbnails(engine)}
        self._spread({"pictures": self._pictures})

    def _spread(self, message: Mapping[str, Any]) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._tell, message)

    def _tell(self, message: Mapping[str, Any]) -> None:
        for page in self._pages:
            page.tell(message)

    def _app(self) -> Any:
        from starlette.applications import Starlette
        from starlette.responses import HTMLResponse, PlainTextResponse, Response
        from starlette.routing import Route, WebSocketRoute
        from starlette.websockets import WebSocket, WebSocketDisconnect

        html = files("pipeline.panel").joinpath("panel.html").read_text("utf-8")

        def allowed(asked: Any) -> bool:
            # Its `url` cannot be read where the header Host is nonsense.
            return self._access.allows(asked.scope["query_string"].decode("latin-1"), asked.headers)

        def refused(request: Any) -> Any:
            if allowed(request):
                return None
            return PlainTextResponse("The address of this panel has a token; open the whole of it.", 403)

        async def index(request: Any) -> Any:
            return refused(request) or HTMLResponse(html, headers=FRAMING)

        async def picture(request: Any) -> Any:
            no = refused(request)
            if no is not None:
                return no
            after = request.query_params.get("after", "0")
            number, content = await asyncio.to_thread(
                self.sink.newer, int(after) if after.isdecimal() and len(after) < 20 else 0, 2.0
            )
            headers = {"Cache-Control": "no-store", "X-Number": str(number)}
            return Response(content, 200 if content else 204, headers, "image/jpeg")

        async def control(socket: WebSocket) -> None:
            if not allowed(socket):
                await socket.close(1008)
                return
            await socket.accept()
            self._loop = asyncio.get_running_loop()
            page = _Page()
            self._pages.add(page)
            try:
                await send(
                    socket,
                    {
                        "state": self._controls.state,
                        "pictures": self._pictures,
                        "packs": bundled(),
                        "midi": None if self._midi is None else self._midi.state,
                    },
                )
                await asyncio.gather(take(socket), tell(socket, page))
            except (WebSocketDisconnect, RuntimeError):
                return
            finally:
                self._pages.discard(page)

        async def send(socket: WebSocket, message: Mapping[str, Any]) -> None:
            # In ASCII, unlike `send_json`: the name of a file can be any bytes.
            await socket.send_text(json.dumps(message))

        async def take(socket: WebSocket) -> None:
            while True:
                received = await socket.receive()
                if received["type"] == "websocket.disconnect":
                    raise WebSocketDisconnect(received.get("code", 1000))
                try:
                    self._take(parsed(received.get("text")))
                except ValueError as error:
                    await send(socket, {"error": str(error), "state": self._controls.state})

        async def tell(socket: WebSocket, page: _Page) -> None:
            due = time.monotonic() + STATUS_EVERY
            while not self._closed.is_set():
                message = await page.news(max(0.0, due - time.monotonic()))
                if time.monotonic() >= due:
                    message["status"] = self._status()
                    due = time.monotonic() + STATUS_EVERY
                if message:
                    await send(socket, message)
            await socket.close()

        return Starlette(
            routes=[Route("/", index), Route("/picture", picture), WebSocketRoute("/control", control)]
        )

    def _take(self, message: Any) -> None:
        if not isinstance(message, dict):
            raise ValueError("a message is an object in JSON")
        if "set" in message:
            self._controls.set(str(message["set"]), message.get("value"))
        elif "learn" in message and self._midi is not None:
            self._midi.learn(str(message["learn"]))
        else:
            raise ValueError("a message sets a control, or has MIDI learn one where there is MIDI")

    def close(self) -> None:
        """Stop serving."""
        self._closed.set()
        self._server.should_exit = True
        self._thread.join(3.0)
        self._listening.close()
