"""The three threads: everything arrives, and every failure is raised and leaves nothing running."""

import threading
import time
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from engines import InferenceError, Look
from pipeline.errors import SinkError, SourceError
from pipeline.frame import Frame
from pipeline.stream import run

TIME_BASE = Fraction(1, 25)


class Packet:
    size = 100


class FakeSource:
    info = SimpleNamespace(live=False)

    def __init__(self, frames, fails_after=None):
        self.frames, self.fails_after, self.read = frames, fails_after, 0

    def __iter__(self):
        for index in range(self.frames):
            if index == self.fails_after:
                raise SourceError("the cable is out")
            self.read += 1
            yield Frame(np.full((2, 2, 3), index % 256, np.uint8), index * 3, 3, TIME_BASE)
            yield Packet()


class FakeSink:
    waiting, name, lost, left_out = 1, "fake", "", 0

    def __init__(self, fails_after=None):
        self.frames, self.packets, self.ended, self.fails_after = [], 0, [], fails_after

    def write(self, frame):
        if len(self.frames) == self.fails_after:
            raise SinkError("the disk is full")
        self.frames.append(frame)

    def mux(self, packet):
        self.packets += 1

    def close(self):
        self.ended.append("closed")

    def abort(self):
        self.ended.append("aborted")


def invert(image, look):
    return 255 - image


def still(time):
    return Look()


@pytest.fixture(autouse=True)
def nothing_keeps_running():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_every_frame_and_packet_in_order():
    sink = FakeSink()
    stats = run(FakeSource(300), invert, [sink], look_at=still)
    assert [frame.pts for frame in sink.frames] == [3 * index for index in range(300)]
    assert [int(frame.image[0, 0, 0]) for frame in sink.frames] == [255 - index % 256 for index in range(300)]
    assert sink.packets == 300
    assert sink.ended == ["closed"]
    assert (stats.decoded, stats.stylized, stats.encoded) == (300, 300, 300)


def test_the_look_goes_by_the_time_of_the_frame():
    seen = []

    def paint(image, look):
        seen.append(look.strength)
        return image

    run(FakeSource(10), paint, [FakeSink()], look_at=lambda time: Look(strength=float(time / 10)))
    assert seen == [pytest.approx(index * 3 / 250) for index in range(10)]


def test_several_sinks_each_get_everything():
    sinks = [FakeSink(), FakeSink()]
    run(FakeSource(50), invert, sinks, look_at=still)
    assert [len(sink.frames) for sink in sinks] == [50, 50]
    assert [sink.packets for sink in sinks] == [50, 50]


def test_an_empty_source_closes_the_sink():
    sink = FakeSink()
    assert run(FakeSource(0), invert, [sink], look_at=still).encoded == 0
    assert sink.ended == ["closed"]


def test_a_failing_source_is_raised_after_the_frames_before_it():
    sink = FakeSink()
    with pytest.raises(SourceError, match="cable"):
        run(FakeSource(100, fails_after=20), invert, [sink], look_at=still)
    assert len(sink.frames) == 20
    assert sink.ended == ["aborted"]


def test_a_failing_engine_is_raised():
    def paint(image, look):
        if image[0, 0, 0] == 20:
            raise InferenceError("out of memory")
        return image

    source, sink = FakeSource(10_000), FakeSink()
    with pytest.raises(InferenceError, match="memory"):
        run(source, paint, [sink], look_at=still)
    assert len(sink.frames) == 20
    assert sink.ended == ["aborted"]
    assert source.read < 40


def test_a_failing_sink_stops_the_source():
    source, sink = FakeSource(10_000), FakeSink(fails_after=20)
    with pytest.raises(SinkError, match="disk"):
        run(source, invert, [sink], look_at=still)
    assert sink.ended == ["aborted"]
    assert source.read < 60


@pytest.mark.parametrize("fails", [0, 1])
def test_one_failing_sink_stops_a_file_for_all(fails):
    """Without an output that has all frames, hours of painting would be for nothing."""
    source, sinks = FakeSource(10_000), [FakeSink(), FakeSink()]
    sinks[fails] = FakeSink(fails_after=5)
    with pytest.raises(SinkError, match="disk"):
        run(source, invert, sinks, look_at=still)
    assert source.read < 60
    assert [sink.ended for sink in sinks] == [["aborted"], ["aborted"]]


def test_a_sink_that_cannot_finish_is_aborted_and_raised():
    sink = FakeSink()

    def close():
        raise SinkError("cannot be finished")

    sink.close = close
    with pytest.raises(SinkError, match="finished"):
        run(FakeSource(5), invert, [sink], look_at=still)
    assert sink.ended == ["aborted"]


def test_ctrl_c_stops_and_aborts():
    sink = FakeSink()

    def interrupt(stats):
        if stats.encoded > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(FakeSource(10**9), invert, [sink], look_at=still, progress=interrupt)
    assert sink.ended == ["aborted"]


def test_a_sink_without_readers_never_hangs_the_source():
    """All sound first and then all pictures, and the other way round."""

    class Lopsided(FakeSource):
        def __iter__(self):
            items = list(super().__iter__())
            yield from [item for item in items if isinstance(item, Packet)]
            yield from [item for item in items if isinstance(item, Frame)]

    sink = FakeSink()
    run(Lopsided(200), invert, [sink], look_at=still)
    assert (len(sink.frames), sink.packets) == (200, 200)


@pytest.mark.parametrize("streams", [1, 2, 5])
def test_frames_painted_at_the_same_time_come_out_in_order(streams):
    running, most = [], []

    def paint(image, look):
        running.append(1)
        most.append(len(running))
        threading.Event().wait(0.002 if image[0, 0, 0] % 3 else 0.01)
        running.pop()
        return 255 - image

    sink = FakeSink()
    stats = run(FakeSource(100), paint, [sink], look_at=still, streams=streams)
    assert [int(frame.image[0, 0, 0]) for frame in sink.frames] == [255 - index for index in range(100)]
    assert stats.stylized == 100
    assert max(most) == streams


def test_an_engine_that_fails_in_one_of_several_streams():
    def paint(image, look):
        if image[0, 0, 0] == 20:
            raise InferenceError("out of memory")
        return image

    sink = FakeSink()
    with pytest.raises(InferenceError, match="memory"):
        run(FakeSource(10_000), paint, [sink], look_at=still, streams=3)
    assert [frame.pts for frame in sink.frames] == [3 * index for index in range(20)]
    assert sink.ended == ["aborted"]


class LiveSource(FakeSource):
    """Frames that do not wait."""

    info = SimpleNamespace(live=True)

    def __init__(self, frames, period=0.005):
        super().__init__(frames)
        self.period = period

    def __iter__(self):
        for item in super().__iter__():
            if isinstance(item, Frame):
                time.sleep(self.period)
                item = replace(item, captured_at=time.monotonic())
            yield item


class HeldSource(FakeSource):
    """Gives its last picture again and again, as a source that is lost does."""

    info = SimpleNamespace(live=True)

    def __iter__(self):
        for index in range(self.frames):
            time.sleep(0.005)
            captured_at = time.monotonic() if index < 3 else None
            yield Frame(np.zeros((2, 2, 3), np.uint8), index, 1, TIME_BASE, captured_at=captured_at)


def test_live_a_picture_that_is_held_is_none_that_came():
    stats = run(HeldSource(20), invert, [FakeSink()], look_at=still)
    assert stats.stylized + stats.dropped == 20
    assert (stats.decoded, stats.repeated, len(stats.read)) == (3, 17, 3)


class SlowSink(FakeSink):
    def write(self, frame):
        time.sleep(0.05)
        super().write(frame)


def test_live_the_newest_frame_wins_and_every_drop_is_counted():
    sink = FakeSink()

    def slowly(image, look):
        time.sleep(0.02)
        return image

    stats = run(LiveSource(100), slowly, [sink], look_at=still)
    times = [frame.pts for frame in sink.frames]
    assert times == sorted(set(times))
    assert times[-1] == 99 * 3
    assert stats.decoded == 100
    # The sink's own thread, too, may be too slow for a moment on a busy machine.
    assert stats.dropped > 0
    assert stats.dropped + stats.sinks[0].dropped == 100 - len(sink.frames)
    assert sink.packets == 100


def test_live_a_slow_sink_slows_no_other_one():
    fast, slow = FakeSink(), SlowSink()
    stats = run(LiveSource(100), invert, [fast, slow], look_at=still)
    assert len(fast.frames) + stats.dropped + stats.sinks[0].dropped == 100
    assert len(fast.frames) > 3 * len(slow.frames)
    assert stats.sinks[1].dropped == stats.stylized - len(slow.frames)
    assert slow.frames[-1].pts == 99 * 3


def test_live_a_sink_that_fails_leaves_the_others(caplog):
    good, bad = FakeSink(), FakeSink(fails_after=5)
    with pytest.raises(SinkError, match="disk is full"):
        run(LiveSource(60), invert, [good, bad], look_at=still)
    assert good.ended == ["closed"]
    assert good.frames[-1].pts == 59 * 3
    assert bad.ended == ["aborted"]
    assert "the disk is full" in caplog.text
    # Whoever looks at the status sees it, too.
    assert (good.lost, bad.lost) == ("", "the disk is full")


def test_live_stops_when_asked_and_closes_properly():
    sink, stop = FakeSink(), threading.Event()

    def paint(image, look):
        if len(sink.frames) > 10:
            stop.set()
        return invert(image, look)

    run(LiveSource(10_000), paint, [sink], look_at=still, stop=stop)
    assert sink.ended == ["closed"]
    assert 10 < len(sink.frames) < 10_000


class HungSink(FakeSink):
    """Takes nothing until it is let go."""

    def __init__(self):
        super().__init__()
        self.go, self.done = threading.Event(), threading.Event()

    def write(self, frame):
        self.go.wait()

    def close(self):
        super().close()
        self.done.set()


def let_go(sink, before):
    sink.go.set()
    end = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)


def test_live_a_sink_that_hangs_does_not_hold_up_the_end(monkeypatch, caplog):
    monkeypatch.setattr("pipeline.stream.END_WITHIN", 0.5)
    before = threading.active_count()
    good, hung, stop = FakeSink(), HungSink(), threading.Event()
    threading.Timer(0.2, stop.set).start()
    run(LiveSource(10_000), invert, [hung, good], look_at=still, stop=stop)
    assert good.ended == ["closed"]
    assert hung.ended == []
    assert "fake does not end" in caplog.text
    let_go(hung, before)


def test_live_a_second_ctrl_c_ends_it_although_a_sink_hangs(monkeypatch):
    monkeypatch.setattr("pipeline.stream.PATIENCE", 0.2)
    before, hung = threading.active_count(), HungSink()

    def progress(stats):
        if stats.stylized > 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(LiveSource(10_000), invert, [hung], look_at=still, progress=progress)
    let_go(hung, before)
