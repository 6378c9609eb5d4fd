"""OBS Studio, by obs-websocket 5: a Media Source that shows what fauve sends, made and checked from here."""

import asyncio
import base64
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np

from engines import Image, Size
from pipeline.errors import SinkError
from pipeline.serving import in_url

T = TypeVar("T")

NAME, KIND = "fauve", "ffmpeg_source"
"""Of the source in OBS, which calls the second a Media Source."""

OLDEST = 28
"""The first OBS with obs-websocket 5 in it."""

AT_ONCE = 3
"""Screenshots over one connection, before they are looked at."""

MOVES_WITHIN = 10.0
"""Seconds until the picture in OBS must move."""

MOVES_ALREADY = 1.5
"""Seconds within which it moves where somebody paints."""

LOCAL_PORT = 48_731
"""UDP port between fauve and an OBS on the same machine; of TCP, whoever paints into that OBS holds it."""

RTMP_PORT = 1935


@dataclass(frozen=True)
class Link:
    """How the picture gets to OBS: what fauve writes to, and what the Media Source reads."""

    output: str
    settings: dict[str, Any]


COMMON = {
    "is_local_file": False,
    "buffering_mb": 0,
    "reconnect_delay_sec": 1,
    "restart_on_activate": False,
    "clear_on_media_end": False,
    "close_when_inactive": False,
    "hw_decode": False,
}
"""Settings of a Media Source that cost the least latency: nothing is buffered."""


def link(host: str) -> Link:
    """The link to an OBS on `host`: NUT with motion JPEG on this machine, RTMP to any other."""
    return nut_link() if host in ("127.0.0.1", "localhost", "::1") else rtmp_link(host)


def nut_link() -> Link:
    """Motion JPEG in NUT to an OBS on this machine, which begins with what it sees first."""
    url = f"udp://127.0.0.1:{LOCAL_PORT}"
    options = (
        "fflags=nobuffer flags=low_delay probesize=32 analyzeduration=1 fpsprobesize=0 buffer_size=4000000"
    )
    return Link(f"nut+{url}", {**COMMON, "input": url, "input_format": "nut", "ffmpeg_options": options})


def rtmp_link(host: str) -> Link:
    """RTMP to an OBS on `host` that listens itself."""
    path = f":{RTMP_PORT}/live/{NAME}"
    options = "listen=1 analyzeduration=300000 fflags=nobuffer"
    settings = {"input": f"rtmp://0.0.0.0{path}", "input_format": "", "ffmpeg_options": options}
    return Link(f"rtmp://{in_url(host)}{path}", {**COMMON, **settings})


def by_hand(host: str) -> str:
    """The same in three clicks, for people who would rather do it themselves."""
    settings = link(host).settings
    format = f', Input Format "{settings["input_format"]}"' if settings["input_format"] else ""
    return (
        "1. In OBS, under Sources: + and Media Source.\n"
        f'2. Take the tick from Local File; Input "{settings["input"]}"{format}, '
        f'FFmpeg Options "{settings["ffmpeg_options"]}", Network Buffering 0 MB.\n'
        f"3. OK; then: fauve live camera:0 -o {link(host).output}"
    )


async def _there(call: Callable[..., Awaitable[dict[str, Any]]]) -> bool:
    """Whether OBS has a Media Source of fauve's; of that name, but of another kind, is somebody's own."""
    inputs = (await call("GetInputList"))["inputs"]
    return any((one["inputName"], one["inputKind"]) == (NAME, KIND) for one in inputs)


class Obs:
    """A running OBS.

    Args:
        host: where it runs.
        port: of its WebSocket server.
        password: of the same; empty if it asks for none.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 4455, password: str = "") -> None:
        self.host = host
        self.made = False
        """Whether `connect` made the Media Source, which was not there before."""
        self._where = f"OBS at {in_url(host)}:{port}"
        self._port = port
        self._password = password

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep two from painting into the same OBS: each would cut up the other's picture, or cut it off.

        Raises:
            SinkError: somebody does already; as `connect`.
        """
        painted = f"{self._where}: is painted into already; end the other fauve obs connect first"
        with contextlib.ExitStack() as stack:
            if link(self.host) != nut_link():
                # Whoever was cut off leaves a picture that stands still, and may come back.
                if self._talk(_there) and self.moves(MOVES_ALREADY):
                    raise SinkError(painted)
            else:
                # OBS has the UDP port of that number. Who is killed lets go of this one.
                try:
                    stack.enter_context(socket.create_server(("127.0.0.1", LOCAL_PORT)))
                except OSError as error:
                    raise SinkError(painted) from error
            yield

    def connect(self, how: Link | None = None) -> Link:
        """Make or update the Media Source in the scene that is shown; how to send to it.

        Args:
            how: the picture gets there; what suits the host if not given.

        Raises:
            SinkError: there is no OBS, it is too old, the password is wrong, or it refuses.
        """
        how = link(self.host) if how is None else how

        async def work(call: Callable[..., Awaitable[dict[str, Any]]]) -> Link:
            scene = (await call("GetCurrentProgramScene"))["currentProgramSceneName"]
            if await _there(call):
                await call("SetInputSettings", inputName=NAME, inputSettings=how.settings, overlay=True)
                items = (await call("GetSceneItemList", sceneName=scene))["sceneItems"]
                # It may be shown from within a group or another scene, too.
                shown = (await call("GetSourceActive", sourceName=NAME))["videoActive"]
                if shown or any(item["sourceName"] == NAME for item in items):
                    return how
                made = await call("CreateSceneItem", sceneName=scene, sourceName=NAME, sceneItemEnabled=True)
            else:
                made = await call(
                    "CreateInput",
                    sceneName=scene,
                    inputName=NAME,
                    inputKind=KIND,
                    inputSettings=how.settings,
                    sceneItemEnabled=True,
                )
                self.made = True
            canvas = await call("GetVideoSettings")
            # The whole canvas, whatever size the picture has.
            await call(
                "SetSceneItemTransform",
                sceneName=scene,
                sceneItemId=made["sceneItemId"],
                sceneItemTransform={
                    "boundsType": "OBS_BOUNDS_SCALE_INNER",
                    "boundsWidth": canvas["baseWidth"],
                    "boundsHeight": canvas["baseHeight"],
                },
            )
            return how

        return self._talk(work)

    def remove(self) -> bool:
        """Take the Media Source away; whether it was there.

        Raises:
            SinkError: as `connect`.
        """

        async def work(call: Callable[..., Awaitable[dict[str, Any]]]) -> bool:
            if not await _there(call):
                return False
            await call("RemoveInput", inputName=NAME)
            # OBS takes it away when nobody shows it any more.
            for _ in range(50):
                if not await _there(call):
                    break
                await asyncio.sleep(0.1)
            return True

        return self._talk(work)

    def moves(self, within: float = MOVES_WITHIN) -> bool:
        """Whether the picture of the Media Source moves, by two screenshots that differ.

        Raises:
            SinkError: as `connect`.
        """

        before = None
        for _, _, picture in self.screenshots(NAME, (320, 180), within, every=0.3):
            if before is not None and picture.shape == before.shape:
                difference = np.abs(picture.astype(np.int16) - before).mean()
                if difference > 0.5:
                    return True
            before = picture
        return False

    def screenshots(
        self, source: str, size: Size, seconds: float, *, every: float = 0.0
    ) -> Iterator[tuple[float, float, Image]]:
        """Screenshots of a source for some seconds, none while it has no picture.

        Yields:
            when it was asked for and when it came, in seconds of `time.monotonic`, and the picture.

        Raises:
            SinkError: as `connect`.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            yield from self._talk(lambda call: self._some_screenshots(call, source, size, end, every))

    async def _some_screenshots(
        self,
        call: Callable[..., Awaitable[dict[str, Any]]],
        source: str,
        size: Size,
        end: float,
        every: float,
    ) -> list[tuple[float, float, Image]]:
        """A few of them over one connection."""
        taken: list[tuple[float, float, Image]] = []
        while time.monotonic() < end and len(taken) < AT_ONCE:
            asked = time.monotonic()
            try:
                answer = await call(
                    "GetSourceScreenshot",
                    sourceName=source,
                    imageFormat="jpg",
                    imageWidth=size[0],
                    imageHeight=size[1],
                )
                came = time.monotonic()
                data = base64.b64decode(answer["imageData"].partition(",")[2])
                image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                taken.append((asked, came, image[..., ::-1]))
            except SinkError:
                every = max(every, 0.3)  # there is no picture yet
            await asyncio.sleep(every)
        return taken

    def _talk(self, work: Callable[[Callable[..., Awaitable[dict[str, Any]]]], Awaitable[T]]) -> T:
        try:
            import simpleobsws
            from websockets.exceptions import ConnectionClosed
        except ImportError as error:
            raise SinkError('fauve obs needs pip install "fauve[live]"') from error
        where = self._where

        async def talk() -> T:
            client = simpleobsws.WebSocketClient(f"ws://{in_url(self.host)}:{self._port}", self._password)
            try:
                await client.connect()
            except Exception as error:  # of several libraries, which say little
                raise SinkError(
                    f"{where}: does not answer; start OBS and tick Tools > WebSocket Server Settings > Enable"
                ) from error
            try:
                if not await client.wait_until_identified(5):
                    raise SinkError(
                        f"{where}: refuses the password; it stands under Tools > WebSocket Server Settings > "
                        "Show Connect Info, and goes behind --password"
                    )

                async def call(request: str, **data: Any) -> dict[str, Any]:
                    answer = await client.call(simpleobsws.Request(request, data or None))
                    if not answer.ok():
                        reason = answer.requestStatus.comment or f"code {answer.requestStatus.code}"
                        raise SinkError(f"{where}: {request}: {reason}")
                    return answer.responseData or {}

                version = (await call("GetVersion"))["obsVersion"]
                if int(version.partition(".")[0]) < OLDEST:
                    raise SinkError(f"{where}: is OBS {version}; from OBS {OLDEST} on this works")
                return await work(call)
            except (
                simpleobsws.MessageTimeout,
                simpleobsws.NotIdentifiedError,
                ConnectionClosed,
                ConnectionError,
            ) as error:
                raise SinkError(f"{where}: does not answer any more") from error
            finally:
                await client.disconnect()

        return asyncio.run(talk())
