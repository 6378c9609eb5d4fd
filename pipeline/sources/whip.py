"""A browser or OBS that sends its picture by WebRTC (WHIP, RFC 9725)."""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Coroutine
from fractions import Fraction
from typing import Any

from pipeline.colour import BT709, LIMITED, Colour, Decoded, colour_of
from pipeline.errors import SinkError, SourceError
from pipeline.frame import VideoInfo
from pipeline.sources.live import Anchor, Capture
from pipeline.sources.pattern import TIME_BASE
from pipeline.sources.resampler import SoundResampler
from pipeline.webrtc import NEEDED, Loop, bind, connection, end_unless_connected, serve, signalling

log = logging.getLogger("fauve")

RATE = Fraction(30)
"""Frames per second that are taken for granted: WebRTC does not tell."""

LEAST = 0.1
"""Seconds without a picture that are no loss, whatever is asked for."""


class WhipSource(Capture):
    """Waits for a sender at whip:[HOST]:PORT, and for another one when it has gone.

    One who comes while another one sends takes its place with its first picture. The first picture of all
    tells the size. Picture and sound are placed by when they arrive.

    Args:
        timeout: seconds without a picture after which the sender counts as lost.

    Raises:
        SourceError: the port is taken, aiortc is not installed, or nobody sent anything before it was
            closed.
    """

    def __init__(self, address: str, *, sound: bool = True, timeout: float = 5.0) -> None:
        super().__init__(address)
        try:
            import aiortc
        except ImportError as error:
            raise SourceError(f"{address}: {NEEDED}") from error
        self._aiortc: Any = aiortc
        self._sound = sound
        self._timeout = max(timeout, LEAST)
        self._seen = math.inf
        """When the newest picture came, in seconds of the run."""
        self._peers: list[Any] = []
        """The newest last."""
        self._taking: set[asyncio.Future[None]] = set()
        self._first = threading.Event()
        self._decoded = Decoded()
        try:
            listening, access, self.url = bind(address)
        except SinkError as error:
            raise SourceError(str(error)) from error
        self._loop = Loop("whip")
        self._end_serving = serve(self._loop, listening, signalling("whip", access, self._accept, self._end))
        log.warning("%s waits for a sender; its WHIP address is %s", address, self.url)
        try:
            # In turns, because a thread that waits for ever does not see Ctrl-C on Windows.
            while not self._first.wait(0.2):
                pass
        except BaseException:
            self.close()
            raise

    async def _accept(self, offer: str) -> tuple[str, Any]:
        peer = connection(self._aiortc, self.url)
        self._peers.append(peer)

        def taken(track: Any) -> None:
            if track.kind == "video":
                self._take(self._take_pictures(track, peer))
            else:
                self._take(self._take_sound(track, peer))

        async def changed() -> None:
            if peer.connectionState in ("failed", "closed", "disconnected"):
                await self._end(peer)

        peer.on("track", taken)
        peer.on("connectionstatechange", changed)
        try:
            await peer.setRemoteDescription(self._aiortc.RTCSessionDescription(offer, "offer"))
            if not peer.getTransceivers():
                raise ValueError("it offers nothing")
            await peer.setLocalDescription(await peer.createAnswer())
        except BaseException:
            if peer in self._peers:  # one that has failed meanwhile is not
                self._peers.remove(peer)
            await peer.close()
            raise
        end_unless_connected(peer, self._end)
        return peer.localDescription.sdp, peer

    async def _end(self, peer: Any) -> None:
        if peer in self._peers:
            self._peers.remove(peer)
            if not self._peers:
                self._lose("the sender has gone")
            await peer.close()

    def _lose(self, reason: str) -> None:
        if not (self.lost or self._stopped.is_set()):
            self.lost = reason
            log.warning("%s: %s; its last picture is held", self.address, reason)

    def _take(self, work: Coroutine[Any, Any, None]) -> None:
        """Have the loop take a track; what goes wrong with it is said."""

        def over(taking: "asyncio.Future[None]") -> None:
            self._taking.discard(taking)
            if not taking.cancelled() and taking.exception() is not None:
                log.error("%s: a track is lost: %s", self.address, taking.exception())

        taking = asyncio.ensure_future(work)
        self._taking.add(taking)
        taking.add_done_callback(over)

    def _take_over(self, peer: Any) -> None:
        """End those who sent before `peer` came: of two, the picture would jump from one to the other."""
        newest = self._peers.index(peer)
        # At once: a picture of theirs may have come already.
        gone, self._peers = self._peers[:newest], self._peers[newest:]
        for before in gone:
            log.warning("%s: another sender takes the place of the one before", self.address)
            self._take(before.close())

    async def _take_pictures(self, track: Any, peer: Any) -> None:
        first = True
        while not self._stopped.is_set():
            try:
                frame = await asyncio.wait_for(track.recv(), self._timeout)
            except self._aiortc.MediaStreamError:
                return
            except TimeoutError:
                # Unless another one sends; it may yet go on.
                if self.now - self._seen > 0.9 * self._timeout:
                    self._lose("the sender has fallen silent")
                continue
            if peer not in self._peers:
                return  # another sender has taken its place
            if first:
                first = False
                self._take_over(peer)
            image = self._decoded.image(frame, colour_of(frame))
            if not self._first.is_set():
                # A recording does not begin with the time for which its sender was waited for.
                self._began = time.monotonic()
                height, width = image.shape[:2]
                colour = Colour(BT709, LIMITED, BT709, BT709)
                self.info = VideoInfo(width, height, RATE, TIME_BASE, colour, live=True, sound=self._sound)
                self._first.set()
            self._seen = self.now
            if self.lost:
                self.lost = ""
                self.reconnected += 1
                log.warning("%s is back", self.address)
            self._put(image, self.now)

    async def _take_sound(self, track: Any, peer: Any) -> None:
        counted, anchor = SoundResampler(), Anchor()
        while not self._stopped.is_set():
            try:
                samples = await track.recv()
            except self._aiortc.MediaStreamError:
                return
            # The sound of two would be cut to pieces by each other; it is that of the picture.
            if not self._sound or self._peers[:1] != [peer]:
                continue  # what is not taken would wait in the track, more and more of it
            if self._first.is_set():
                anchor.place(float(samples.pts * samples.time_base), self.now)
                for each, at in anchor.sound(self.now, samples):
                    self._put_sound(each, counted, at)

    def close(self) -> None:
        """Send the senders away, and stop listening."""
        self._stopped.set()
        self._items.cancel()

        async def end() -> None:
            await asyncio.gather(*(peer.close() for peer in list(self._peers)))

        try:
            self._loop.run(end(), 2.0)
        except TimeoutError:
            log.info("%s: a sender does not let go", self.address)
        self._end_serving()
        self._loop.close()
