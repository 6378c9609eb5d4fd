"""Source, engine, sink: their threads and the channels between them."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from typing import Any, Protocol, Self, TypeVar

import cv2

from engines import Image
from pipeline.channel import Cancelled, Channel
from pipeline.flicker import Flicker
from pipeline.frame import Frame
from pipeline.sinks import Sink
from pipeline.sources import Source
from pipeline.stats import SinkStats, Stats

log = logging.getLogger("fauve")


class Carried(Protocol):
    """What the painter is told about each frame: a `Look`, or what a live run knows beyond it."""

    def carried(self, moved: tuple[float, float] | None) -> Self:
        """The same for a scene that has moved that far."""


L = TypeVar("L", bound=Carried)

CAPACITY = 4
"""Frames that wait between two threads: enough to even out slow ones, few enough for 8K."""

TICK = 0.1
"""Seconds between two calls of `progress`."""

PATIENCE = 1.0
"""Seconds that a live source is waited for after `stop`."""

END_WITHIN = 10.0
"""Seconds that the sinks of a live run get after `stop`; one that hangs is then left to itself."""

SCORED, SCORED_LIVE = 1, 5
"""Seconds of the video from one pair of frames that is scored for flicker to the next."""


def run(
    source: Source,
    paint: Callable[[Image, L], Image],
    sinks: Sequence[Sink],
    *,
    look_at: Callable[[Fraction], L],
    streams: int = 1,
    then: Callable[[Image, Image, L], Image] | None = None,
    start: int | None = None,
    progress: Callable[[Stats], None] | None = None,
    stats: Stats | None = None,
    stop: threading.Event | None = None,
    scored: Callable[[L], bool] | None = None,
) -> Stats:
    """Paint every frame of `source` and write it to every sink, in order, with its pts.

    Reading, painting and writing each have a thread; the caller's waits, so that Ctrl-C reaches it. Every
    sink is closed when all went well, and aborted when anything failed, before this returns or raises.

    A live source never waits. The newest frame wins: whoever is too slow has older ones dropped, which is
    counted, and a sink that fails leaves the others going on.

    Args:
        paint: called for each frame; an `Engine` or what `scaling.stylizer` made of one.
        look_at: the look at a time of the video, in seconds; called in order, by one thread.
        streams: how many frames are painted at the same time, each by a thread; `Engine.streams`.
        then: what is shown for a picture, its painting and its look; called for every frame in turn.
        start: pts of the first frame that is written; those before it are painted for `then` to know them.
        progress: called by the caller's thread several times a second.
        stats: counters to go on with.
        stop: ends a live run as if the source had ended.
        scored: whether frames of such a look count for `Stats.flicker`, which is taken from pairs of
            neighbouring frames now and then by a thread of its own; None takes none.

    Raises:
        SourceError, EngineError, SinkError: what went wrong first.
        KeyboardInterrupt: after everything was stopped and aborted.
    """
    # Each stage has a thread; OpenCV's own would wait for one another in a spin while those have work to do.
    cv2.setNumThreads(1)
    stats = Stats() if stats is None else stats
    live = source.info.live
    decoded: Channel[Frame] = Channel(1 if live else CAPACITY, drop_oldest=live)
    styled: list[Channel[Any]] = [
        Channel(sink.waiting if live else CAPACITY, drop_oldest=live) for sink in sinks
    ]
    stats.sinks = [SinkStats(sink.name) for sink in sinks]
    neighbours: Channel[Any] = Channel(1 if live else CAPACITY, drop_oldest=live)
    previous: tuple[Frame, Frame, L] | None = None
    if scored is not None and stats.flicker is None:
        stats.flicker = Flicker()
    errors: list[BaseException] = []

    def read() -> None:
        try:
            for item in source:
                if isinstance(item, Frame):
                    if not decoded.put(item):
                        return
                    # Live, a held picture that is shown again is none that came.
                    if not live or item.captured_at is not None:
                        stats.decoded += 1
                        stats.read.append(time.monotonic())
                    else:
                        stats.repeated += 1
                    stats.dropped = decoded.dropped
                else:
                    for channel in styled:
                        channel.put_packet(item, item.size)
            decoded.close()
        except BaseException as error:
            decoded.close(error)

    def stylize() -> None:
        try:
            with ThreadPoolExecutor(streams, "paint") as painters:
                painting: deque[tuple[Frame, L, Future[Image]]] = deque()
                for frame in decoded:
                    look = look_at(frame.time)
                    told = look if frame.moved is None else look.carried(frame.moved)
                    painting.append((frame, look, painters.submit(paint, frame.image, told)))
                    if len(painting) >= streams and not hand_over(*painting.popleft()):
                        decoded.cancel()
                        neighbours.close()
                        for channel in styled:
                            channel.cancel()
                        return
                while painting:
                    hand_over(*painting.popleft())
            for channel in (*styled, neighbours):
                channel.close()
        except BaseException as error:
            decoded.cancel()
            neighbours.cancel()
            for channel in styled:
                channel.close(error)

    def hand_over(frame: Frame, look: L, painted: "Future[Image]") -> bool:
        image = painted.result()
        if then is not None:
            image = then(frame.image, image, look)
        if start is not None and frame.pts < start:
            return True
        finished = frame.with_image(image)
        stats.stylized += 1
        taken = [channel.put(finished) for channel in styled]
        if scored is not None:
            pair_up(frame, finished, look)
        # Of a file no output may lack frames; live the others go on.
        return any(taken) if live else all(taken)

    def pair_up(frame: Frame, finished: Frame, look: L) -> None:
        """Have the first two frames scored, and the two on either side of every full second or so."""
        nonlocal previous
        if previous is not None and scored is not None and look == previous[2] and scored(look):
            before, painted, _ = previous
            every = SCORED_LIVE if live else SCORED
            if stats.stylized == 2 or frame.time // every != before.time // every:
                neighbours.put(((before.image, painted.image), (frame.image, finished.image)))
        previous = frame, finished, look

    def score() -> None:
        assert stats.flicker is not None
        try:
            for before, after in neighbours:
                stats.flicker.add(before, after)
        except BaseException as error:
            neighbours.cancel()
            errors.append(error)

    def write(sink: Sink, channel: Channel[Any], counted: SinkStats) -> None:
        try:
            for item in channel:
                if isinstance(item, Frame):
                    left_out = sink.left_out
                    sink.write(item)
                    if sink.left_out == left_out:
                        counted.took(item.captured_at)
                    counted.dropped = channel.dropped + sink.left_out
                    if sink is sinks[0]:
                        stats.encoded += 1
                else:
                    sink.mux(item)
            sink.close()
        except BaseException as error:
            # First of all: what follows may fail on the same full disk.
            errors.append(error)
            channel.cancel()
            sink.abort()
            if live and not isinstance(error, Cancelled):
                sink.lost = str(error).removeprefix(f"{sink.name}: ")
                if len(sinks) > 1:  # else it ends the run, and is told then
                    log.error("%s", error)

    threads = [
        threading.Thread(target=read, name="read", daemon=True),
        threading.Thread(target=stylize, name="stylize", daemon=True),
        *(
            threading.Thread(target=write, args=ways, name=ways[0].name, daemon=True)
            for ways in zip(sinks, styled, stats.sinks, strict=True)
        ),
        *([] if scored is None else [threading.Thread(target=score, name="score", daemon=True)]),
    ]
    for thread in threads:
        thread.start()
    ends_by: float | None = None
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(TICK)
                if progress is not None:
                    progress(stats)
                if stop is not None and stop.is_set():
                    decoded.close()
                    ends_by = time.monotonic() + END_WITHIN if ends_by is None else ends_by
                    if thread is threads[0]:
                        thread.join(PATIENCE)
                        break
                    if time.monotonic() > ends_by:
                        log.error("%s does not end, and is left behind", thread.name)
                        break
    except BaseException:
        for channel in (decoded, *styled, neighbours):
            channel.cancel()
        for thread in threads:
            thread.join(PATIENCE if live else None)
        raise
    for error in errors:
        if not isinstance(error, Cancelled):
            raise error
    return stats
