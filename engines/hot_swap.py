"""Paint at once, load the fast engine behind.

For what is live. A file is painted by one engine from its first frame to its last, because a render that was
resumed, or divided over workers, promises the frames of one that ran undisturbed; which frames an engine in
the making would paint depends on the clock.
"""

import logging
import threading
from collections.abc import Callable, Sequence, Set

import numpy as np
from numpy.typing import NDArray

from engines.engine import Engine
from engines.look import Look
from engines.style import Inputs

log = logging.getLogger("fauve")

Loader = Callable[[threading.Event], Engine]
"""Gives an engine, or raises as soon as it can when the event is set: nobody waits for it any more."""

PATIENCE = 1.0
"""Seconds that `close` waits for an engine that is just being loaded; it is closed when it comes."""

SHAPES = 2
"""How many shapes of pictures count as in use, the last ones: one size may be fading into another."""


class Behind(Engine):
    """An engine that is ready, until better ones are: each takes over between two pictures.

    They are loaded one after the other by a thread, from the first picture on, and paint a picture of each
    size in use before they take over, so that none waits. One that fails is said, and painting goes on.
    `name`, `device` and `precision` are those of the engine in use.

    Args:
        first: paints from the beginning.
        better: name and loader of each, the best one last.
    """

    lends = False

    def __init__(self, first: Engine, better: Sequence[tuple[str, Loader]]) -> None:
        super().__init__(first.style)
        self.streams = first.streams
        self._better = better
        self._lock = threading.Lock()
        self._calls: dict[Engine, int] = {}
        self._shapes: list[tuple[int, ...]] = []
        self._loading: threading.Thread | None = None
        self._closed = threading.Event()
        self._use(first)

    def _use(self, engine: Engine) -> None:
        self._calls[engine] = 0
        self._engine = engine
        self.name, self.device, self.precision = engine.name, engine.device, engine.precision

    def _infer(self, batch: NDArray[np.uint8], inputs: Inputs) -> NDArray[np.uint8]:
        with self._lock:
            engine = self._engine
            self._calls[engine] += 1
            others = [shape for shape in self._shapes if shape != batch.shape]
            self._shapes = [batch.shape, *others][:SHAPES]
        try:
            stylized = engine._infer(batch, inputs)
            return stylized.copy() if engine.lends else stylized
        finally:
            with self._lock:
                self._calls[engine] -= 1
                self._start()
            self._close_if_done(engine)

    def _start(self) -> None:
        """Begin to load the others; not before the first picture, which they would slow down."""
        if self._loading is None and not self._closed.is_set():
            self._loading = threading.Thread(target=self._load, name="load behind", daemon=True)
            self._loading.start()

    def _load(self) -> None:
        for name, load in self._better:
            if self._closed.is_set():
                return
            try:
                self._take_over(load(self._closed))
            except Exception as error:  # of a thread of its own, nobody else would hear
                if not self._closed.is_set():
                    log.warning("engine %s does not take over from %s: %s", name, self.name, error)

    def _take_over(self, engine: Engine) -> None:
        """Use `engine` once it has painted a picture of each shape in use, of which the first takes long."""
        before, warm = self._engine, set[tuple[int, ...]]()
        try:
            while (shape := self._cold(engine, warm)) is not None:
                engine.infer(np.zeros(shape, np.uint8), Look())
                warm.add(shape)
        finally:
            self._close_if_done(before)
            if self._engine is not engine:
                engine.close()

    def _cold(self, engine: Engine, warm: Set[tuple[int, ...]]) -> tuple[int, ...] | None:
        """A shape in use that is not `warm`; if there is none, `engine` is in use from now on."""
        with self._lock:
            if self._closed.is_set():
                return None
            for shape in self._shapes:
                if shape not in warm:
                    return shape
            log.info(
                "engine %s takes over from %s, %s on %s",
                *(engine.name, self.name, engine.precision, engine.device),
            )
            self._use(engine)
        return None

    def _close_if_done(self, engine: Engine) -> None:
        """Close `engine` if it is not in use any more and nobody waits for a picture of it."""
        with self._lock:
            left = engine is not self._engine or self._closed.is_set()
            if not left or self._calls.get(engine) != 0:
                return
            del self._calls[engine]
        engine.close()

    def close(self) -> None:
        self._closed.set()
        if self._loading is not None:
            self._loading.join(PATIENCE)
        self._close_if_done(self._engine)
