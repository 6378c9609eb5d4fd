"""Sound on a loudspeaker: when a sample is heard, by a made-up clock, and in a real PulseAudio."""

import os
import subprocess
import sys
import threading
import time
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from pipeline.errors import SinkError
from pipeline.frame import Frame, Sound
from pipeline.sinks import speaker
from pipeline.sinks.speaker import FADE, SpeakerSink
from pipeline.sources.pattern import PatternSource
from tests.packs import tiny_pack
from tests.parts import needs
from tests.test_cli import FAUVE, assert_one_line, fauve

RATE = 48_000
ZERO = 1000.0
"""When the source began, by the clock of the machine."""


class Silent:
    """A device that plays nothing."""

    active = True

    def abort(self):
        """As PortAudio's streams have it."""

    def close(self):
        """As PortAudio's streams have it."""


@pytest.fixture
def sink(monkeypatch):
    monkeypatch.setattr(SpeakerSink, "_open", lambda *_, **__: Silent())
    sink = SpeakerSink("speaker:", PatternSource((64, 64), sound=True).info)
    yield sink
    sink.close()


def frame(at):
    image = np.zeros((64, 64, 3), np.uint8)
    return Frame(image, round(at * 90_000), 3000, Fraction(1, 90_000), captured_at=ZERO + at)


def value(index):
    """What sample `index` is, so that each tells its place."""
    return np.asarray(index, np.float32) / RATE / 100


def play(sink, seconds):
    """Give it the sound of `seconds`, in pieces of 1024 samples."""
    for at in range(0, round(seconds * RATE), 1024):
        samples = np.repeat(value(np.arange(at, at + 1024))[None], 2, 0)
        piece = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout="stereo")
        piece.pts, piece.time_base, piece.sample_rate = at, Fraction(1, RATE), RATE
        sink.mux(Sound(piece, 8 * 1024))


def test_a_sample_is_heard_when_its_picture_is_seen(sink):
    sink.latency = lambda: 0.25
    assert not sink.samples(480, ZERO).any()
    sink.write(frame(0))
    play(sink, 2)
    heard = sink.samples(480, ZERO + 1.25)
    np.testing.assert_allclose(heard, np.repeat(value(np.arange(RATE, RATE + 480))[:, None], 2, 1), atol=1e-6)
    # What never came is silent.
    assert not sink.samples(480, ZERO + 4)[FADE:].any()


def test_an_unsteady_device_does_not_tear_it(sink):
    sink.write(frame(0))
    play(sink, 3)
    heard = [sink.samples(480, ZERO + 1 + 0.01 * turn + 0.009 * (-1) ** turn)[:, 0] for turn in range(100)]
    steps = np.diff(np.concatenate(heard))
    np.testing.assert_allclose(steps, value(1), atol=2e-7)


def test_a_latency_that_grows_is_followed_without_a_click(sink):
    sink.write(frame(0))
    play(sink, 3)
    late = 0.05
    sink.latency = lambda: late
    before = sink.samples(1024, ZERO + 1)
    late = 0.2
    after = sink.samples(1024, ZERO + 1 + 1024 / RATE)
    expected = RATE + 1024 - 0.2 * RATE
    assert after[FADE, 0] == pytest.approx(value(expected + FADE), abs=1e-6)
    assert after[-1, 0] == pytest.approx(value(expected + 1023), abs=1e-6)
    # In between it goes from the one to the other: no step is larger than the way through the fade.
    assert np.abs(np.diff(np.concatenate([before, after])[:, 0])).max() < 0.15 / 100 / FADE * 2


def test_pictures_that_come_unsteadily_do_not_move_it(sink):
    generator = np.random.default_rng(1)
    for number in range(90):
        late = Frame(
            *(np.zeros((64, 64, 3), np.uint8), number * 3000, 3000, Fraction(1, 90_000)),
            captured_at=ZERO + number / 30 + generator.exponential(0.01),
        )
        sink.write(late)
    play(sink, 3)
    heard = sink.samples(480, ZERO + 1)
    assert abs(heard[0, 0] - value(RATE)) < value(0.01 * RATE)


def test_it_keeps_no_more_than_it_may_need(sink):
    sink.write(frame(0))
    play(sink, 60)
    assert len(sink._pieces) <= 10 * RATE / 1024 + 2


def test_what_cannot_be_played():
    with pytest.raises(SinkError, match="the input has no sound; --sound gives it"):
        SpeakerSink("speaker:", PatternSource((64, 64)).info)


class Device(Silent):
    """A stand-in for a stream of sounddevice's, which is open until it is pulled out."""

    def __init__(self, machine, callback):
        self.machine, self.callback, self.closed = machine, callback, False

    def start(self):
        self.machine.streams.append(self)

    def ask(self):
        """Have it ask for samples, as a device does a hundred times a second."""
        out = np.ones((480, 2), np.float32)
        now = time.monotonic()
        self.callback(out, 480, SimpleNamespace(outputBufferDacTime=now, currentTime=now), None)
        return out

    def close(self):
        self.closed = True


class Machine:
    """A stand-in for the module sounddevice, with one loudspeaker that can be pulled out."""

    class PortAudioError(Exception):
        pass

    def __init__(self):
        self.streams, self.refused, self.plugged, self.listed, self._initialized = [], 0, True, True, 1

    def OutputStream(self, *format, callback):  # noqa: N802
        if not self.listed:
            self.refused += 1
            raise self.PortAudioError("Error querying device -1")
        return Device(self, callback)

    def query_devices(self):
        return []

    def _terminate(self):
        self._initialized -= 1

    def _initialize(self):
        self._initialized += 1
        self.listed = self.plugged


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    monkeypatch.setitem(sys.modules, "sounddevice", machine)
    monkeypatch.setattr(speaker, "LOOK_EVERY", 0.005)
    monkeypatch.setattr(speaker, "SILENT_AFTER", 60.0)
    monkeypatch.setattr(speaker, "PAUSES", (0.01, 0.02, 0.03))
    return machine


def wait_for(what):
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("told", [True, False])
def test_a_loudspeaker_that_is_pulled_out_is_asked_for_again(machine, monkeypatch, caplog, told):
    waits = []

    class Event(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            return super().wait(timeout)

    monkeypatch.setattr(speaker.threading, "Event", Event)
    sink = SpeakerSink("speaker:", PatternSource((64, 64), sound=True).info)
    sink.write(frame(0))
    play(sink, 1)
    (pulled,) = machine.streams
    assert pulled.ask().shape == (480, 2)
    machine.plugged = False
    # PortAudio says so, or the device merely asks for nothing any more.
    if told:
        pulled.active = False
    else:
        monkeypatch.setattr(speaker, "SILENT_AFTER", 0.0)
    wait_for(lambda: machine.refused >= 4)
    assert pulled.closed
    assert sink.lost.startswith("cannot be played on")
    pauses = [seconds for seconds in waits if seconds in speaker.PAUSES]
    assert pauses[:3] == [0.01, 0.02, 0.03]
    assert set(pauses[3:]) == {0.03}
    # Meanwhile the show goes on.
    sink.write(frame(1))
    play(sink, 1)
    monkeypatch.setattr(speaker, "SILENT_AFTER", 60.0)
    machine.plugged = True
    wait_for(lambda: not sink.lost)
    again = machine.streams[-1]
    assert again is not pulled
    again.ask()
    sink.close()
    assert again.closed
    assert machine._initialized == 1
    assert [record.message for record in caplog.records] == [
        "speaker: is lost (the device plays no more); it is tried again",
        "speaker: is back",
    ]


def test_a_loudspeaker_that_is_lost_at_the_end_does_not_hold_it_up(machine):
    sink = SpeakerSink("speaker:", PatternSource((64, 64), sound=True).info)
    machine.plugged = machine.streams[0].active = False
    wait_for(lambda: machine.refused)
    sink.close()
    assert not sink._watching.is_alive()
    assert len(machine.streams) == 1


def test_devices_are_not_listed_anew_while_another_one_plays(machine):
    info = PatternSource((64, 64), sound=True).info
    one, two = (SpeakerSink("speaker:", info) for _ in range(2))
    machine.plugged = False
    machine.streams[0].active = False
    wait_for(lambda: one.lost == "" and len(machine.streams) == 3)
    assert machine.listed
    one.close()
    two.close()


@pytest.fixture
def pulse(tmp_path):
    """A PulseAudio whose loudspeaker can be recorded; the environment that leads there."""
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    (tmp_path / ".asoundrc").write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n")
    script = tmp_path / "pulse.pa"
    script.write_text(
        "load-module module-null-sink sink_name=fauve rate=48000\n"
        "load-module module-native-protocol-unix\nset-default-sink fauve\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(runtime)}
    command = ["pulseaudio", "-n", "-F", str(script), "--daemonize=no", "--exit-idle-time=-1"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(100):
                known = subprocess.run(["pactl", "info"], env=environment, capture_output=True)
                if known.returncode == 0:
                    break
                time.sleep(0.1)
            yield environment
        finally:
            server.terminate()


@pytest.mark.skipif(
    os.environ.get("FAUVE_SOUND") != "1", reason="needs a machine with nothing else to do: FAUVE_SOUND=1"
)
@needs("pulseaudio", "parec")
def test_a_window_and_a_loudspeaker(tmp_path, pulse):
    tiny_pack(tmp_path / "tiny")
    environment = {**pulse, "SDL_VIDEODRIVER": "dummy"}
    raw = tmp_path / "heard.raw"
    with raw.open("wb") as file:
        record = ["parec", "--device=fauve.monitor", "--format=float32le", "--rate=48000", "--channels=2"]
        recorder = subprocess.Popen(record, env=environment, stdout=file)
        try:
            arguments = ["test:", "--size", "320x180", "-s", str(tmp_path / "tiny"), "--duration", "10s"]
            # Named first, it is not what the governor goes by all the same.
            outputs = ["-o", "speaker:", "-o", "window:", "--json"]
            done = subprocess.run(
                [*FAUVE, "live", *arguments, *outputs],
                capture_output=True,
                text=True,
                env=environment,
                timeout=60,
            )
        finally:
            recorder.terminate()
            recorder.wait()
    assert done.returncode == 0, done.stderr
    loud = np.flatnonzero(np.abs(np.fromfile(raw, np.float32).reshape(-1, 2)[:, 0]) > 0.25) / RATE
    clicks = [at for before, at in zip(np.append(-9, loud[:-1]), loud, strict=True) if at - before > 0.3]
    assert len(clicks) >= 3
    # A machine that is too busy may leave one out, but none is moved.
    steps = np.diff(clicks)[1:]
    assert np.abs(steps - np.rint(steps)).max() < 0.03, steps


@needs("pulseaudio", "pactl")
def test_a_loudspeaker_that_is_not_there(tmp_path, pulse):
    result = fauve("live", "test:", "-s", "live", "-o", "speaker:bathroom", env=pulse, cwd=tmp_path)
    assert_one_line(result, "speaker:bathroom", "cannot be played on", "there is 'pulse', 'default'")
