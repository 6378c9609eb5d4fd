"""One render in several processes, each with a stretch of the video."""

import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

import engines
from engines import Engine, EngineUnavailable, Style
from pipeline.errors import SinkError
from pipeline.segments import Segment
from pipeline.stats import Stats
from pipeline.stream import TICK

log = logging.getLogger("fauve")


@dataclass(frozen=True)
class Runtime:
    """How to load an engine again, elsewhere."""

    style: Style
    name: str
    precision: str
    threads: int | None
    kernels: str | None = None
    """`Engine.kernels` that it must have; None takes any."""

    def load(self) -> Engine:
        """The engine, for as many frames as possible.

        Raises:
            EngineError: it does not run there, or would paint otherwise.
        """
        engine = engines.load(
            self.name, style=self.style, precision=self.precision, threads=self.threads, hint="throughput"
        )
        if self.kernels not in (None, engine.kernels):
            engine.close()
            raise EngineUnavailable(
                f"{engine.name} has {self.kernels} kernels in one process and {engine.kernels} ones in "
                f"another, which paint differently; take fewer --workers, or --precision float32"
            )
        return engine


Paint = Callable[[Engine, Segment, Stats, Callable[[Stats], None] | None], None]
"""Paints a stretch into parts: `Painting.paint`."""


def paint_in_processes(
    paint: Paint,
    segments: Sequence[Segment],
    runtime: Runtime,
    stats: Stats,
    progress: Callable[[Stats], None],
    workers: int,
) -> None:
    """Paint each of `segments` in a process of its own.

    Args:
        workers: how many of them there are at the same time.

    Raises:
        SourceError, SinkError, EngineError: the first that a process met; the others are stopped.
    """
    context = get_context("spawn")
    processes = []
    painted: dict[Any, Stats] = {}
    working: list[Any] = []
    waiting = deque(segments)
    try:
        while waiting or working:
            while waiting and len(working) < workers:
                receiving, sending = context.Pipe(duplex=False)
                work = (sending, paint, waiting.popleft(), runtime)
                process = context.Process(target=_work, args=work, daemon=True)
                process.start()
                sending.close()
                processes.append(process)
                painted[receiving] = Stats()
                working.append(receiving)
            for connection in wait(working, TICK):
                _receive(connection, painted, working)
            stats.encoded = sum(each.encoded for each in painted.values())
            stats.damaged = sum(each.damaged for each in painted.values())
            stats.cut_short = any(each.cut_short for each in painted.values())
            progress(stats)
        for each in painted.values():
            stats.add_flicker(each)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _receive(connection: Any, painted: dict[Any, Stats], working: list[Any]) -> None:
    try:
        message = connection.recv()
    except EOFError:
        raise SinkError("a worker was killed, perhaps for want of memory; take fewer --workers") from None
    if isinstance(message, BaseException):
        raise message
    if isinstance(message, str):
        log.warning(message)
    elif message is None:
        working.remove(connection)
    else:
        painted[connection] = message


class _Told(logging.Handler):
    """Sends what is logged to the process that waits."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        super().__init__(logging.WARNING)
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        self._connection.send(record.getMessage())


def _work(connection: "Connection[Any, Any]", paint: Paint, segment: Segment, runtime: Runtime) -> None:
    # Ctrl-C reaches every process of a terminal; the one that waits decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log.propagate = False
    log.addHandler(_Told(connection))
    stats = Stats()
    try:
        with runtime.load() as engine:
            paint(engine, segment, stats, connection.send)
        connection.send(stats)
        connection.send(None)
    except BrokenPipeError:
        # Who waited is gone.
        os._exit(1)
    except Exception as error:
        connection.send(error)
