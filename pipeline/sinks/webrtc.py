"""WebRTC to a server (WHIP, RFC 9725), or to everybody who opens a page (WHEP)."""

import asyncio
import contextlib
import logging
import re
import threading
import time
import urllib.error
import urllib.request
from fractions import Fraction
from http.client import HTTPException
from typing import Any
from urllib.parse import urljoin

import av
from av.audio.resampler import AudioResampler

from pipeline.address import shown
from pipeline.errors import SinkError
from pipeline.frame import Frame, Sound, VideoInfo
from pipeline.sinks import Sink
from pipeline.sinks.stream import check_host
from pipeline.sources.live import PAUSES
from pipeline.webrtc import (
    CONNECT_WITHIN,
    NEEDED,
    Loop,
    bind,
    connection,
    end_unless_connected,
    serve,
    signalling,
)

log = logging.getLogger("fauve")

SAMPLE_RATE = 48_000

SOUND_WAITING = 50
"""Pieces of 20 ms that may wait for a viewer before the oldest are left out."""

ANSWER_WITHIN = 10.0
"""Seconds that a server has for its answer."""

LAST_WORD_WITHIN = 1.0
"""The same, when it is told that the show is over."""

PAGE = """<!doctype html>
<meta charset="utf-8"><title>fauve</title>
<style>
  body { margin: 0; background: #000; }
  video { width: 100vw; height: 100vh; object-fit: contain; }
  p { position: fixed; inset: 0 0 auto; margin: 0; padding: .6rem 1rem; background: #d4452f; color: #fff;
      font: 16px/1.35 system-ui, sans-serif; }
  p:empty { display: none; }
</style>
<p role="alert"></p>
<video autoplay muted playsinline controls></video>
<script>
  const video = document.querySelector("video"), said = document.querySelector("p");
  async function watch() {
    const peer = new RTCPeerConnection(), stream = new MediaStream();
    peer.ontrack = event => { stream.addTrack(event.track); video.srcObject = stream; };
    const lost = new Promise((_, lose) => {
      peer.onconnectionstatechange = () => {
        if (peer.connectionState === "connected") said.textContent = "";
        if (["disconnected", "failed", "closed"].includes(peer.connectionState))
          lose(new Error("The connection is " + peer.connectionState));
      };
    });
    try {
      for (const kind of ["video", "audio"]) peer.addTransceiver(kind, { direction: "recvonly" });
      await peer.setLocalDescription(await peer.createOffer());
      await new Promise(done => {
        if (peer.iceGatheringState === "complete") done();
        peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && done();
      });
      const answer = await fetch("/whep" + location.search, { method: "POST",
        headers: { "Content-Type": "application/sdp" }, body: peer.localDescription.sdp });
      if (!answer.ok) throw new Error(await answer.text());
      await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
      await lost;
    } catch (error) {
      said.textContent = (error instanceof TypeError ? "fauve does not answer" : error.message)
        + "; it is tried again.";
    }
    peer.close();
    setTimeout(watch, 1000);
  }
  watch();
</script>
"""


class _Tracks:
    """The newest picture and the next pieces of sound for one peer, as aiortc's tracks."""

    def __init__(self, aiortc: Any, loop: Loop, sound: bool) -> None:
        self._loop = loop
        self._picture: asyncio.Queue[Any] = asyncio.Queue(1)
        self._pieces: asyncio.Queue[Any] = asyncio.Queue(SOUND_WAITING)
        pictures, pieces = self._picture, self._pieces

        class PictureTrack(aiortc.MediaStreamTrack):  # type: ignore[misc]
            kind = "video"

            async def recv(self) -> Any:
                return await pictures.get()

        class SoundTrack(aiortc.MediaStreamTrack):  # type: ignore[misc]
            kind = "audio"

            async def recv(self) -> Any:
                return await pieces.get()

        self.tracks: list[Any] = [PictureTrack(), SoundTrack()] if sound else [PictureTrack()]

    @property
    def late(self) -> bool:
        """Whether the last picture still waits for the viewer."""
        return self._picture.full()

    def put(self, queue: "asyncio.Queue[Any]", item: Any) -> None:
        """Hand over `item`, in the place of the oldest if there is no room; called in the loop."""
        if queue.full():
            queue.get_nowait()
        queue.put_nowait(item)

    def show(self, picture: Any) -> None:
        """Show a picture, from any thread."""
        self._loop.loop.call_soon_threadsafe(self.put, self._picture, picture)

    def play(self, piece: Any) -> None:
        """Play a piece of sound, from any thread."""
        self._loop.loop.call_soon_threadsafe(self.put, self._pieces, piece)


class WebRtcSink(Sink):
    """What sending and serving have in common: peers that are shown each frame.

    Attributes:
        url: where the other side is met.

    Raises:
        SinkError: aiortc is not installed.
    """

    url: str

    def __init__(self, address: str, info: VideoInfo) -> None:
        self.name = shown(address)
        try:
            import aiortc
        except ImportError as error:
            raise SinkError(f"{self.name}: {NEEDED}") from error
        self._aiortc: Any = aiortc
        self._info = info
        self._loop = Loop("webrtc")
        self._peers: dict[Any, _Tracks] = {}
        self._resampler = AudioResampler("s16", "stereo", SAMPLE_RATE, SAMPLE_RATE // 50)

    def _peer(self) -> Any:
        """A new connection with the tracks of the picture and of the sound; made in the loop."""
        peer = connection(self._aiortc, self.url)
        self._peers[peer] = _Tracks(self._aiortc, self._loop, self._info.sound)

        async def changed() -> None:
            if peer.connectionState in ("failed", "closed", "disconnected"):
                await self._drop(peer)

        peer.on("connectionstatechange", changed)
        return peer

    async def _drop(self, peer: Any) -> None:
        if self._peers.pop(peer, None) is not None:
            await peer.close()

    @property
    def _connected(self) -> list[_Tracks]:
        """The tracks of the peers that pictures and sound can reach."""
        return [tracks for peer, tracks in list(self._peers.items()) if peer.connectionState == "connected"]

    def write(self, frame: Frame) -> None:
        """Show one frame to every peer; it counts as left out where one of them has missed the last."""
        connected = self._connected
        if not connected:
            return
        self.left_out += any(tracks.late for tracks in connected)
        height, width = frame.image.shape[:2]
        # H.264 has no place for odd sides; aiortc would send such a viewer nothing, for ever.
        picture = av.VideoFrame.from_ndarray(frame.image, format="rgb24").reformat(
            width + width % 2, height + height % 2, "yuv420p"
        )
        picture.pts, picture.time_base = frame.pts, frame.time_base
        for tracks in connected:
            tracks.show(picture)

    def mux(self, packet: Sound) -> None:
        """Play a piece of sound to every peer."""
        for piece in self._resampler.resample(packet.samples):
            piece.time_base = Fraction(1, SAMPLE_RATE)
            for tracks in self._connected:
                tracks.play(piece)

    def close(self) -> None:
        """Say goodbye to every peer."""

        async def end() -> None:
            await asyncio.gather(*(self._drop(peer) for peer in list(self._peers)))

        with contextlib.suppress(TimeoutError):
            self._loop.run(end(), 2.0)
        self._loop.close()

    def abort(self) -> None:
        """The same."""
        self.close()


class WhepSink(WebRtcSink):
    """Serves the picture at whep:[HOST]:PORT to players that speak WHEP, and on a page to browsers.

    Raises:
        SinkError: the port is taken, or aiortc is not installed.
    """

    def __init__(self, address: str, info: VideoInfo) -> None:
        super().__init__(address, info)
        listening, access, self.url = bind(address)
        self._end_serving = serve(
            self._loop, listening, signalling("whep", access, self._accept, self._drop, PAGE)
        )
        log.warning("%s: players find it at %s, browsers one level up", address, self.url)

    async def _accept(self, offer: str) -> tuple[str, Any]:
        peer = self._peer()
        try:
            await peer.setRemoteDescription(self._aiortc.RTCSessionDescription(offer, "offer"))
            kinds = {transceiver.kind for transceiver in peer.getTransceivers()}
            if not kinds:
                raise ValueError("it asks for nothing")
            for track in self._peers[peer].tracks:
                if track.kind in kinds:
                    peer.addTrack(track)
            await peer.setLocalDescription(await peer.createAnswer())
        except BaseException:
            await self._drop(peer)
            raise
        end_unless_connected(peer, self._drop)
        return peer.localDescription.sdp, peer

    def close(self) -> None:
        """Say goodbye to every viewer, and stop serving."""
        self._end_serving()
        super().close()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Takes an offer along to where a server sends it (RFC 9725), which urllib would not."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The same request to `newurl`, where it is to stay the same."""
        if code not in (307, 308):
            return super().redirect_request(req, fp, code, msg, headers, newurl)
        return urllib.request.Request(newurl, req.data, req.headers, method=req.get_method())


class WhipSink(WebRtcSink):
    """Sends the picture to a server at whip:https://server/path, and again whenever it is lost.

    A `token` in the query of the address goes as a bearer token, as servers expect it.

    Raises:
        SinkError: no such address, or aiortc is not installed.
    """

    def __init__(self, address: str, info: VideoInfo) -> None:
        url = address.removeprefix("whip:")
        if re.search(r"\s", url):
            raise SinkError(f"{shown(address)}: there is a space in it; in addresses that is %20")
        check_host(url, url.partition("://")[0])
        super().__init__(address, info)
        self.url = url
        self._session = ""
        """Where the server is told that it is over; empty while it has nothing of ours."""
        self._open = urllib.request.build_opener(_Redirects).open
        self._failures = 0
        self._closed = threading.Event()
        self._connecting = threading.Thread(target=self._keep_connected, name="whip", daemon=True)
        self._connecting.start()

    def write(self, frame: Frame) -> None:
        """Send one frame; while there is no connection it is left out, and counted."""
        self.left_out += not self._connected
        super().write(frame)

    def _keep_connected(self) -> None:
        while not self._closed.wait(0.1):
            if self._peers:
                continue
            if self._session:
                self.lost = "the connection broke"
                log.warning("%s is lost (%s); it is tried again", self.name, self.lost)
                self._leave()
            try:
                self._connect()
            except Exception as error:  # also whatever aiortc and http.client say of an answer
                reason = getattr(error, "reason", None) or error
                told = reason
                if isinstance(error, urllib.error.HTTPError):
                    wants = "; its token is given as ?token=TOKEN" if error.code in (401, 403) else ""
                    told = f"the server says {error.code}{wants}"
                if str(told) != self.lost and not self._closed.is_set():
                    self.lost = str(told) or "it does not answer"
                    log.warning("%s is lost (%s); it is tried again", self.name, self.lost)
                for peer in list(self._peers):
                    with contextlib.suppress(TimeoutError):
                        self._loop.run(self._drop(peer), 2.0)
                self._leave()
                self._closed.wait(PAUSES[min(self._failures, len(PAUSES) - 1)])
                self._failures += 1
            else:
                if self.lost:
                    self.reconnected += 1
                    log.warning("%s is back", self.name)
                self.lost, self._failures = "", 0

    def _connect(self) -> None:
        peer, offer = self._loop.run(self._offer(), ANSWER_WITHIN)
        # Not in a thread of the loop's, for which the program would wait at its end.
        answer, self._session = self._post(offer)
        if self._closed.is_set():
            raise ConnectionError("the show is over")
        self._loop.run(self._meet(peer, answer), ANSWER_WITHIN + CONNECT_WITHIN)

    async def _offer(self) -> tuple[Any, str]:
        """A new connection, and what it offers."""
        peer = self._peer()
        for track in self._peers[peer].tracks:
            peer.addTrack(track)
        for transceiver in peer.getTransceivers():
            transceiver.direction = "sendonly"
        await peer.setLocalDescription(await peer.createOffer())
        return peer, peer.localDescription.sdp

    async def _meet(self, peer: Any, answer: str) -> None:
        """Have `peer` connected to who answers."""
        await peer.setRemoteDescription(self._aiortc.RTCSessionDescription(answer, "answer"))
        ends_by = time.monotonic() + CONNECT_WITHIN
        while peer.connectionState in ("new", "connecting") and time.monotonic() < ends_by:
            if self._closed.is_set():
                break
            await asyncio.sleep(0.05)
        if peer.connectionState != "connected":
            raise ConnectionError("it has answered, but the picture finds no way to it")

    def _request(self, url: str, method: str, within: float, body: bytes | None = None) -> Any:
        headers = {"Content-Type": "application/sdp"}
        _, _, token = self.url.partition("token=")
        if token:
            headers["Authorization"] = f"Bearer {token.partition('&')[0]}"
        request = urllib.request.Request(url, body, headers, method=method)
        return self._open(request, timeout=within)

    def _post(self, offer: str) -> tuple[str, str]:
        with self._request(self.url, "POST", ANSWER_WITHIN, offer.encode()) as answer:
            location = answer.headers.get("Location") or self.url
            return answer.read().decode(), urljoin(answer.url, location)

    def _leave(self) -> None:
        """End the session at the server, if there is one: until it knows, it may refuse the next."""
        session, self._session = self._session, ""
        if not session:
            return
        began = time.monotonic()
        with contextlib.suppress(OSError, HTTPException, ValueError):  # also where it has named no URL
            self._request(session, "DELETE", LAST_WORD_WITHIN).close()
        log.info("%s: ended in %.1f s", self.name, time.monotonic() - began)

    def close(self) -> None:
        """Tell the server, and end the connection."""
        self._closed.set()
        self._connecting.join(2.0)
        self._leave()
        super().close()
