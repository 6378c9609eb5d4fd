"""The picture in the browser while it is painted."""

import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

import cv2

from pipeline.access import Access
from pipeline.frame import Frame
from pipeline.scaling import resize
from pipeline.serving import FRAMING, PageServer
from pipeline.sinks import Sink

LARGEST = 1280
"""Longer side of the picture on the page, in pixels."""

EVERY = 0.1
"""Seconds between two pictures for a viewer."""

WAITING = 1 << 17
"""Bytes that may wait for a slow network: the megabytes that systems keep are seconds of old pictures."""

PAGE = """<!doctype html>
<meta charset="utf-8"><title>fauve</title>
<style>
  body { margin: 0; background: #16130f; color: #e8dcc4; font: 16px/1.4 system-ui, sans-serif; }
  main { max-width: 1280px; margin: 0 auto; padding: 1rem; }
  img { display: block; width: 100%; border-radius: 4px; background: #000; min-height: 8rem; }
  progress { width: 100%; accent-color: #d98a3d; margin-top: .8rem; }
</style>
<main><img alt="the picture being painted"><progress max="1" value="0"></progress>
<p id="text">waiting for the first picture</p></main>
<script>
  const bar = document.querySelector("progress"), text = document.querySelector("#text");
  const image = document.querySelector("img");
  let ended = false;
  // Of an address that it has had before, a browser keeps the picture that stood still.
  function watch() { image.src = "/stream?" + location.search.slice(1) + "&from=" + Date.now(); }
  image.onerror = () => setTimeout(watch, 1000);
  addEventListener("load", watch);  // else the page itself would load for as long as the picture does
  setInterval(async () => {
    try {
      const s = await (await fetch("/state" + location.search)).json();
      if (ended) watch();
      ended = false;
      if (s.live) {
        bar.hidden = true;
        text.textContent = s.live.fps.toFixed(0) + " fps, " + s.live.ms.toFixed(0) + " ms, "
          + s.live.dropped + " left out" + (s.live.problem ? " - " + s.live.problem : "");
        return;
      }
      const of = s.frames ? " of " + s.frames : "";
      text.textContent = s.video + ": frame " + s.frame + of + " at " + s.time.toFixed(2) + " s"
        + (s.finished ? ", finished" : "");
      if (s.frames) bar.value = s.frame / s.frames; else bar.removeAttribute("value");
    } catch {
      if (!ended) text.textContent += " - ended";
      ended = true;
    }
  }, 500);
</script>
"""


class PreviewPage:
    """A page at http://HOST:PORT/ that shows the newest painted picture of the video in hand.

    Args:
        host: who may see it; the machine itself by default, others with the token in `url`.
        port: 0 takes a free one.
        status: how a live run goes, shown instead of progress.

    Raises:
        SinkError: the port is taken.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, *, status: Callable[[], dict[str, Any]] | None = None
    ) -> None:
        self._status = status
        self._changed = threading.Condition()
        self._picture: tuple[int, Any] = (0, None)
        self._jpegs = Jpegs()
        self._state: dict[str, Any] = {"video": "", "frame": 0, "frames": 0, "time": 0.0, "finished": False}
        self._closed = False
        self._access = Access(host)
        self._server = PageServer("--preview", host, port, self._handler())
        self.url = self._access.url(self._server.server_port)
        threading.Thread(target=self._server.serve_forever, name="preview", daemon=True).start()

    def show(self, frame: Frame) -> None:
        """Show `frame` to whoever looks; costs nothing while nobody does."""
        with self._changed:
            self._picture = (self._picture[0] + 1, frame.image)
            self._state.update(frame=self._state["frame"] + 1, time=float(frame.time))
            self._changed.notify_all()

    def begin(self, video: str, frames: int) -> None:
        """What follows is of `video`, with `frames` frames, 0 if nobody knows."""
        with self._changed:
            self._state.update(video=video, frame=0, frames=frames, finished=False)

    def finish(self) -> None:
        """The video in hand is done."""
        with self._changed:
            self._state["finished"] = True

    def close(self) -> None:
        """Stop serving."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def _told(self) -> dict[str, Any]:
        """What the page shows, and no more: whoever may see the picture sees this, too."""
        if self._status is None:
            return self._state
        status = self._status()
        first = next(iter(status["sinks"].values()), {"fps": 0.0, "p50_ms": 0.0})
        live = {"fps": first["fps"], "ms": first["p50_ms"]}
        return {**self._state, "live": {**live, "dropped": status["dropped"], "problem": status["problem"]}}

    def _newer(self, than: int) -> tuple[int, Any]:
        """The newest picture and its number, when there is one newer than number `than`; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._picture[0] > than or self._closed)
            return self._picture if not self._closed else (0, None)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answers: dict[str, Callable[[], None]] = {
                    "/": lambda: self._send("text/html; charset=utf-8", PAGE.encode()),
                    "/state": lambda: self._send("application/json", json.dumps(page._told()).encode()),
                    "/stream": self._stream,
                }
                path, _, query = self.path.partition("?")
                if not page._access.allows(query, self.headers):
                    self.send_error(403)
                    return
                answer = answers.get(path)
                if answer is None:
                    self.send_error(404)
                    return
                answer()

            def _send(self, kind: str, content: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Cache-Control", "no-store")
                for name, value in FRAMING.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def _stream(self) -> None:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WAITING)
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                number = 0
                while True:
                    number, image = page._newer(number)
                    if image is None:
                        return
                    content = page._jpegs.of(number, image)
                    self.wfile.write(b"--picture\r\nContent-Type: image/jpeg\r\n\r\n" + content + b"\r\n")
                    self.wfile.flush()
                    threading.Event().wait(EVERY)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


class PreviewSink(Sink):
    """Shows the frames of a run on a page."""

    name = "preview"

    def __init__(self, page: PreviewPage) -> None:
        self._page = page

    def write(self, frame: Frame) -> None:
        """Show one frame."""
        self._page.show(frame)

    def mux(self, packet: Any) -> None:
        """The page is silent."""

    def close(self) -> None:
        """Say that the video is done; the page goes on with the next."""
        self._page.finish()

    def abort(self) -> None:
        """Leave the last picture where it is."""


class Jpegs:
    """The newest picture that was asked for, encoded once, however many look."""

    def __init__(self) -> None:
        self._encoding = threading.Lock()
        self._last: tuple[int, bytes] = (0, b"")

    def of(self, number: int, image: Any) -> bytes:
        """The picture of that number, from 1, as a JPEG."""
        with self._encoding:
            if self._last[0] != number:
                self._last = (number, jpeg(image))
            return self._last[1]


def jpeg(image: Any) -> bytes:
    """`image` as a JPEG, not larger than `LARGEST`."""
    height, width = image.shape[:2]
    scale = min(1.0, LARGEST / max(height, width))
    if scale < 1:
        image = resize(image, (max(1, round(width * scale)), max(1, round(height * scale))))
    encoded, content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert encoded, "JPEG takes any picture of this size"
    return bytes(content)
