"""The deck never fails, never waits, and goes from one pack or size to another without a jump."""

import threading
import time
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from engines import InferenceError, Look, StyleError
from pipeline.controls import Controls, Scene
from pipeline.deck import Deck
from pipeline.frame import Frame
from pipeline.governor import Governor
from pipeline.replay import Show, Staged

SIZE = (64, 48)
IMAGE = np.full((48, 64, 3), 10, np.uint8)


class FakeEngine:
    """Paints every picture in one grey; fails when told to."""

    name, precision = "fake", "float32"

    def __init__(self, grey, styles=("warm", "cold")):
        self.grey, self.fails, self.closed, self.sizes = grey, False, False, []
        self.error = InferenceError("the device is gone")
        self.style = SimpleNamespace(
            styles=styles, native_height=48, multiple=8, size=None, mix={}, carried=False
        )

    def __call__(self, image, look):
        assert not self.closed
        if self.fails:
            raise self.error
        look.weights(self.style.styles)
        self.sizes.append(image.shape[:2])
        return np.full_like(image, self.grey)

    def close(self):
        self.closed = True


@pytest.fixture
def engines():
    return {"one": FakeEngine(100), "two": FakeEngine(200, ("red",))}


@pytest.fixture
def deck(engines):
    def load(pack):
        if pack not in engines:
            raise StyleError(f"{pack}: no such pack")
        return engines[pack]

    controls = Controls("one", ("warm", "cold"), Look(), crossfade=0.3)
    deck = Deck(load, "one", SIZE, controls)
    yield deck
    deck.close()


def grey(deck, scene=None):
    image = deck(IMAGE, scene or Scene(Look()))
    assert image.shape == IMAGE.shape
    assert len(np.unique(image)) == 1
    return int(image[0, 0, 0])


def wait_for(what, seconds=30):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def wait_to_play(deck, engine, scene=None, seconds=30):
    """Paint until the fade to `engine` has ended: whose last frames are as grey as its end."""
    wait_for(lambda: grey(deck, scene) and deck.engine is engine, seconds)
    assert grey(deck, scene) == engine.grey


def test_it_paints(deck):
    assert grey(deck) == 100


def test_the_engine_is_told_how_far_the_scene_has_moved_at_its_own_size():
    looks = []

    class Told(FakeEngine):
        def __call__(self, image, look):
            looks.append((image.shape, look.moved))
            return super().__call__(image, look)

    told = Told(100)
    told.style.carried = True
    deck = Deck(lambda pack: told, "one", SIZE, Controls("one", ("warm", "cold"), Look()), detail=0.5)
    deck(IMAGE, Scene(Look()).carried((8.0, -3.0)))
    deck(IMAGE, Scene(Look(), bypass=True).carried((9.0, -3.0)))
    deck(IMAGE, Scene(Look()))
    deck.close()
    # One to have it compiled, for pictures that have room to move.
    assert looks == [((24, 32, 3), (0.0, 0.0)), ((24, 32, 3), (4.0, -1.5)), ((24, 32, 3), (0.0, 0.0))]


def test_bypass_freeze_and_blackout(deck):
    assert grey(deck, Scene(Look(), bypass=True)) == 10
    assert grey(deck, Scene(Look(), freeze=True)) == 10
    assert grey(deck, Scene(Look(), freeze=True, blackout=True)) == 0
    assert grey(deck, Scene(Look(), freeze=True)) == 10
    assert grey(deck) == 100


FREEZE, MELT, BLACK, LIT = ("freeze", True), ("freeze", False), ("blackout", True), ("blackout", False)


@pytest.mark.parametrize(
    ("turned", "shown"),
    [
        ({3: [FREEZE], 6: [MELT]}, [1, 2, 3, 3, 3, 3, 7, 8, 9]),
        ({0: [FREEZE], 4: [MELT]}, [1, 1, 1, 1, 5, 6, 7, 8, 9]),
        ({2: [FREEZE], 4: [BLACK], 6: [LIT], 8: [MELT]}, [1, 2, 2, 2, 0, 0, 2, 2, 9]),
        ({3: [BLACK], 5: [FREEZE], 7: [LIT]}, [1, 2, 3, 0, 0, 0, 0, 3, 3]),
        ({0: [BLACK], 2: [FREEZE], 4: [LIT], 8: [MELT]}, [0, 0, 0, 0, 5, 5, 5, 5, 9]),
        ({2: [FREEZE], 3: [BLACK], 4: [MELT], 5: [FREEZE], 7: [LIT]}, [1, 2, 2, 0, 0, 0, 0, 2, 2]),
        ({3: [FREEZE], 5: [MELT, FREEZE], 8: [MELT]}, [1, 2, 3, 3, 3, 3, 3, 3, 9]),
    ],
)
def test_a_show_that_is_painted_again_holds_what_was_held(tmp_path, turned, shown):
    class Copy(FakeEngine):
        def __call__(self, image, look):
            return image.copy()

    class Frames(list):
        info = None

    frames = [Frame(np.full_like(IMAGE, n + 1), n, 1, Fraction(1, 10)) for n in range(9)]
    controls = Controls("one", ("warm", "cold"), Look())
    controls.record(tmp_path / "show.jsonl")
    deck = Deck(lambda pack: Copy(0), "one", SIZE, controls)
    live = []
    for frame in frames:
        for name, value in turned.get(frame.pts, ()):
            controls.set(name, value)
        live.append(int(deck(frame.image, controls.scene_at(frame.time))[0, 0, 0]))
    deck.close()
    controls.close()
    assert live == shown
    show = Show(tmp_path / "show.jsonl", ("warm", "cold"))

    def earlier(time):
        return next((frame for frame in reversed(frames) if frame.time < time), None)

    # Also by a worker that begins in the middle.
    for start in range(len(frames)):
        again = Staged(Frames(frames[start:]), show, earlier)
        assert [int(frame.image[0, 0, 0]) for frame in again] == shown[start:]


def test_what_was_shown_before_is_mixed_into_what_is_painted_and_into_nothing_else():
    class Fades(FakeEngine):
        def __call__(self, image, look):
            self.grey -= 20
            return super().__call__(image, look)

    engine = Fades(220)
    controls = Controls("one", ("warm", "cold"), Look())
    deck = Deck(lambda pack: engine, "one", SIZE, controls, steady=0.5)
    # One was to have it compiled.
    assert [grey(deck), grey(deck), grey(deck)] == [180, 170, 155]
    assert grey(deck, Scene(Look(), freeze=True)) == 155
    assert grey(deck, Scene(Look(), bypass=True)) == 10
    assert [grey(deck), grey(deck)] == [120, 110]
    assert grey(deck, Scene(Look(), blackout=True)) == 0
    assert [grey(deck), grey(deck)] == [80, 70]
    engine.fails = True
    assert grey(deck) == 10
    deck.close()


def test_nothing_from_before_a_failure_is_mixed_into_what_is_painted_after_it():
    engines = [FakeEngine(100), FakeEngine(200)]
    left = iter(engines)
    deck = Deck(lambda pack: next(left), "one", SIZE, Controls("one", ("warm",), Look()), steady=0.75)
    assert grey(deck) == 100
    engines[0].fails = True
    assert grey(deck) == 10
    wait_for(lambda: deck.engine is engines[1])
    assert grey(deck) == 200
    deck.close()


def test_nothing_of_one_pack_is_mixed_into_another_that_is_cut_to(engines):
    engines["two"] = FakeEngine(200)
    deck = Deck(
        engines.get, "one", SIZE, Controls("one", ("warm", "cold"), Look(), crossfade=0.0), steady=0.75
    )
    greys = [grey(deck)]
    deck.play("two")
    wait_for(lambda: greys.append(grey(deck)) or deck.engine is engines["two"])
    assert set(greys) == {100, 200}
    deck.close()


def test_another_pack_fades_in_while_frames_go_on(deck, engines):
    deck.play("two")
    wait_for(lambda: engines["two"].sizes)
    greys, times = [], [time.monotonic()]
    while times[-1] - times[0] < 0.6:
        greys.append(grey(deck))
        time.sleep(0.005)
        times.append(time.monotonic())
    assert greys == sorted(greys)
    assert greys[0] < 115
    assert greys[-1] == 200
    # A frame that the machine held up may be that much further.
    assert np.all(np.diff(greys) < 30 + 1000 * np.diff(times)[1:])
    wait_for(lambda: engines["one"].closed)
    assert not engines["two"].closed


def test_the_pack_that_is_on_its_way_is_told_until_it_is_there(deck, engines):
    went, load = threading.Event(), deck._load
    deck._load = lambda pack: went.wait(10) and load(pack)
    assert deck.loading == ""
    for pack in ("two", "one", "none"):
        deck.play(pack)
        assert deck.loading == pack
    went.set()
    wait_for(lambda: deck.refused)
    # The last wish is refused, and the first one still fades in.
    wait_for(lambda: deck.loading == "two")
    wait_to_play(deck, engines["two"])
    assert deck.loading == ""


def test_the_panel_is_told_of_a_pack_before_it_is_played(deck, engines):
    told = []
    deck.prepared = lambda pack, engine: told.append((pack, engine, deck.engine))
    deck.play("two")
    end = time.monotonic() + 10
    while deck.engine is not engines["two"]:
        assert time.monotonic() < end
        grey(deck)
    assert told == [("two", engines["two"], engines["one"])]


def test_a_style_that_is_asked_for_as_a_pack_fades_in_and_stays(deck, engines):
    mixes = []

    class Told(FakeEngine):
        def __call__(self, image, look):
            mixes.append(dict(look.mix))
            return super().__call__(image, look)

    engines["cold"] = Told(200)
    engines["cold"].style.mix = {"cold": 1.0}
    controls = deck._controls
    deck.play("cold")
    wait_for(lambda: grey(deck, controls.scene_at(Fraction(1))) and deck.engine is engines["cold"])
    grey(deck, controls.scene_at(Fraction(2)))
    # Of the picture that it is compiled with, nobody asks.
    assert {mix["cold"] for mix in mixes} == {1.0}
    assert {mix.get("warm", 0.0) for mix in mixes} == {0.0}
    assert controls.state["mix"] == {"warm": 0, "cold": 1}


def test_styles_that_a_pack_does_not_have_do_not_stop_it(deck, engines):
    deck.play("two")
    wait_to_play(deck, engines["two"], Scene(Look({"warm": 1, "cold": 2})))


def test_a_pack_that_cannot_be_loaded_is_said_and_the_other_goes_on(deck):
    deck.play("three")
    wait_for(lambda: deck.refused)
    assert deck.refused == {"three": "three: no such pack"}
    assert deck.problem == "", "the other one paints"
    assert grey(deck) == 100
    deck.play("two")
    assert deck.refused == {}


def test_an_engine_that_cannot_paint_its_first_picture_is_given_back(deck, engines):
    engines["two"].fails = True
    deck.play("two")
    wait_for(lambda: deck.refused)
    assert deck.refused == {"two": "the device is gone"}
    assert engines["two"].closed


def test_that_a_pack_cannot_be_loaded_is_told_for_some_seconds(deck, monkeypatch):
    deck.play("three")
    wait_for(lambda: deck.refused)
    monkeypatch.setattr("pipeline.deck.TOLD", 0.2)
    wait_for(lambda: not deck.refused, 5)


@pytest.fixture
def slow_deck(engines):
    """A deck whose pack "two" is loaded when the event says so, and what it has loaded."""
    engines["three"] = FakeEngine(250, ("red",))
    go, loaded = threading.Event(), []

    def load(pack):
        if pack == "two":
            assert go.wait(10)
        loaded.append(pack)
        return engines[pack]

    deck = Deck(load, "one", SIZE, Controls("one", ("warm", "cold"), Look(), crossfade=0.1))
    yield deck, go, loaded
    deck.close()


def test_a_pack_that_is_on_its_way_takes_over_from_an_engine_that_fails(slow_deck, engines):
    deck, go, loaded = slow_deck
    deck.play("two")
    deck.play("three")
    engines["one"].fails = True
    assert grey(deck) == 10
    go.set()
    wait_to_play(deck, engines["three"], seconds=5)
    wait_for(lambda: deck._preparing is None and engines["two"].closed)
    assert (deck.problem, deck.restarted, loaded) == ("", 1, ["one", "two", "three"])
    assert (engines["one"].closed, engines["two"].closed, engines["three"].closed) == (True, True, False)


def test_a_pack_that_is_asked_for_after_a_failure_follows_one_that_was_on_its_way(slow_deck, engines):
    deck, go, loaded = slow_deck
    deck.play("two")
    engines["one"].fails = True
    assert grey(deck) == 10
    deck.play("three")
    go.set()
    wait_to_play(deck, engines["three"], seconds=5)
    assert loaded == ["one", "two", "three"]


def test_of_packs_that_are_asked_for_while_one_is_loaded_the_last_one_follows(slow_deck, engines):
    deck, go, loaded = slow_deck
    engines["four"] = FakeEngine(150, ("red",))
    for pack in ("two", "two", "four", "one", "three", "three"):
        deck.play(pack)
    go.set()
    wait_to_play(deck, engines["three"])
    wait_for(lambda: deck._preparing is None)
    deck.play("three")
    assert deck._preparing is None, "it is played already"
    # Whoever has thought better of it before its turn came.
    go.clear()
    engines["two"] = FakeEngine(200, ("red",))
    deck.play("two")
    deck.play("four")
    deck.play("two")
    go.set()
    wait_to_play(deck, engines["two"])
    wait_for(lambda: deck._preparing is None)
    assert loaded == ["one", "two", "three", "two"]


def test_whatever_is_raised_the_show_goes_on(deck, engines, caplog, monkeypatch):
    broken, engines["one"] = engines["one"], FakeEngine(101)
    broken.fails, broken.error = True, MemoryError()
    monkeypatch.setattr(broken, "close", {}.popitem)
    engines["two"].fails, engines["two"].error = True, RuntimeError("out of memory\nat device.cpp:7")
    assert grey(deck) == 10
    assert deck.problem == "the engine failed, and the input passes through: MemoryError: MemoryError"
    deck.play("two")
    wait_for(lambda: grey(deck) == 101)
    assert (deck.problem, deck.restarted) == ("", 1)
    assert deck.refused == {"two": "RuntimeError: out of memory"}
    assert engines["two"].closed
    assert "the engine fake does not let go: KeyError" in caplog.text


def test_an_engine_that_takes_its_time_to_close_holds_up_no_picture(deck, engines):
    go = threading.Event()
    engines["one"].close = lambda: (go.wait(20), vars(engines["one"]).update(closed=True))
    deck._controls.set("crossfade", 0)
    deck.play("two")
    began = time.monotonic()
    wait_to_play(deck, engines["two"])
    assert time.monotonic() - began < 10
    assert not engines["one"].closed
    go.set()
    deck.close()
    assert engines["one"].closed


def test_what_was_played_comes_back_where_another_cannot_be_loaded(deck, engines):
    broken, engines["one"] = engines["one"], FakeEngine(101)
    broken.fails = True
    assert grey(deck) == 10
    deck.play("three")
    wait_for(lambda: grey(deck) == 101)
    assert (deck.problem, deck.refused) == ("", {"three": "three: no such pack"})


def test_an_engine_that_fails_is_restarted_while_the_input_passes_through(deck, engines, caplog):
    broken, engines["one"] = engines["one"], FakeEngine(101)
    broken.fails = True
    assert grey(deck) == 10
    assert "the input passes through" in deck.problem
    assert "the device is gone" in caplog.text
    wait_for(lambda: grey(deck) == 101)
    assert (deck.problem, deck.restarted) == ("", 1)


def too_slow(governor):
    """Let it have seen many frames that took too long, for long enough."""
    now = time.monotonic()
    governor.painted(0.0, now=now - 60)
    for _ in range(100):
        governor.painted(1.0, now=now)
    assert not governor.decide(now - 0.5)


def test_an_engine_that_fails_while_it_is_asked_after_is_no_error(deck, monkeypatch):
    player = deck._current
    looks = iter([player, None, player, None])
    monkeypatch.setattr(Deck, "_current", property(lambda deck: next(looks)), raising=False)
    assert deck.engine is player.engine
    assert next(looks) is None
    assert deck.height == player.size[1]


def test_a_smaller_size_is_gone_to_at_once_and_a_larger_one_fades_in(engines, monkeypatch):
    monkeypatch.setattr("pipeline.governor.RAISE_AFTER", 0.7)
    clock = Governor(1 / 30)
    controls = Controls("one", ("warm", "cold"), Look())
    deck = Deck(lambda pack: engines[pack], "one", SIZE, controls, governor=clock)
    too_slow(clock)
    heights = []

    def height():
        before = len(engines["one"].sizes)
        assert grey(deck) == 100
        heights.append([height for height, _ in engines["one"].sizes[before:]])
        time.sleep(0.005)
        return heights[-1][-1]

    wait_for(lambda: height() and deck._current.scale < 1)
    large, small = heights[0][0], heights[-1][-1]
    # The picture that tries it out may fall into a frame, and one is painted when it is gone over to.
    assert heights.count([large]) + heights.count([large, small]) == len(heights)
    assert heights.count([large, small]) <= 2
    heights.clear()
    wait_for(lambda: height() > small and len(heights[-1]) == 1)
    assert heights.count([small, heights[-1][-1]]) > 5
    deck.close()


def test_a_pack_for_fewer_lines_is_painted_at_as_many_as_the_one_that_was_too_slow(engines, monkeypatch):
    monkeypatch.setattr("pipeline.governor.RAISE_AFTER", 600.0)
    image = np.full((192, 256, 3), 10, np.uint8)
    engines["one"].style.native_height, engines["two"].style.native_height = 192, 96
    governor, controls = Governor(1 / 30), Controls("one", ("warm", "cold"), Look(), crossfade=0)
    deck = Deck(lambda pack: engines[pack], "one", (256, 192), controls, governor=governor)
    too_slow(governor)
    shown = []

    def height():
        deck(image, Scene(Look()))
        time.sleep(0.005)
        if not shown or deck.height != shown[-1]:
            shown.append(deck.height)
        return deck.height

    wait_for(lambda: height() == 48)
    deck.play("two")
    wait_for(lambda: height() and deck.engine is engines["two"])
    assert governor.scale == 0.45
    # Larger ones are only ever tried.
    engines["one"].closed = False
    deck.play("one")
    wait_for(lambda: height() and deck.engine is engines["one"])
    assert governor.scale == 0.45
    # Of 192 lines a quarter, of 96 the step that is next to a half, and the same step of 192.
    assert shown == [192, 48, 40, 88]
    deck.close()


@pytest.mark.parametrize("detail", [1.0, 2.0, "full"])
def test_a_live_picture_is_not_enlarged_for_a_pack_that_is_made_for_large_ones(engines, detail):
    engines["one"].style.native_height = 960
    controls = Controls("one", ("warm", "cold"), Look())
    deck = Deck(lambda pack: engines[pack], "one", SIZE, controls, detail=detail)
    grey(deck)
    assert set(engines["one"].sizes) == {IMAGE.shape[:2]}
    deck.close()


def test_frames_that_are_painted_while_a_size_is_gone_to_do_not_count_for_it(engines):
    governor = Governor(1 / 30)
    controls = Controls("one", ("warm", "cold"), Look())
    deck = Deck(lambda pack: engines[pack], "one", SIZE, controls, governor=governor)
    scales, painted = [], governor.painted
    too_slow(governor)
    governor.painted = lambda seconds, fixed: (scales.append(deck._current.scale), painted(seconds, fixed))
    frames = []

    def smaller():
        before = len(scales)
        grey(deck)
        frames.append(len(scales) > before)
        time.sleep(0.005)
        return deck._current.scale < 1

    wait_for(smaller)
    # The one that decided, at the old size; none while the new one fades in.
    assert frames[0]
    assert not any(frames[1:])
    grey(deck)
    assert scales[-1] == deck._current.scale == governor.scale < 1
    deck.close()


def test_a_pack_that_is_ready_while_another_fades_in_waits_for_it(engines):
    engines["three"] = FakeEngine(250, ("red",))
    controls = Controls("one", ("warm", "cold"), Look(), crossfade=0.2)
    deck = Deck(lambda pack: engines[pack], "one", SIZE, controls)
    deck.play("two")
    wait_for(lambda: engines["two"].sizes)
    deck.play("three")
    greys = []

    def over():
        greys.append(grey(deck))
        return engines["two"].closed

    wait_for(over)
    assert greys == sorted(greys)
    assert 200 in greys
    assert engines["one"].closed
    assert engines["two"].closed
    deck.close()


def test_an_engine_that_failed_is_given_back_before_it_is_loaded_again(engines):
    broken, loaded = engines["one"], []

    def load(pack):
        loaded.append(broken.closed)
        return engines[pack]

    deck = Deck(load, "one", SIZE, Controls("one", ("warm", "cold"), Look()))
    engines["one"], broken.fails = FakeEngine(101), True
    wait_for(lambda: grey(deck) == 101)
    assert loaded == [False, True]
    deck.close()


def test_another_pack_ends_the_trouble_of_one_that_does_not_come_back(deck, engines):
    engines.pop("one").fails = True
    assert grey(deck) == 10
    wait_for(lambda: "does not come back" in deck.problem)
    deck.play("two")
    wait_to_play(deck, engines["two"])
    assert deck.problem == ""
    assert deck._controls.state["pack"] == "two"


def test_nothing_keeps_running(engines):
    before = threading.active_count()
    controls = Controls("one", ("warm", "cold"), Look())
    deck = Deck(lambda pack: engines[pack], "one", SIZE, controls)
    engines["one"].fails = True
    deck(IMAGE, controls.scene_at(Fraction(0)))
    deck.close()
    wait_for(lambda: threading.active_count() == before)


@pytest.mark.parametrize("switch", ["blackout", "bypass", "freeze"])
def test_a_pack_arrives_at_once_while_nothing_is_painted(deck, engines, switch):
    controls = deck._controls
    assert grey(deck) == 100
    controls.set("crossfade", 60)
    controls.set(switch, True)
    controls.set("pack", "two")

    def arrived():
        grey(deck, controls.scene_at(Fraction(1)))
        return controls.state["pack"] == "two"

    wait_for(arrived)
    wait_for(lambda: engines["one"].closed)
    controls.set("style", "red")
    controls.set(switch, False)
    assert grey(deck, controls.scene_at(Fraction(2))) == 200
