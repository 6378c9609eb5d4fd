"""What paints a live picture: the engine in use, the next one being prepared, and the fade between them."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from engines import Engine, EngineError, Image, Look, Size, Style, StyleError
from engines.errors import first_line
from pipeline.controls import Controls, Scene
from pipeline.governor import STEPS, Governor
from pipeline.scaling import Detail, Paint, scaled, size_for
from pipeline.temporal_filter import TemporalFilter

log = logging.getLogger("fauve")

STEP_FADE = 0.5
"""Seconds in which one working size fades into a larger one: strokes change their size with it."""

RESTARTS = (0.2, 1.0, 5.0)
"""Seconds before an engine that failed is loaded again; the last one repeats."""

TOLD = 10.0
"""Seconds for which is told why another pack is not played."""

CLOSED_WITHIN = 2.0
"""Seconds that engines get to let go at the end."""


def said(error: Exception) -> str:
    """What `error` says in one line; with its kind, where that is none of ours and says little without."""
    if isinstance(error, StyleError | EngineError):
        return str(error)
    return f"{type(error).__name__}: {first_line(error)}"


class Timed:
    """An engine, and how long it took for its last picture."""

    def __init__(self, engine: Engine) -> None:
        self.seconds = 0.0
        self._engine = engine

    def __call__(self, image: Image, look: Look) -> Image:
        """Paint as the engine does."""
        began = time.perf_counter()
        painted = self._engine(image, look)
        self.seconds = time.perf_counter() - began
        return painted


@dataclass(frozen=True)
class Player:
    """An engine at one working size."""

    pack: str
    engine: Engine
    scale: float
    size: Size
    timed: Timed
    paint: Paint

    def __call__(self, image: Image, look: Look) -> Image:
        """Paint with the styles of `look` that the pack has; with its first one where it has none."""
        known = {name: weight for name, weight in look.mix.items() if name in self.engine.style.styles}
        mix = known if sum(known.values()) > 0 else self.engine.style.mix
        # Whether anything moves or not, the engine is compiled for pictures with room for it.
        return self.paint(image, Look(mix, look.strength, look.moved or (0.0, 0.0)))


class Deck:
    """The callable that a live run paints with. It never fails and never waits for an engine to be made.

    Other packs and working sizes are prepared by a thread and swapped in between two frames, one fading into
    the other. Of packs that are asked for while one is loaded, the last one follows. An engine that fails is
    reported and loaded again while the input passes through.

    Args:
        load: makes the engine of a pack; called by other threads, too.
        pack: to begin with.
        size: (width, height) of the pictures.
        controls: told of a swap, and asked how long it may take.
        detail: as in `scaling.working_size`.
        governor: chooses the working size; None keeps it.
        steady: share of the picture shown before that is mixed into each one (`TemporalFilter`).

    Raises:
        StyleError, EngineError: the first engine cannot be made.
    """

    def __init__(
        self,
        load: Callable[[str], Engine],
        pack: str,
        size: Size,
        controls: Controls,
        *,
        detail: Detail = 1.0,
        governor: Governor | None = None,
        steady: float = 0.0,
    ) -> None:
        self.problem = ""
        """Why nothing is painted right now; empty while all is well."""
        self.restarted = 0
        """How often an engine painted again after one that failed."""
        self.prepared: Callable[[str, Engine], None] | None = None
        """Told of each pack that is about to be played, and of its engine, by the thread that made it."""
        self._load = load
        self._size = size
        self._detail = detail
        self._controls = controls
        self._governor = governor
        self._current: Player | None = self._player(load(pack), pack, 1.0)
        self._steady = TemporalFilter(steady, self._current.size, live=True)
        self._pack = pack
        """That was played last, and is tried again after a failure."""
        self._loading = ""
        """The pack that is being loaded because it was asked for."""
        self._asked = ""
        """The one to load after that, or instead of the one that failed: the last that was asked for."""
        self._asking = threading.Lock()
        """Held while these two change, so that what ends does not miss what has just been asked for."""
        self._refused: tuple[str, str, float] | None = None
        self._next: tuple[Player, float, float] | None = None
        """What fades in, since when, and in how many seconds; nothing while nothing is played."""
        self._broken: set[Engine] = set()
        """Engines that failed and are still to be closed."""
        self._closing: list[threading.Thread] = []
        """Close engines that others have followed: some take a second, for which no picture waits."""
        self._last: Image | None = None
        self._black = np.zeros((size[1], size[0], 3), np.uint8)
        self._preparing: threading.Thread | None = None
        self._handing_over = threading.Lock()
        """Held while `_preparing` changes, so that what ends does not hide what has just begun."""
        self._painting = threading.Lock()
        """Held while an engine paints or is put in another's place, so that none is closed meanwhile."""
        self._closed = threading.Event()
        controls.play = self.play

    def _player(self, engine: Engine, pack: str, scale: float) -> Player:
        style = engine.style
        size = size_for(style, self._size, scale * self._lines(style) / style.native_height)
        timed = Timed(engine)
        player = Player(
            pack, engine, scale, size, timed, scaled(timed, size, self._size, carried=style.carried)
        )
        # The first picture of a size takes long: it is compiled.
        player(np.zeros((self._size[1], self._size[0], 3), np.uint8), Look())
        return player

    def _lines(self, style: Style) -> float:
        """The shorter side to paint at, in pixels, where nothing is too slow: no live picture is enlarged."""
        shorter = min(self._size)
        return shorter if self._detail == "full" else min(self._detail * style.native_height, shorter)

    @property
    def engine(self) -> Engine | None:
        """The one in use; None while none works."""
        # Once: an engine may fail between two looks.
        playing = self._current
        return None if playing is None else playing.engine

    @property
    def height(self) -> int:
        """That is painted at, in pixels; 0 while no engine works."""
        playing = self._current
        return 0 if playing is None else playing.size[1]

    @property
    def loading(self) -> str:
        """The pack that is on its way, the one that was asked for last; empty while none is."""
        playing, coming = self._current, self._next
        fading = coming[0].pack if coming and playing and coming[0].pack != playing.pack else ""
        return self._asked or self._loading or fading

    @property
    def refused(self) -> dict[str, str]:
        """Why the pack that was asked for last is not played, by its name; nothing after `TOLD` seconds."""
        refused = self._refused
        if refused is None or time.monotonic() - refused[2] > TOLD:
            return {}
        return {refused[0]: refused[1]}

    def __call__(self, image: Image, scene: Scene) -> Image:
        """The picture to show for `image`, of the same size."""
        held = self._last if scene.freeze else None
        if scene.blackout or scene.bypass or held is not None:
            self._go_over_unseen()
            self._steady.forget()
        if scene.blackout:
            return self._black
        if held is not None:
            return held
        self._last = image if scene.bypass else self._painted(image, scene.look)
        return self._last

    def _painted(self, image: Image, look: Look) -> Image:
        # While something is made ready, or fades in, a frame takes longer than it will.
        steady = self._preparing is None and self._next is None
        try:
            with self._painting:
                current = self._current
                if current is None:
                    return image
                began = time.perf_counter()
                painted = current(image, look)
                if self._next is not None:
                    painted = self._faded(painted, image, look)
                painted = self._steady(image, painted, look)
                seconds = time.perf_counter() - began
        except Exception as error:  # runtimes and drivers raise their own kinds, too
            self._failed(error)
            return image
        if self._governor is not None and steady and current.engine.style.size is None:
            self._governor.painted(seconds, seconds - current.timed.seconds)
            if self._governor.decide():
                scale = self._governor.scale
                log.info("working height: %.0f %% after %.0f %%", 100 * scale, 100 * current.scale)
                self._prepare(self._resized, current, scale)
        return painted

    def _faded(self, painted: Image, image: Image, look: Look) -> Image:
        assert self._current is not None
        assert self._next is not None
        player, began, seconds = self._next
        mix = player.engine.style.mix
        if mix and player.pack != self._current.pack:
            # A style that was asked for by name is what the controls go over to.
            look = Look(mix, look.strength, look.moved)
        share = 1.0 if seconds <= 0 else (time.monotonic() - began) / seconds
        if share < 1:
            blended: Image = cv2.addWeighted(painted, 1 - share, player(image, look), share, 0)
            return blended
        if seconds <= 0 and player.engine is not self._current.engine:
            # A cut.
            self._steady.forget()
        self._go_over(player)
        return player(image, look)

    def _go_over_unseen(self) -> None:
        """While nothing is painted, there is nothing to fade."""
        with self._painting:
            if self._next is not None:
                self._go_over(self._next[0])

    def _go_over(self, player: Player) -> None:
        before, self._current, self._next = self._current, player, None
        if self._governor is not None:
            self._governor.step = STEPS.index(player.scale)
            self._governor.settle()
        if before is None:
            self.problem = ""
            self.restarted += 1
            log.warning("the engine paints again")
        elif before.engine is not player.engine:
            closing = threading.Thread(target=self._close, args=(before.engine,), name="close", daemon=True)
            closing.start()
            self._closing = [*filter(threading.Thread.is_alive, self._closing), closing]
        self._pack = player.pack
        style = player.engine.style
        self._controls.swapped(player.pack, style.styles, Look(style.mix))

    def play(self, pack: str) -> None:
        """Go over to another pack as soon as it is ready; what is wrong with it is said in `refused`.

        While no engine works it is what is tried next. One that is asked for before another one's turn has
        come takes its place; what is loaded or played already is not loaded again.
        """
        self._refused = None
        with self._asking:
            playing = self._next[0] if self._next else self._current
            known = self._loading or (playing.pack if playing else "")
            self._asked = "" if pack == known else pack
            # Else it follows what is being loaded, or `_restart` takes it.
            if self._asked and playing and not self._loading:
                self._take_asked()
                self._prepare(self._load_asked)

    def _take_asked(self) -> str:
        self._loading, self._asked = self._asked, ""
        return self._loading

    def _load_asked(self) -> None:
        """Load what was asked for, until nothing more is."""
        pack = self._loading
        while pack and not self._closed.is_set():
            self._loaded(pack)
            with self._asking:
                pack = self._take_asked()

    def _scale_for(self, style: Style) -> float:
        """That a pack begins with: where the one before was too slow at more lines, at as many, if it can."""
        if self._governor is None:
            return 1.0
        coming = self._next
        playing = coming[0] if coming else self._current
        lines = 0.0 if playing is None else playing.scale * self._lines(playing.engine.style)
        scale, same = self._governor.scale, lines / self._lines(style)
        return next(step for step in STEPS if step <= max(scale, same))

    def _loaded_player(self, pack: str) -> Player:
        engine = self._load(pack)
        try:
            player = self._player(engine, pack, self._scale_for(engine.style))
            if self.prepared is not None:
                self.prepared(pack, player.engine)
        except Exception:
            self._close(engine)
            raise
        return player

    def _loaded(self, pack: str) -> None:
        seconds = float(self._controls.state["crossfade"])
        try:
            self._fade_in(self._loaded_player(pack), seconds)
        except Exception as error:
            self._refused = (pack, said(error), time.monotonic())
            log.error("%s", said(error))

    def _resized(self, current: Player, scale: float) -> None:
        try:
            player = self._player(current.engine, current.pack, scale)
        except Exception as error:
            self._failed(error)
            return
        # Where painting is too slow already, painting both sizes for a while would hold up the picture.
        self._fade_in(player, STEP_FADE if scale > current.scale else 0.0)

    def _fade_in(self, player: Player, seconds: float) -> None:
        # What fades in already comes first: replaced, it would neither be seen nor given back.
        while self._next is not None and not self._closed.is_set():
            time.sleep(0.01)
        with self._painting:
            # At another size it may have failed meanwhile, and be about to be closed.
            if player.engine in self._broken:
                return
            if self._current is None:
                self._go_over(player)
            else:
                self._next = (player, time.monotonic(), seconds)

    def _failed(self, error: Exception) -> None:
        with self._painting:
            if self._current is None:
                return
            self.problem = f"the engine failed, and the input passes through: {said(error)}"
            self._broken |= self._engines()
            self._current = self._next = None
            self._steady.forget()
        log.error("%s", self.problem)
        self._prepare(self._restart)

    def _engines(self) -> set[Engine]:
        """Those in use, and about to be."""
        return {player.engine for player in (self._current, self._next and self._next[0]) if player}

    def _restart(self) -> None:
        attempt = 0
        while True:
            # What they hold may be what the next one lacks.
            while self._broken:
                self._close(self._broken.pop())
            # A pack that was on its way already may have taken over.
            with self._asking:
                if self._current is not None and (self._loading or not self._asked):
                    return
            if self._closed.wait(RESTARTS[min(attempt, len(RESTARTS) - 1)]):
                return
            attempt += 1
            with self._asking:
                # What was asked for when an engine painted again has a turn of its own.
                asked = "" if self._loading else self._take_asked()
                if self._current is not None and not asked:
                    return
            if asked:
                self._load_asked()
                continue
            try:
                self._fade_in(self._loaded_player(self._pack), 0.0)
            except Exception as error:
                self.problem = f"the engine does not come back, and the input passes through: {said(error)}"

    def _prepare(self, work: Callable[..., None], *arguments: object) -> None:
        """Have a thread do `work`, after what it does already."""

        def run(before: threading.Thread | None) -> None:
            if before is not None:
                before.join()
            try:
                work(*arguments)
            finally:
                with self._handing_over:
                    if self._preparing is threading.current_thread():
                        self._preparing = None

        with self._handing_over:
            thread = threading.Thread(target=run, args=(self._preparing,), name="prepare", daemon=True)
            self._preparing = thread
            thread.start()

    def close(self) -> None:
        """Give back the engines."""
        self._closed.set()
        preparing = self._preparing
        if preparing is not None:
            preparing.join(1.0)
        for engine in self._engines() | self._broken:
            self._close(engine)
        ends_by = time.monotonic() + CLOSED_WITHIN
        for closing in self._closing:
            closing.join(max(0.0, ends_by - time.monotonic()))

    def _close(self, engine: Engine) -> None:
        """Give back an engine, of which nothing is wanted any more, nor what is wrong with it."""
        try:
            engine.close()
        except Exception as error:
            log.error("the engine %s does not let go: %s", engine.name, said(error))
