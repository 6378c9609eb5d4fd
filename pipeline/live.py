"""A live run: its source, deck and sinks, what turns it and what shows how it goes."""

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.address import shown
from pipeline.controls import Controls, Scene
from pipeline.deck import Deck
from pipeline.errors import SinkError
from pipeline.frame import VideoInfo
from pipeline.governor import Governor
from pipeline.keyboard import Keyboard, press
from pipeline.midi import Midi
from pipeline.serving import in_url
from pipeline.sinks import Sink
from pipeline.sinks.recording import FORMATS as RECORDINGS
from pipeline.sinks.speaker import SpeakerSink
from pipeline.sinks.stream import StreamSink
from pipeline.sinks.window import WindowSink
from pipeline.sources import Source
from pipeline.stats import Stats, percentiles, rate
from pipeline.stream import run

SEEN = 60
"""Frames that tell how late pictures are just now: two seconds of most sources."""


def open_sink(address: str, info: VideoInfo, *, bits: int | None = None, force: bool = False) -> Sink:
    """The live output at `address`: a URL, a .m3u8, whip:, whep:, a file, window:, camera: or speaker:.

    Raises:
        SinkError: no such output, or it cannot be written.
    """
    if address.startswith("window:"):
        return WindowSink(address, info)
    if address.startswith("camera:"):
        from pipeline.sinks.camera import CameraSink

        return CameraSink(address, info)
    if address.startswith("speaker:"):
        return SpeakerSink(address, info)
    if address.startswith("whep:"):
        from pipeline.sinks.webrtc import WhepSink

        return WhepSink(address, info)
    if address.startswith("whip:http"):
        from pipeline.sinks.webrtc import WhipSink

        return WhipSink(address, info)
    if address.startswith("whip:"):
        raise SinkError(
            f"{shown(address)}: is no server to send to, such as whip:https://HOST/PATH; whep::PORT is for "
            "players that fetch it"
        )
    if "://" in address or address.endswith(".m3u8"):
        return StreamSink(address, info, bits=bits)
    if Path(address).suffix.lower() in RECORDINGS:
        from pipeline.sinks.recording import RecordingSink

        return RecordingSink(Path(address), info, force=force)
    raise SinkError(
        f"{address}: no such output; there are URLs such as rtmp://, .m3u8, whip:, whep:, window:, camera:, "
        f"speaker:, and recordings ({', '.join(RECORDINGS)})"
    )


def painted(scene: Scene) -> bool:
    """Whether a frame shown like that is painted, so that it counts for the flicker score."""
    return not (scene.bypass or scene.freeze or scene.blackout)


class LiveRun:
    """One evening: everything that belongs together while a live picture is painted.

    Args:
        governor: is told how old pictures are when they are shown.
        stop: ends it.
        score: tell how still the painting holds.
    """

    def __init__(
        self,
        source: Source,
        deck: Deck,
        controls: Controls,
        sinks: list[Sink],
        governor: Governor | None,
        stop: threading.Event,
        *,
        score: bool = False,
    ) -> None:
        self.controls = controls
        self._source = source
        self._deck = deck
        names = [sink.name for sink in sinks]
        for number, sink in enumerate(sinks):
            # Of two at one server, what is not shown of their addresses is the difference.
            same = names[:number].count(sink.name)
            sink.name += f" ({same + 1})" if same else ""
        # The first output is what the governor goes by.
        self._sinks = sorted(sinks, key=lambda sink: isinstance(sink, SpeakerSink))
        self._governor = governor
        self.stop = stop
        self._stats = Stats()
        self._score = score
        self._fed = self._left_out = 0
        self._closing = contextlib.ExitStack()
        for sink in sinks:
            if isinstance(sink, WindowSink):
                sink.pressed = partial(press, controls, stop)
            elif isinstance(sink, SpeakerSink):
                sink.latency = self._seen_after
            elif isinstance(sink, StreamSink):
                sink.stopped = stop.is_set
        self._midi: Midi | None = None

    def run(self, show: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Paint until stopped, or until the source ends; `show` is given the status several times a second.

        Returns the last status, with totals.
        """
        size = (self._source.info.width, self._source.info.height)

        def progress(stats: Stats) -> None:
            self._feed_governor()
            show(self.status())

        with self._closing:
            if not self._sinks:
                raise SinkError(f"nothing to show {size[0]}x{size[1]} on")
            run(
                self._source,
                self._deck,
                self._sinks,
                look_at=self.controls.scene_at,
                progress=progress,
                stats=self._stats,
                stop=self.stop,
                scored=painted if self._score else None,
            )
        report = {**self.status(), "frames": self._stats.stylized, "seconds": round(self._stats.seconds, 1)}
        if self._stats.flicker is not None:
            report["flicker"] = self._stats.flicker.report()
        return report

    def _seen_after(self) -> float:
        """Seconds from capture until a picture is seen: in the window or camera, or at the first output."""
        for kinds in (("window:", "camera:"), ("",)):
            for counted in self._stats.sinks:
                if counted.name.startswith(kinds) and not counted.name.startswith("speaker:"):
                    return percentiles(list(counted.latencies)[-SEEN:])[0]
        return 0.0

    def _feed_governor(self) -> None:
        if self._governor is None or not self._stats.sinks:
            return
        # The first output counts: the one that is looked at.
        first = self._stats.sinks[0]
        new, self._fed = first.measured - self._fed, first.measured
        if new:
            for latency in list(first.latencies)[-new:]:
                self._governor.shown(latency)
        if self._stats.dropped > self._left_out:
            self._governor.missed()
        self._left_out = self._stats.dropped

    def status(self) -> dict[str, Any]:
        """How it goes: rates, latencies in ms, drops, the working height, and what is wrong.

        `problem` says what does not work right now, `refused` why another pack is not played, by its name,
        and `loading` which one is on its way.
        """
        stats, engine = self._stats, self._deck.engine
        sinks: dict[str, dict[str, Any]] = {}
        reconnected = {sink.name: sink.reconnected for sink in self._sinks}
        for counted in stats.sinks:
            p50, p95, p99 = (round(1000 * seconds, 1) for seconds in percentiles(list(counted.latencies)))
            sinks[counted.name] = {
                "fps": round(rate(list(counted.times)), 1),
                "frames": counted.written,
                "dropped": counted.dropped,
                "reconnects": reconnected.get(counted.name, 0),
                "p50_ms": p50,
                "p95_ms": p95,
                "p99_ms": p99,
            }
        lost = {sink.name: sink.lost for sink in self._sinks if sink.lost}
        problems = [
            self._source.lost,
            self._deck.problem,
            *(f"{name}: {why}" for name, why in lost.items()),
        ]
        return {
            "fps_in": round(rate(list(stats.read)), 1),
            "frames_in": stats.decoded + self._source.dropped,
            "repeated": stats.repeated,
            "dropped": stats.dropped + self._source.dropped,
            "painted": stats.stylized,
            "height": self._deck.height,
            "engine": "" if engine is None else f"{engine.name} {engine.precision}",
            "reconnects": self._source.reconnected,
            "engine_restarts": self._deck.restarted,
            "problem": "; ".join(problem for problem in problems if problem),
            # In this order: one that reaches the deck meanwhile is missed by neither.
            "loading": self.controls.pack_pending or self._deck.loading,
            "refused": self._deck.refused,
            "uptime": round(stats.seconds, 1),
            "sinks": sinks,
        }

    def serve_preview(self, host: str, port: int) -> str:
        """Show the picture on a page; its address."""
        from pipeline.sinks.preview import PreviewPage, PreviewSink

        page = PreviewPage(host, port, status=self.status)
        self._closing.callback(page.close)
        self._sinks.append(PreviewSink(page))
        return page.url

    def serve_panel(self, host: str, port: int) -> str:
        """Serve the control panel; its address."""
        from pipeline.panel import Panel

        panel = Panel(self.controls, self.status, host, port, midi=self._midi)
        self._closing.callback(panel.close)
        if self._deck.engine is not None:
            panel.show_styles(self.controls.state["pack"], self._deck.engine)
        self._deck.prepared = panel.show_styles
        self._sinks.append(panel.sink)
        return panel.url

    def serve_metrics(self, host: str, port: int) -> str:
        """Serve metrics for Prometheus; their address."""
        from pipeline.metrics import Metrics

        metrics = Metrics(self.status, host, port)
        self._closing.callback(metrics.close)
        return metrics.url

    def serve_osc(self, host: str, port: int, reply: tuple[str, int] | None) -> str:
        """Take and send OSC messages; where it is listened to."""
        from pipeline.osc import Osc

        osc = Osc(self.controls, host, port, reply)
        self._closing.callback(osc.close)
        return f"{in_url(host)}:{osc.port}"

    def listen_to_midi(self, name: str, mapping: Path | None) -> str:
        """Take MIDI messages; says from where, or nothing where a warning says that there is no input yet."""
        self._midi = Midi(self.controls, name, mapping)
        self._closing.callback(self._midi.close)
        return self._midi.description if self._midi.connected else ""

    def close(self) -> None:
        """Stop serving pages and listening; sinks are not its own."""
        self._closing.close()

    def listen_to_keys(self) -> None:
        """Take keys from the terminal."""
        keyboard = Keyboard(self.controls, self.stop)
        self._closing.callback(keyboard.close)
