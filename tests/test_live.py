"""`fauve live` as people run it: real encoders, sockets and kills; each picture carries its number."""

import contextlib
import http.server
import io
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from fractions import Fraction
from itertools import count, islice, pairwise
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from click.testing import CliRunner

import engines
from pipeline.address import shown
from pipeline.commands import devices
from pipeline.commands.live import live
from pipeline.deck import Deck
from pipeline.errors import SinkError, SourceError
from pipeline.frame import Frame
from pipeline.live import open_sink
from pipeline.sinks import stream
from pipeline.sinks.muxer import INTERLEAVING, LiveEncoding, Muxer
from pipeline.sinks.stream import StreamSink, parse
from pipeline.sources.file import FileSource
from pipeline.sources.live import (
    PAUSES,
    Anchor,
    Capture,
    LiveSource,
    SrtProgram,
    hurries,
    open_container,
    open_source,
)
from pipeline.sources.live import parse as parse_source
from pipeline.sources.pattern import TIME_BASE, PatternSource, read_code, write_code
from pipeline.sources.sound import ALSA, WithSound, parse_sound
from tests.packs import tiny_pack
from tests.test_cli import FAUVE, assert_one_line, fauve
from tests.videos import bar, copy, make_video, picture, read_video

SIZE = ["--size", "320x180"]


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packs") / "tiny"
    tiny_pack(folder)
    return str(folder)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until_it_listens(port, seconds=60):
    """Wait until there is somebody at `port` of this machine, however slow it is."""
    end = time.monotonic() + seconds
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < end, f"nobody listens at {port}"
        time.sleep(0.1)


STARTED = []


@pytest.fixture(autouse=True)
def nothing_keeps_running():
    """Whatever a test that failed has left behind ends."""
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def start(*arguments, **options):
    process = subprocess.Popen(
        [*FAUVE, "live", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    STARTED.append(process)
    return process


def report(process, timeout=60):
    """What a run that was started with --json says at its end."""
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    assert events[-1]["event"] == "done"
    return events[-1], err


def wait_for(process, words, times=1):
    """Read what a run says until it has said `words` so many times; all that it has said till then."""
    said = ""
    while said.count(words) < times:
        line = process.stderr.readline()
        assert line, f"it ended before it said {words!r} {times} times: {said}"
        said += line
    return said


def until_painted(process, frames):
    """Wait until a run that was started with --json has painted so many frames; how many it has."""
    painted = 0
    while painted < frames:
        line = process.stdout.readline()
        assert line, f"it ended before it had painted {frames} frames: {process.stderr.read()}"
        painted = json.loads(line).get("painted", painted)
    return painted


def codes(path, **options):
    """Time in seconds and number of each frame, and the loudness of each millisecond of sound."""
    numbers, times, loudness = [], [], {}
    with av.open(path, **options) as container:
        for frame in container.decode(*container.streams.video, *container.streams.audio):
            if isinstance(frame, av.VideoFrame):
                numbers.append(read_code(frame.to_ndarray(format="rgb24")))
                times.append(float(frame.pts * frame.time_base))
            else:
                at = float(frame.pts * frame.time_base)
                for index, value in enumerate(np.abs(frame.to_ndarray()).max(0)[::48]):
                    loudness[round(at * 1000) + index] = float(value)
    return numbers, times, loudness


def recorded(path):
    """Numbers of the frames that a recording has so far, none before anything can be read."""
    with contextlib.suppress(av.error.FFmpegError):
        return codes(str(path))[0]
    return []


def test_the_pattern_carries_its_number():
    source = PatternSource((320, 180))
    for number in (0, 1, 12345, (1 << 24) - 1):
        assert read_code(source.picture(number)) == number
    grey = np.full((180, 320, 3), 128, np.uint8)
    assert read_code(grey) is None
    write_code(grey, 77)
    assert read_code(255 - grey) is None


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_a_recording_has_every_frame_at_its_time_and_the_sound_with_it(tmp_path, pack, suffix):
    path = tmp_path / f"show{suffix}"
    done, _ = report(start("test:", *SIZE, "-s", pack, "-o", path, "--json", "--duration", "4s"))
    numbers, times, loudness = codes(str(path))
    counted = done["sinks"][str(path)]
    assert len(numbers) == counted["frames"] == done["frames"] > 10
    assert counted["dropped"] == 0
    assert numbers == sorted(set(numbers))
    # A frame's number says when it was captured: 30 a second.
    first = times[0] - numbers[0] / 30
    assert all(abs(at - first - number / 30) < 0.002 for at, number in zip(times, numbers, strict=True))
    # The pattern clicks in the first two frames of each second.
    loud = [at for at, value in loudness.items() if value > 0.25]
    seconds = sorted({round(at / 1000 - first) for at in loud})
    assert len(seconds) >= 3
    for second in seconds:
        begins = min(at for at in loud if abs(at / 1000 - first - second) < 0.5) / 1000 - first
        assert abs(begins - second) < 0.04
    assert not any(0.2 < (at / 1000 - first) % 1 < 0.9 for at in loud)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_frames_that_are_dropped_at_the_beginning_move_none_of_a_recording(tmp_path, suffix):
    path, pattern = tmp_path / f"show{suffix}", PatternSource((320, 180), sound=True)
    sink, written = open_sink(str(path), pattern.info), [0, 8, 9, 11, 16, 21, 23, 24, *range(26, 90)]
    for number in written:
        sink.write(Frame(pattern.picture(number), number * 3000, 3000, pattern.info.time_base))
        sink.mux(pattern._sound(number))
    sink.close()
    numbers, times, loudness = codes(str(path))
    assert numbers == written
    # By the click in the frames 30, 31 and 60, 61, which are all there.
    begins = [
        min(at for at, value in loudness.items() if value > 0.25 and at > after) for after in (500, 2000)
    ]
    first = begins[0] / 1000 - 1
    assert abs(begins[1] / 1000 - first - 2) < 0.04
    assert all(abs(at - first - number / 30) < 0.04 for at, number in zip(times, numbers, strict=True))


@pytest.mark.parametrize(("every", "rate"), [(1, 30), (5, 6), (10, 3)])
def test_key_frames_are_two_seconds_apart_however_many_frames_are_dropped(tmp_path, every, rate):
    path, pattern = tmp_path / "show.mkv", PatternSource((320, 180))
    sink = open_sink(str(path), pattern.info)
    for number in range(0, 151, every):
        sink.write(Frame(pattern.picture(number), number * 3000, 3000, pattern.info.time_base))
    sink.close()
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert len(packets) == 5 * rate + 1
    assert [packet.pts * packet.time_base for packet in packets if packet.is_keyframe] == [0, 2, 4]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_a_recording_can_be_played_after_a_kill(tmp_path, pack, suffix):
    path = tmp_path / f"show{suffix}"
    process = start("test:", *SIZE, "-s", pack, "-o", path)
    wait_until(lambda: len(recorded(path)) > 5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    numbers, _, _ = codes(str(path))
    assert len(numbers) > 5
    assert numbers == sorted(set(numbers))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT")
@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_a_recording_can_be_played_after_a_kill_though_its_sound_has_not_begun(tmp_path, suffix):
    pattern = PatternSource((160, 96), Fraction(30), sound=True)
    sink = open_sink(str(tmp_path / f"show{suffix}"), pattern.info)
    for number in range(400):
        sink.write(Frame(pattern.picture(number), 3000 * number, 3000, TIME_BASE))
        if number == 300:
            killed = tmp_path / f"killed{suffix}"
            killed.write_bytes((tmp_path / f"show{suffix}").read_bytes())
        if number >= 310:
            sink.mux(pattern._sound(number))
    sink.close()
    assert len(codes(str(killed))[0]) > 200
    numbers, times, loudness = codes(str(tmp_path / f"show{suffix}"))
    assert numbers == list(range(400))
    # What comes then is in its place.
    clicks = [at for at, value in loudness.items() if value > 0.3]
    assert min(clicks) == pytest.approx(1000 * times[330], abs=30)
    assert max(clicks) < 1000 * times[392]


def test_ctrl_c_ends_it_at_once_and_closes_the_recording(tmp_path, pack):
    path = tmp_path / "show.mp4"
    process = start("test:", *SIZE, "-s", pack, "-o", path, "--json")
    until_painted(process, 30)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    done, _ = report(process)
    assert time.monotonic() - began < 10
    numbers, _, _ = codes(str(path))
    assert len(numbers) == done["frames"] > 0


def test_who_reads_the_status_may_go_while_the_show_goes_on(tmp_path, pack):
    path = tmp_path / "show.mkv"
    process = start("test:", *SIZE, "-s", pack, "-o", path, "--json", "--duration", "4s")
    assert process.stdout.readline()
    process.stdout.close()
    assert "the status cannot be told any more: Broken pipe" in wait_for(process, "any more")
    assert process.wait(60) == 0
    assert len(codes(str(path))[0]) > 0


def test_the_same_machine_gets_it_by_nut(pack, tmp_path):
    port = free_port()
    process = start("test:", *SIZE, "-s", pack, "-o", f"nut+udp://127.0.0.1:{port}", "--strength", "0")
    numbers = []
    with av.open(
        f"udp://127.0.0.1:{port}?buffer_size=4000000",
        format="nut",
        options={"probesize": "32", "analyzeduration": "0"},
        timeout=20,
    ) as container:
        for frame in container.decode(video=0):
            numbers.append(read_code(frame.to_ndarray(format="rgb24")))
            if len(numbers) == 60:
                break
    process.terminate()
    process.communicate(timeout=10)
    assert None not in numbers
    assert numbers == sorted(set(numbers))


def test_who_begins_to_read_nut_later_sees_it_and_the_others_go_on():
    pattern, datagrams = PatternSource((320, 180)), []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reader:
        reader.bind(("127.0.0.1", 0))
        reader.settimeout(0.04)
        url = f"udp://127.0.0.1:{reader.getsockname()[1]}?pkt_size=60000"
        module = [sys.executable, "-m", "pipeline.sinks.stream_process"]
        command = [*module, url, "nut", '{"flush_packets": "1"}']
        relay = subprocess.Popen(command, stdin=subprocess.PIPE)
        muxer = Muxer("nut", relay.stdin, "nut", pattern.info, LiveEncoding("mjpeg"), flush_packets="1")
        number = 0
        while len(datagrams) < 80:
            muxer.write(Frame(pattern.picture(number), number * 3000, 3000, pattern.info.time_base))
            relay.stdin.flush()
            number += 1
            time.sleep(0.03)
            with contextlib.suppress(TimeoutError):
                datagrams.append(reader.recv(65536))
            assert number < 500
        relay.kill()
        relay.wait()
        muxer.abort()
        with contextlib.suppress(BrokenPipeError):
            relay.stdin.close()

    def read(datagrams):
        # Where nobody can seek.
        stream = SimpleNamespace(read=io.BytesIO(b"".join(datagrams)).read)
        return codes(stream, format="nut")[0]

    early, late = read(datagrams), read(datagrams[10:])
    assert early == list(range(1, len(early) + 1))
    assert early[-len(late) :] == late
    assert 20 < len(late) < len(early)


TWICE = """
import signal, threading
from pipeline.commands import live

stop = threading.Event()
live.SAME_SIGNAL = 60.0
with live._interrupted(stop) as begin:
    begin()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    assert stop.is_set()
    live.SAME_SIGNAL = 0.0
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt as error:
        print(error)
"""


HUNG_UP = """
import signal, threading
from pipeline.commands import live

for handler in (signal.SIG_IGN, signal.SIG_DFL):
    signal.signal(signal.SIGHUP, handler)
    stop = threading.Event()
    with live._interrupted(stop) as begin:
        begin()
        signal.raise_signal(signal.SIGHUP)
        print(stop.is_set(), flush=True)
"""


SWALLOWED = """
import contextlib, signal, threading
from pipeline.commands import live

stop = threading.Event()
with live._interrupted(stop) as begin:
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
        print("goes on")
    try:
        begin()
        print("begins")
    except KeyboardInterrupt:
        print("ends")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM there")
def test_a_signal_that_a_library_swallows_while_it_is_loaded_ends_the_run():
    done = subprocess.run([sys.executable, "-c", SWALLOWED], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGHUP there")
def test_a_terminal_that_is_closed_ends_the_run_properly_unless_that_is_ignored():
    done = subprocess.run([sys.executable, "-c", HUNG_UP], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "False\nTrue\n"), done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM there")
def test_a_signal_that_is_passed_on_twice_is_one():
    # In a process of its own, which a signal that nobody takes may end.
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "stopped at once\n"), done.stderr


@pytest.mark.parametrize("sound", [False, True])
def test_a_stream_begins_with_a_key_frame_and_has_all_that_follows(tmp_path, sound):
    path, info = tmp_path / "out.ts", replace(PatternSource((320, 180)).info, sound=sound)
    command = [sys.executable, "-m", "pipeline.sinks.stream_process", f"file:{path}", "mpegts", "{}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as relay:
        muxer = Muxer("out.ts", relay.stdin, "nut", info, LiveEncoding(), flush_packets="1")
        for number in range(20):
            image = PatternSource((320, 180)).picture(number)
            muxer.write(Frame(image, number * 3000, 3000, info.time_base), key=number == 1)
        muxer.close()
        relay.stdin.close()
        assert relay.stdout.read().strip() == b"open"
    assert relay.returncode == 0
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        numbers = [
            read_code(frame.to_ndarray(format="rgb24")) for packet in packets for frame in packet.decode()
        ]
    # The first picture only tells what is to come.
    assert packets[0].is_keyframe
    assert numbers == list(range(1, 20))


def test_sound_that_comes_back_later_does_not_end_a_stream(tmp_path):
    """Its encoder keeps some from before, which FLV refuses where it is older than the first picture."""
    path, pattern = tmp_path / "out", PatternSource((320, 180), sound=True)
    options = json.dumps(INTERLEAVING)
    command = [sys.executable, "-m", "pipeline.sinks.stream_process", f"file:{path}", "flv", options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as relay:
        muxer = Muxer("out", relay.stdin, "nut", pattern.info, LiveEncoding(), flush_packets="1")
        muxer.begin(Frame(pattern.picture(0), 0, 3000, pattern.info.time_base))
        for number in range(10, 90):
            muxer.write(
                Frame(pattern.picture(number), number * 3000, 3000, pattern.info.time_base), key=number == 10
            )
            if number >= 30:
                muxer.mux(pattern._sound(number))
        muxer.close()
        relay.stdin.close()
        assert relay.stdout.read().strip() == b"open"
    assert relay.returncode == 0
    numbers, times, loudness = codes(str(path))
    assert numbers == list(range(10, 90))
    # Frames 30, 31, 60 and 61 click; the first picture is 10.
    loud = [at / 1000 - times[0] for at, value in loudness.items() if value > 0.1]
    assert all(0.6 < at < 0.8 or 1.6 < at < 1.8 for at in loud)
    assert any(at < 1 for at in loud)
    assert any(at > 1 for at in loud)


def test_a_disk_that_is_full_ends_hls(tmp_path):
    target, pattern = parse(str(tmp_path / "show.m3u8")), PatternSource((320, 180), sound=False)
    muxer = Muxer("show.nut", str(tmp_path / "show.nut"), "nut", pattern.info, LiveEncoding())
    for number in range(200):
        muxer.write(Frame(pattern.picture(number), number * 3000, 3000, pattern.info.time_base))
    muxer.close()
    module = [sys.executable, "-m", "pipeline.sinks.stream_process"]
    with open(tmp_path / "show.nut", "rb") as pictures:
        relay = subprocess.run(
            [*module, target.url, target.format, json.dumps(target.options)],
            stdin=pictures,
            capture_output=True,
            text=True,
            timeout=60,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        )
    assert relay.returncode == 1
    assert relay.stderr.splitlines()[-1] == "File too large"


@pytest.mark.parametrize(("room", "full"), [(1 << 20, False), (4096, True)])
def test_a_disk_that_is_full_at_the_end_of_hls_is_said(tmp_path, monkeypatch, room, full):
    popen = subprocess.Popen
    limited = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))}
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **named: popen(*args, **named, **limited))
    pattern = PatternSource((320, 180))
    sink = StreamSink(str(tmp_path / "show.m3u8"), pattern.info)
    frames = (Frame(pattern.picture(n), n * 3000, 3000, pattern.info.time_base) for n in range(21))
    sink.write(next(frames))
    wait_until(lambda: sink.connected)
    # Less than a second: all of it is written at the end.
    for frame in frames:
        sink.write(frame)
    said = pytest.raises(SinkError, match=r"show.m3u8: the last seconds are missing: File too large$")
    with said if full else contextlib.nullcontext():
        sink.close()
    sink.abort()
    assert sink.left_out == 1


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_sound_after_a_gap_does_not_begin_before_it(tmp_path, suffix):
    path, pattern = tmp_path / f"show{suffix}", PatternSource((320, 180), sound=True)
    format = {".mkv": "matroska", ".ts": "mpegts"}.get(suffix, "mp4")
    muxer = Muxer("show", str(path), format, pattern.info, LiveEncoding())
    for number in (*range(20), *range(30, 60)):
        muxer.write(Frame(pattern.picture(number), number * 3000, 3000, pattern.info.time_base))
        muxer.mux(pattern._sound(number))
    muxer.close()
    numbers, times, loudness = codes(str(path))
    assert numbers == [*range(20), *range(30, 60)]
    loud = [at / 1000 - times[0] for at, value in loudness.items() if value > 0.1]
    # Frames 0, 1, 30 and 31 click.
    assert all(-0.03 < at < 0.1 or 0.97 < at < 1.1 for at in loud)
    assert any(at > 1 for at in loud)


@pytest.mark.parametrize("streamed", [True, False])
def test_pictures_leave_though_the_sound_has_stopped(tmp_path, monkeypatch, streamed):
    path, pattern = tmp_path / "out.ts", PatternSource((320, 180), Fraction(25), sound=True)
    if streamed:
        # As by TCP, for who listens can only be tested by how soon it comes.
        there = replace(parse("tcp://127.0.0.1:1"), url=f"file:{path}")
        monkeypatch.setattr(stream, "parse", lambda address, bits: there)
        sink = StreamSink("out.ts", pattern.info)
        sink.write(Frame(pattern.picture(0), 0, 0, pattern.info.time_base))
        # Though no sound has come yet.
        wait_until(lambda: sink.connected)
    else:
        sink = open_sink(str(path), pattern.info)
    for number in range(1, 201):
        sink.write(Frame(pattern.picture(number), number * 3600, 3600, pattern.info.time_base))
        if number < 10:
            sink.mux(pattern._sound(number))
    # Six of eight seconds are there before it ends: the encoder of a recording keeps some, too.
    wait_until(lambda: path.exists() and len(codes(str(path))[0]) > 150)
    sink.abort()


def listen(port, seconds, path):
    """A server that takes one MPEG-TS connection by TCP for a while, in a process that can be killed."""
    code = (
        "import av,sys\n"
        f"source = av.open('tcp://127.0.0.1:{port}?listen=1', format='mpegts')\n"
        f"target = open({str(path)!r}, 'wb')\n"
        "print('connected', flush=True)\n"
        "for frame in source.decode(video=0):\n"
        "    print(frame.pts, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    STARTED.append(process)
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT")
def test_a_server_that_is_killed_and_restarted_is_found_again(tmp_path, pack):
    port, path = free_port(), tmp_path / "show.mkv"
    server = listen(port, 30, tmp_path / "a")
    time.sleep(1)
    process = start("test:", *SIZE, "-s", pack, "-o", f"tcp://127.0.0.1:{port}", "-o", path, "--json")
    for _ in range(2):
        assert server.stdout.readline().strip() == "connected", server.stderr.read()
        for _ in range(60):
            assert server.stdout.readline().strip(), server.stderr.read()
        server.kill()
        server.communicate()
        time.sleep(0.5)
        server = listen(port, 30, tmp_path / "b")
    assert server.stdout.readline().strip() == "connected", server.stderr.read()
    said = wait_for(process, "is back", times=2)
    process.send_signal(signal.SIGINT)
    done, err = report(process)
    server.kill()
    server.communicate()
    err = said + err
    assert err.count("is lost") >= 2
    assert err.count("is back") == 2
    # Meanwhile nothing happened to the recording: it has every frame that was painted, in order, and what
    # is not in it was dropped before it could be painted, and counted.
    numbers, _, _ = codes(str(path))
    assert len(numbers) == done["frames"] == done["sinks"][str(path)]["frames"]
    assert min(np.diff(numbers)) > 0
    assert numbers[-1] + 1 - len(numbers) <= done["dropped"]
    assert len(numbers) + done["dropped"] <= done["frames_in"] + 1


def test_a_server_that_accepts_and_closes_is_not_back(monkeypatch, caplog):
    monkeypatch.setattr(stream, "HOLDS", 300.0)
    monkeypatch.setattr(StreamSink, "_relay_command", lambda self: [sys.executable, "-c", "print('open')"])
    sink, started = open_sink("tcp://127.0.0.1:9", PatternSource((64, 64)).info), set()

    def lost_again():
        sink.write(Frame(noise(0).image[:64, :64].copy(), 3000 * len(started), 3000, TIME_BASE))
        started.add(sink._child.pid)
        return len(started) > 4

    wait_until(lost_again)
    assert (sink._failures >= 4, sink.reconnected) == (True, 0)
    assert caplog.messages == ["tcp://127.0.0.1:9 is lost (it does not answer); it is tried again"]
    # One that stays is.
    stays = "import sys; print('open', flush=True); sys.stdin.buffer.read()"
    sink._command, left = [sys.executable, "-c", stays], set(started)
    wait_until(lambda: lost_again() and sink._child.pid not in left and sink.connected)
    monkeypatch.setattr(stream, "HOLDS", 0.0)
    # It is counted first, and then said.
    wait_until(lambda: caplog.messages[1:])
    sink.abort()
    assert (sink.reconnected, caplog.messages[1:]) == (1, ["tcp://127.0.0.1:9 is back"])


def test_hls_whose_folder_is_gone_is_not_back_before_it_has_written(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(stream, "HOLDS", 0.0)
    monkeypatch.setattr(stream, "FIRST_SEGMENT", 300.0)
    (tmp_path / "show").mkdir()
    sink, numbers = open_sink(str(tmp_path / "show" / "a.m3u8"), PatternSource((64, 64)).info), count()
    (tmp_path / "show").rmdir()

    def written():
        number = next(numbers)
        sink.write(Frame(noise(number).image[:64, :64].copy(), 3000 * number, 3000, TIME_BASE))
        return sink

    wait_until(lambda: written()._failures >= 2 and sink.connected)
    wait_until(lambda: written()._failures >= 3)
    assert sink.reconnected == 0
    sink.abort()
    assert "a.m3u8 is lost (No such file or directory); it is tried again" in caplog.text
    assert "is back" not in caplog.text


@pytest.fixture
def mute():
    """The port of a server that takes connections, and then neither reads nor says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def noise(number):
    image = np.random.default_rng(number).integers(0, 256, (360, 640, 3), np.uint8)
    return Frame(image, number * 3000, 3000, Fraction(1, 90_000))


def test_a_server_that_never_accepts_is_lost(monkeypatch, mute):
    monkeypatch.setattr(stream, "ACCEPT_WITHIN", 2.0)
    sink = open_sink(f"rtmp://127.0.0.1:{mute}/live/x", PatternSource((640, 360)).info)
    end, number = time.monotonic() + 30, 0
    while not sink.lost and time.monotonic() < end:
        sink.write(noise(number))
        number += 1
        time.sleep(0.03)
    sink.abort()
    assert sink.lost == "it does not answer"
    assert not sink.connected


def test_a_server_that_takes_nothing_does_not_hold_up_the_end(monkeypatch, mute):
    monkeypatch.setattr(stream, "ANSWER_WITHIN", 300.0)
    sink, stopped = open_sink(f"nut+tcp://127.0.0.1:{mute}", PatternSource((640, 360)).info), False
    sink.stopped = lambda: stopped
    written = []

    def write():
        while not sink.lost:
            sink.write(noise(len(written)))
            written.append(time.monotonic())

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    wait_until(lambda: sink.connected)
    # Until every buffer on the way is full.
    wait_until(lambda: written and time.monotonic() - written[-1] > 2)
    assert not sink.lost
    stopped = True
    writer.join(30)
    assert not writer.is_alive()
    sink.close()


def wait_until(is_so):
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_a_server_complains_of_all_evening_is_not_kept(monkeypatch):
    complaints = (
        "import sys\nprint('open', flush=True)\n"
        "for number in range(100000): print('complaint', number, file=sys.stderr)"
    )
    monkeypatch.setattr(StreamSink, "_relay_command", lambda self: [sys.executable, "-c", complaints])
    sink = open_sink("udp://127.0.0.1:9", PatternSource((64, 64)).info)
    words = sink._words.lines(within=60)
    assert words[-1] == "complaint 99999"
    assert len(words) == 10
    sink.abort()


BLACK = np.zeros((720, 1280, 3), np.uint8)


def test_each_picture_leaves_at_once_though_it_is_small():
    info = replace(PatternSource((1280, 720)).info, sound=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        sink = open_sink(f"tcp://127.0.0.1:{server.getsockname()[1]}", info)
        sink.write(Frame(BLACK, 0, 3000, info.time_base))
        # A black picture suffices for the child to ask the server.
        with server.accept()[0] as receiver:
            receiver.settimeout(5)
            wait_until(lambda: sink.connected)
            for number in range(1, 20):
                sink.write(Frame(BLACK, number * 3000, 3000, info.time_base))
                assert receiver.recv(1 << 20), "the next one is not written before this one has come"
            assert sink.left_out == 1
            sink.abort()


def test_what_is_called_as_ours_where_fauve_runs_breaks_no_stream(tmp_path, monkeypatch):
    (tmp_path / "pipeline.py").write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path)
    info = PatternSource((64, 64)).info
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        sink = open_sink(f"tcp://127.0.0.1:{server.getsockname()[1]}", info)
        sink.write(Frame(BLACK[:64, :64], 0, 3000, info.time_base))
        with server.accept()[0]:
            wait_until(lambda: sink.connected)
            sink.abort()


SENDER = """
import sys, time
from fractions import Fraction
import av, numpy as np
from pipeline.sources.pattern import PatternSource
port, size, first = int(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3])), int(sys.argv[4])
source = PatternSource(size, Fraction(25))
print("listens", flush=True)
with av.open(f"tcp://127.0.0.1:{port}?listen=1", "w", format="mpegts", options={"flush_packets": "1"}) as out:
    video = out.add_stream("libx264", rate=25)
    video.width, video.height, video.pix_fmt = *size, "yuv420p"
    video.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "10"}
    for number in range(first, first + 10000):
        frame = av.VideoFrame.from_ndarray(source.picture(number), format="rgb24")
        frame.pts, frame.time_base = number - first, Fraction(1, 25)
        out.mux(video.encode(frame))
        time.sleep(0.04)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT")
def test_a_source_that_is_lost_is_held_and_comes_back(tmp_path, pack):
    port, path = free_port(), tmp_path / "show.mkv"

    def sender(width, height, first):
        arguments = map(str, (port, width, height, first))
        process = subprocess.Popen([sys.executable, "-c", SENDER, *arguments], stdout=subprocess.PIPE)
        STARTED.append(process)
        assert process.stdout.readline()
        return process

    first = sender(320, 180, 0)
    process = start(
        f"tcp://127.0.0.1:{port}", *["-s", pack, "-o", path, "--strength", "0", "--timeout", "10s", "--json"]
    )
    while json.loads(process.stdout.readline()).get("painted", 0) < 60:
        pass
    first.kill()
    first.wait()
    # It comes back with another size.
    second = sender(640, 360, 5000)
    said = wait_for(process, "is back")
    assert "is lost" in said
    wait_until(lambda: sum(number >= 5000 for number in recorded(path)) > 5)
    process.send_signal(signal.SIGINT)
    done, _ = report(process)
    second.kill()
    second.wait()
    numbers, times, _ = codes(str(path))
    assert times == sorted(set(times))
    assert len(numbers) == done["frames"]
    before = [number for number in numbers if number < 5000]
    after = [number for number in numbers if number >= 5000]
    assert len(before) > 10
    assert len(after) > 5
    # The last picture was held.
    assert before.count(before[-1]) > 5
    with av.open(str(path)) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (320, 180)


class Served(http.server.BaseHTTPRequestHandler):
    """Gives the file of the name that is asked for; a .mjpg without its length, as cameras do."""

    folder = None

    def do_GET(self):
        content = (self.folder / self.path[1:]).read_bytes()
        self.send_response(200)
        if self.path.endswith(".mjpg"):
            self.send_header("Content-Type", "multipart/x-mixed-replace;boundary=ffmpeg")
        else:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(content)

    def log_message(self, *_):
        """Nothing."""


@pytest.fixture
def served(tmp_path):
    """A folder, and the address that it is served at."""
    handler = type("Handler", (Served,), {"folder": tmp_path})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield tmp_path, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def write_pattern(path, format, *, codec="libx264", **options):
    """100 pictures of the pattern, 25 a second."""
    pattern = PatternSource((160, 96), Fraction(25))
    with av.open(str(path), "w", format=format, options=options) as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height = 160, 96
        video.pix_fmt = "yuv420p" if codec == "libx264" else "yuvj420p"
        video.codec_context.gop_size = 25
        for number in range(100):
            frame = av.VideoFrame.from_ndarray(pattern.picture(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))


@pytest.mark.parametrize(
    ("name", "format", "options"),
    [
        ("over.m3u8", "hls", {"hls_time": "1", "hls_list_size": "0"}),
        ("live.m3u8", "hls", {"hls_time": "1", "hls_list_size": "0", "hls_flags": "omit_endlist"}),
        ("film.flv", "flv", {}),
    ],
)
def test_what_a_server_gives_all_at_once_is_held_back(served, name, format, options):
    folder, url = served
    write_pattern(folder / name, format, **options)
    source = open_source(f"{url}/{name}")
    frames = []
    for frame in source:
        frames += [frame] * (frame.captured_at is not None)
        # HLS that goes on is entered three segments before its end.
        if len(frames) + source.dropped >= 25:
            break
    source.close()
    # None is given before its time; through the server, all of them come in a few milliseconds.
    late = [frame.captured_at - float(frame.time) for frame in frames]
    assert min(late) > late[0] - 0.005
    assert frames[-1].captured_at - frames[0].captured_at > 0.9


@pytest.mark.parametrize(
    ("name", "format", "options"),
    [("over.m3u8", "hls", {"hls_time": "1", "hls_list_size": "0"}), ("film.flv", "flv", {})],
)
def test_a_film_on_a_server_ends(served, name, format, options):
    folder, url = served
    write_pattern(folder / name, format, **options)
    source = open_source(f"{url}/{name}")
    captured = sum(frame.captured_at is not None for frame in source)
    assert captured + source.dropped == 100
    assert (source.lost, source.reconnected) == ("", 0)
    source.close()


def test_a_film_on_a_server_that_breaks_off_is_lost_and_does_not_end(served):
    folder, url = served
    write_pattern(folder / "film.flv", "flv")
    whole = (folder / "film.flv").read_bytes()
    (folder / "film.flv").write_bytes(whole[: len(whole) // 2])
    source = open_source(f"{url}/film.flv")
    assert any(source.reconnected for _ in source)
    source.close()


def test_a_film_on_a_server_is_played_again(served):
    folder, url = served
    write_pattern(folder / "film.flv", "flv")
    source = open_source(f"{url}/film.flv", loop=True)
    captured = 0
    for frame in source:
        captured += frame.captured_at is not None
        if captured + source.dropped > 110:
            break
    assert (source.lost, source.reconnected) == ("", 0)
    source.close()


def test_a_camera_by_http_is_not_held_back(served):
    folder, url = served
    write_pattern(folder / "camera.mjpg", "mpjpeg", codec="mjpeg")
    address = f"{url}/camera.mjpg"
    with open_container(address, parse_source(address), 5.0) as container:
        assert container.format.name == "mpjpeg"
        assert not hurries(container)


class Relayed(LiveSource):
    """A stream whose pictures arrive at given times of the run; keeps for what times they are handed on."""

    def __init__(self, arrivals, **kind):
        vars(self).update(_paced=False, _film=False, _timed=True, _until=float("inf"), _ends=False)
        vars(self).update(kind, _stopped=threading.Event(), info=PatternSource((64, 48), sound=True).info)
        self.arrivals, self.clock, self.placed, self.tracks = arrivals, 0.0, [], ()

    def _frames(self):
        for arrives, at in self.arrivals:
            self.clock = arrives
            yield Frame(BLACK, round(at * 1000), 0, Fraction(1, 1000))

    @property
    def now(self):
        return self.clock

    def _put(self, image, at, duration=0):
        self.placed.append(at)

    def play(self):
        info = replace(self.info, tracks=self.tracks)
        self._file = type("File", (), {"info": info, "__iter__": lambda file: self._frames()})()
        self._read_connection()
        return [placed - arrived for placed, (arrived, _) in zip(self.placed, self.arrivals, strict=True)]


def test_a_stream_keeps_to_the_clock():
    # It stumbles for 0.8 seconds, and gives what it has kept back: nothing has changed after that.
    steady = [(number / 25, 100 + number / 25) for number in range(100)]
    stumbles = [(max(arrives, 1.8) if arrives > 1 else arrives, at) for arrives, at in steady]
    off = Relayed(stumbles).play()
    assert np.allclose(off[:26] + off[50:], 0)
    assert max(map(abs, off)) <= 0.3
    # It is restarted after three seconds, and goes on where it was.
    restarted = [(arrives + 3 * (arrives > 1), at) for arrives, at in steady]
    assert np.allclose(Relayed(restarted).play(), 0)
    # It jumps ahead, as another programme may.
    jumps = [(arrives, at + 5 * (arrives > 1)) for arrives, at in steady]
    assert np.allclose(Relayed(jumps).play(), 0)
    # It gives at once what was kept back while it was opened, be that much or little.
    for kept_back in (0.2, 1.0):
        burst = [(max(0.0, arrives - kept_back), at) for arrives, at in steady]
        assert np.allclose(Relayed(burst).play(), 0)
    # It gives ten pictures a second and says that they are 25; with no time of its own, only this one counts.
    slow = [(number / 10, number / 25) for number in range(100)]
    assert max(map(abs, Relayed(slow).play())) <= 0.3 + 1e-6
    assert np.allclose(Relayed(slow, _timed=False).play(), 0)
    # A film keeps its own time, however late it is.
    film = Relayed(slow, _film=True, _ends=True)
    film.play()
    assert np.allclose(np.diff(film.placed), 0.04)


@pytest.mark.parametrize("kept_back", [0.2, 1.0, 5.0])
def test_the_sound_kept_back_while_a_stream_is_opened_is_in_its_place_from_the_first(kept_back):
    """Five pieces a second beside the pictures of a stream of four seconds."""
    source = Relayed([(max(0.0, number / 25 - kept_back), 100 + number / 25) for number in range(100)])
    placed = []
    source._put_sound = lambda samples, counted, at: placed.append((float(samples.pts * Fraction(1, 10)), at))
    pictures = source._frames

    def frames():
        for number, frame in enumerate(pictures()):
            yield frame
            if number % 5 == 0:
                samples = SimpleNamespace(pts=1000 + number * 2 // 5, time_base=Fraction(1, 10))
                yield SimpleNamespace(stream_index=7, samples=samples)

    decoder = SimpleNamespace(decode=lambda packet: [packet.samples])
    track = SimpleNamespace(kind="audio", index=7, template=SimpleNamespace(codec_context=decoder))
    source._frames, source.tracks = frames, (track,)
    source.play()
    assert len(placed) == 20
    off = [begins - at for at, begins in placed]
    assert np.allclose(off, off[0])
    # Of a stream that ends before it was known, the last picture tells.
    assert np.isclose(off[0], -min(kept_back, 4 - 1 / 25) - 100)


def test_a_camera_by_http_has_the_times_of_arrival(served):
    folder, url = served
    write_pattern(folder / "camera.mjpg", "mpjpeg", codec="mjpeg")
    with open_source(f"{url}/camera.mjpg") as source:
        assert not source._timed
    write_pattern(folder / "film.flv", "flv")
    with open_source(f"{url}/film.flv") as source:
        assert source._timed


OPENING = "import sys; from pipeline.sources.live import open_source; open_source(sys.argv[1])"


def ports(kind):
    """Those that are bound on this machine, by tcp or udp."""
    lines = Path(f"/proc/net/{kind}").read_text().splitlines()[1:]
    return {int(line.split()[1].partition(":")[2], 16) for line in lines}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("listen:tcp://127.0.0.1:{}", "tcp"),
        ("listen:rtmp://127.0.0.1:{}/live/x", "tcp"),
        ("listen:rtsp://127.0.0.1:{}/live", "tcp"),
        ("udp://127.0.0.1:{}", "udp"),
        ("srt://127.0.0.1:{}?mode=listener", "udp"),
    ],
)
def test_waiting_for_a_sender_can_be_ended(address, kind):
    if address.startswith("srt"):
        pytest.importorskip("imageio_ffmpeg", reason='SRT needs the extra "live"')
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", OPENING, address.format(port)], stderr=subprocess.PIPE)
    STARTED.append(process)
    wait_until(lambda: port in ports(kind))
    process.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate(timeout=5)[1]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_polite_kill_leaves_no_program_that_waits_for_a_sender(tmp_path, pack):
    pytest.importorskip("imageio_ffmpeg", reason='SRT needs the extra "live"')
    port, path = free_port(), tmp_path / "show.mkv"
    process = start(f"srt://127.0.0.1:{port}?mode=listener", "-s", pack, "-o", path)
    wait_until(lambda: port in ports("udp"))
    process.terminate()
    # One line, and the port is free again.
    assert process.communicate(timeout=10)[1].startswith("fauve: stopped")
    assert process.returncode == 2
    assert port not in ports("udp")
    assert not path.exists()


def test_nobody_sends_there(monkeypatch):
    really = av.open
    monkeypatch.setattr("av.open", lambda *args, **named: really(*args, **{**named, "timeout": (0.2, 0.2)}))
    with pytest.raises(SourceError, match=r"^udp://127.0.0.1:\d+: cannot be opened: nobody sends there$"):
        open_source(f"udp://127.0.0.1:{free_port()}")


def test_a_sender_that_falls_silent_is_lost(tmp_path):
    port = free_port()
    write_pattern(tmp_path / "in.ts", "mpegts")
    packets, silent = (tmp_path / "in.ts").read_bytes(), threading.Event()

    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not silent.is_set():
                for begin in range(0, len(packets), 1316):
                    sender.sendto(packets[begin : begin + 1316], ("127.0.0.1", port))
                    time.sleep(0.005)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        source = open_source(f"udp://127.0.0.1:{port}", timeout=0.5)
    finally:
        silent.set()
        thread.join()
    wait_until(lambda: source.lost)
    assert source.lost == "nobody sends there"
    source.close()


def test_who_sends_to_a_listener_and_falls_silent_is_lost_though_the_connection_stays_open(tmp_path):
    port, senders, silent = free_port(), [], threading.Event()
    write_pattern(tmp_path / "in.ts", "mpegts")
    packets = (tmp_path / "in.ts").read_bytes()

    def send():
        end = time.monotonic() + 30
        while time.monotonic() < end:
            # Nobody listens yet.
            with contextlib.suppress(ConnectionRefusedError):
                senders.append(socket.create_connection(("127.0.0.1", port)))
                break
            time.sleep(0.05)
        while not silent.is_set():
            senders[-1].sendall(packets)
            time.sleep(0.1)

    first = threading.Thread(target=send)
    first.start()
    try:
        source = open_source(f"listen:tcp://127.0.0.1:{port}", timeout=0.5)
    finally:
        silent.set()
        first.join()
    wait_until(lambda: source.lost)
    silent.clear()
    second = threading.Thread(target=send)
    second.start()
    wait_until(lambda: source.reconnected == 1)
    assert not source.lost
    silent.set()
    second.join()
    source.close()
    assert len(senders) == 2
    for sender in senders:
        sender.close()


def transport_stream(path, video="libx264", sound="aac", first_pid=0x100, pictures=50):
    """The bytes of that many pictures, 25 a second, and of silence beside them."""
    pattern = PatternSource((160, 96), Fraction(25))
    with av.open(str(path), "w", format="mpegts", options={"mpegts_start_pid": str(first_pid)}) as container:
        stream = container.add_stream(video, rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        stream.options = {"preset": "ultrafast", "tune": "zerolatency", "x265-params": "log-level=none"}
        audio = container.add_stream(sound, rate=48000, layout="stereo")
        for number in range(pictures):
            picture = av.VideoFrame.from_ndarray(pattern.picture(number), format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(picture))
            samples = av.AudioFrame(audio.codec_context.format.name, "stereo", 1920)
            for plane in samples.planes:
                plane.update(bytes(plane.buffer_size))
            samples.sample_rate, samples.pts = 48000, 1920 * number
            container.mux(audio.encode(samples))
        container.mux([*stream.encode(None), *audio.encode(None)])
    return path.read_bytes()


class Sending:
    """What FFmpeg reads: `first`, and `then` again and again, until it is told to end."""

    def __init__(self, first, then):
        self._rest, self._then = first, then
        self.over = False

    def read(self, size):
        if not self._rest:
            if self.over or not self._then:
                return b""
            time.sleep(0.02)
            self._rest = self._then
        given, self._rest = self._rest[:size], self._rest[size:]
        return given


@pytest.mark.parametrize(
    ("after", "why"),
    [
        ({"video": "libx265"}, "no picture could be decoded for 0.1 s; its codec may have changed"),
        ({"sound": "mp2"}, "its sound cannot be decoded any more: Invalid data found"),
    ],
)
def test_a_sender_that_goes_over_to_another_codec_is_lost_and_comes_back(tmp_path, caplog, after, why):
    first, then = (transport_stream(tmp_path / "one.ts", **kind) for kind in ({}, after))
    opened = []

    def connect():
        opened.append(Sending(b"" if opened else first, then))
        return av.open(opened[-1], format="mpegts", options={"probesize": "20000"})

    with LiveSource("udp://phone:1234", connect, timeout=0.1) as source:
        wait_until(lambda: source.reconnected)
        wait_until(lambda: source._items.dropped > 50)
        for each in opened:
            each.over = True
    assert f"udp://phone:1234 is lost ({why}" in caplog.text


@pytest.mark.parametrize("address", ["udp://127.0.0.1:1234", "listen:udp://127.0.0.1:1234"])
def test_a_sender_that_is_started_anew_may_number_its_tracks_in_another_way(tmp_path, address):
    sent = [transport_stream(tmp_path / "one.ts", first_pid=pid) for pid in (0x100, 0x200)]
    options = {**parse_source(address).options, "probesize": "20000"}
    options.pop("fflags", None)  # which leave out the pictures that are looked at before the first
    with av.open(Sending(b"".join(sent), b""), format="mpegts", options=options) as container:
        assert len(list(container.decode(video=0))) == 100


class Growing:
    """A container that has more tracks at its end than at its beginning, of which PyAV knows nothing."""

    def __init__(self, container):
        self._container = container

    def __getattr__(self, name):
        return getattr(self._container, name)

    def demux(self, streams):
        yield from self._container.demux(streams)
        raise IndexError("list index out of range")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._container.close()


def test_a_track_that_begins_later_takes_nothing_with_it(tmp_path, caplog):
    transport_stream(tmp_path / "in.ts")
    with FileSource("phone", container=Growing(av.open(str(tmp_path / "in.ts")))) as source:
        assert sum(isinstance(item, Frame) for item in source) == 50
    assert caplog.messages == ["phone: a track that begins later than the others is left out"]


def test_a_track_that_begins_later_takes_no_sound_with_it(tmp_path, monkeypatch):
    transport_stream(tmp_path / "in.ts", pictures=10)
    opened = []

    def connect(self):
        opened.append(Growing(av.open(str(tmp_path / "in.ts"))))
        return opened[-1]

    monkeypatch.setattr(WithSound, "_connect", connect)
    with WithSound(PatternSource((64, 48)), str(tmp_path / "in.ts"), loop=True) as source:
        for number, _ in enumerate(source):
            assert number < 1000
            if len(opened) > 2:
                break


class Hanging(Capture):
    """A camera that hangs after each picture until it is asked for another one."""

    def __init__(self):
        super().__init__("camera:7", timeout=0.3)
        self.info = PatternSource((64, 48)).info
        self.picture()

    def picture(self):
        self._put(BLACK[:48, :64], self.now)

    def close(self):
        self._items.cancel()


def test_a_camera_that_hangs_is_lost_until_it_gives_a_picture(caplog):
    source, told, times, end = Hanging(), [], [], time.monotonic() + 20
    for frame in source:
        assert time.monotonic() < end
        told.append((frame.captured_at is None, source.lost))
        times.append(float(frame.time))
        if source.lost and (True, source.lost) not in told[:-1]:
            source.picture()
        if source.reconnected:
            break
    lost = (True, "no picture for 0.3 s")
    assert told[0] == told[-1] == (False, "")
    assert {lost} <= set(told[1:-1]) <= {lost, (True, "")}
    assert times[told.index(lost)] - times[0] > 0.3
    assert caplog.messages == [
        "camera:7 is lost (no picture for 0.3 s); its last picture is held",
        "camera:7 is back",
    ]
    source.close()


def test_a_camera_that_is_pulled_out_is_named_once(tmp_path, monkeypatch, caplog):
    def pulled_out(file):
        raise SourceError("camera:7: cannot be read on: No such device")

    path = make_video(tmp_path / "camera.mkv", size=(64, 48), frames=2)
    monkeypatch.setattr(FileSource, "__iter__", pulled_out)
    source = LiveSource("camera:7", lambda: av.open(path))
    source._start()
    wait_until(lambda: caplog.messages)
    source.close()
    said = "camera:7 is lost (cannot be read on: No such device); its last picture is held"
    assert caplog.messages[0] == said


@pytest.mark.parametrize(
    ("size", "inner"),
    [
        ((48, 64), (14, 0, 50, 48)),
        ((128, 32), (0, 16, 64, 32)),
        ((32, 24), (0, 0, 64, 48)),
        ((130, 96), None),
    ],
)
def test_a_picture_of_another_shape_is_fitted_into_the_first(size, inner):
    """`inner` is where it lies, from the left and upper corner on; None where sizes were only rounded."""
    source = Hanging()
    source._put(np.full((size[1], size[0], 3), 200, np.uint8), source.now)
    source._items.get()
    image = source._items.get().image
    left, top, right, bottom = inner or (0, 0, 64, 48)
    expected = np.zeros((48, 64, 3), np.uint8)
    expected[top:bottom, left:right] = 200
    assert np.array_equal(image, expected)


def test_a_phone_that_is_turned_while_it_sends_is_shown_with_bars(tmp_path, caplog):
    sent = tmp_path / "sent.ts"
    for width, height in ((64, 48), (48, 64)):
        with sent.open("ab") as file, av.open(file, "w", format="mpegts") as container:
            video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            video.width, video.height, video.pix_fmt = width, height, "yuv420p"
            grey = av.VideoFrame.from_ndarray(np.full((height, width, 3), 200, np.uint8), format="rgb24")
            for number in range(10):
                grey.pts, grey.time_base = number, Fraction(1, 25)
                container.mux(video.encode(grey))
            container.mux(video.encode(None))
    with LiveSource("phone", lambda: av.open(str(sent)), ends=True) as source:
        images = [frame.image for frame in source]
    # 36 pixels wide is 48x64 in a height of 48.
    bars = np.zeros((48, 64, 3), bool)
    bars[:, :14] = bars[:, 50:] = True
    assert {image.shape for image in images} == {(48, 64, 3)}
    assert np.array_equal(images[-1] < 10, bars)
    assert "the picture changes from 64x48 to 48x64" in caplog.text


class Radio(Capture):
    """Gives one picture, and sound for as long as it is open."""

    def __init__(self):
        super().__init__("radio")
        self.info = PatternSource((64, 48), sound=True).info
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._thread.start()

    def _play(self):
        self._put(np.zeros((48, 64, 3), np.uint8), self.now)
        while not self._stopped.wait(0.005):
            self._items.put_packet("sound", 100)

    def close(self):
        self._stopped.set()
        self._thread.join()


def test_a_picture_is_held_while_only_sound_comes():
    source, held, sounds = Radio(), 0, 0
    end = time.monotonic() + 20
    for item in source:
        if isinstance(item, Frame):
            held += item.captured_at is None
        else:
            sounds += 1
        if (held >= 5 and sounds > 20) or time.monotonic() > end:
            break
    source.close()
    assert held >= 5
    assert sounds > 20


@pytest.mark.parametrize("broken", [True, False])
def test_a_file_without_a_picture_is_not_begun_again_at_once(tmp_path, monkeypatch, broken):
    video, opened = make_video(tmp_path / "in.mp4", frames=3), []

    def read(self):
        if broken:
            raise SourceError("nothing in it can be decoded")

    def connect():
        opened.append(time.monotonic())
        return av.open(str(video))

    monkeypatch.setattr(LiveSource, "_read_connection", read)
    source = LiveSource("in.mp4", connect, ends=True, loop=True)
    iter(source)
    wait_until(lambda: len(opened) > 3)
    source.close()
    # After pauses that grow; the first is opened before it is read.
    assert all(pause >= least for pause, least in zip(np.diff(opened), PAUSES, strict=False))


@pytest.mark.skipif(sys.platform == "win32", reason="a script")
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (["[srt @ 0x5] Connection to srt://a:1 failed: Connection timed out"] * 2, "nobody sends there"),
        (["[srt @ 0x5] Connection setup failure: unable to create/configure SRT socket"], "Address in use"),
        (["[libsrt @ 0x5] [srt @ 0x6] Port missing in uri", "[in#0 @ 0x7] Error"], "Port missing in uri"),
    ],
)
def test_why_srt_cannot_be_received_is_one_line(tmp_path, monkeypatch, capfd, said, reason):
    general = {"nobody sends there": "Connection timed out", "Port missing in uri": "Invalid argument"}
    last = f"Error opening input files: {general.get(reason, reason)}"
    script = tmp_path / "ffmpeg"
    script.write_text("#!/bin/sh\n" + "".join(f"echo '{line}' >&2\n" for line in [*said, last]) + "exit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr("pipeline.sources.live.ffmpeg", lambda address: str(script))
    with pytest.raises(SourceError, match=f"^srt://a:1: cannot be opened: {reason}$"):
        SrtProgram("srt://a:1").open()
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="a script")
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (["[srt @ 0x5] Failed to resolve hostname a", "Input/output error"], "Failed to resolve hostname a"),
        (["[srt @ 0x5] Connection to srt://a:1 failed", "Connection timed out"], "it does not answer"),
    ],
)
def test_why_srt_cannot_be_sent_is_one_line(tmp_path, monkeypatch, said, reason):
    script = tmp_path / "ffmpeg"
    said = [said[0], f"Error opening output files: {said[1]}"]
    script.write_text("#!/bin/sh\n" + "".join(f"echo '{line}' >&2\n" for line in said) + "exit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr("pipeline.sinks.stream.ffmpeg", lambda address: str(script))
    pattern = PatternSource((64, 48))
    sink = StreamSink("srt://a:1?passphrase=key", pattern.info)
    frames = iter(pattern)

    def lost():
        sink.write(next(frames))
        return sink.lost

    wait_until(lost)
    sink.abort()
    assert sink.lost == reason


@pytest.mark.skipif(sys.platform == "win32", reason="a script")
def test_the_program_that_receives_srt_ends_before_the_next_one_begins(tmp_path, monkeypatch):
    script = tmp_path / "ffmpeg"
    script.write_text("#!/bin/sh\nexec sleep 600\n")
    script.chmod(0o755)
    monkeypatch.setattr("pipeline.sources.live.ffmpeg", lambda address: str(script))
    monkeypatch.setattr("pipeline.sources.live.av.open", lambda stream, **options: stream)
    program = SrtProgram("srt://127.0.0.1:1")
    with program.open():
        first = program._process
    with program.open():
        assert first.poll() is not None
        assert program._process.poll() is None
        program._kill()
    assert program._process.poll() is not None


def test_a_file_is_played_at_its_pace_and_again(tmp_path, pack):
    video, path = make_video(tmp_path / "in.mp4", frames=25), tmp_path / "show.mkv"
    began = time.monotonic()
    done, _ = report(start(video, "-s", pack, "-o", path, "--json"))
    assert done["frames"] + done["dropped"] == 25
    assert time.monotonic() - began > 0.9
    process = start(video, "--loop", "-s", pack, "-o", tmp_path / "loop.mkv", "--json")
    until_painted(process, 40)
    process.send_signal(signal.SIGINT)
    done, _ = report(process)
    assert done["frames"] > 25
    with av.open(str(tmp_path / "loop.mkv")) as container:
        times = [frame.pts for frame in container.decode(video=0)]
    assert times == sorted(set(times))


def test_an_animated_webp_is_played_too(tmp_path):
    """FFmpeg alone shows none of its pictures."""
    copy(make_video(tmp_path / "in.mp4", frames=4, audio=False), tmp_path / "in.webp", "stream")
    with open_source(str(tmp_path / "in.webp")) as source:
        shown = [frame for frame in source if isinstance(frame, Frame)]
    assert [bar(frame.image) for frame in shown] == [bar(picture(index)) for index in range(4)]


def test_what_is_transparent_lies_on_black_in_each_round(tmp_path):
    image = np.zeros((64, 96, 4), np.uint8)
    image[..., 0] = 255
    with av.open(str(tmp_path / "in.mov"), "w") as container:
        video = container.add_stream("png", rate=10)
        video.width, video.height, video.pix_fmt = 96, 64, "rgba"
        for pts in range(3):
            frame = av.VideoFrame.from_ndarray(image, format="rgba")
            frame.pts, frame.time_base = pts, Fraction(1, 10)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    with open_source(str(tmp_path / "in.mov"), loop=True) as source:
        frames = list(islice((frame for frame in source if frame.captured_at), 5))
    assert [frame.image.max() for frame in frames] == [0] * 5


def test_the_last_picture_of_a_file_has_its_time_before_the_first_follows(tmp_path):
    slides = make_video(tmp_path / "slides.mp4", frames=2, rate=2, audio=False)
    with open_source(str(slides), loop=True) as source:
        shown = list(islice((frame for frame in source if frame.captured_at), 4))
    times = [float(frame.time) for frame in shown]
    assert times[2] - times[0] > 0.95
    assert times[3] - times[1] > 0.95


def test_a_file_that_cannot_be_played_again_is_lost(tmp_path, caplog):
    make_video(tmp_path / "in.mp4", frames=5)
    source = open_source(str(tmp_path / "in.mp4"), loop=True)
    (tmp_path / "in.mp4").rename(tmp_path / "away.mp4")
    looking = threading.Thread(target=lambda: list(source))
    looking.start()
    wait_until(lambda: source.lost)
    (tmp_path / "away.mp4").rename(tmp_path / "in.mp4")
    wait_until(lambda: source.reconnected)
    source.close()
    looking.join()
    lost, back = caplog.messages
    assert lost == f"{tmp_path}/in.mp4 is lost (no such file); its last picture is held"
    assert back == f"{tmp_path}/in.mp4 is back"


def test_a_file_waits_until_somebody_looks(tmp_path):
    video = make_video(tmp_path / "in.mp4", frames=25)
    with open_source(str(video)) as source:
        # As long as an engine takes to load.
        time.sleep(0.6)
        began = time.monotonic()
        frames = [item for item in source if isinstance(item, Frame)]
    assert len(frames) + source.dropped >= 25
    # Its first picture, or what a busy machine came to see of it later.
    assert bar(frames[0].image) - 4 <= 25 * 5 * (frames[0].captured_at - began)
    open_source(str(video)).close()


def test_what_is_played_is_not_recorded_over(tmp_path, pack):
    video = make_video(tmp_path / "in.mp4", frames=25)
    before = video.read_bytes()
    result = fauve("live", video, "-o", video, "--force", "-s", pack)
    assert_one_line(result, "in.mp4: is the video itself")
    result = fauve("live", "test:", "--sound", video, "-o", video, "--force", "-s", pack)
    assert_one_line(result, "in.mp4: is the video itself")
    outputs = ["-o", tmp_path / "out.mkv", "--record-controls", video]
    result = fauve("live", video, *outputs, "--force", "-s", pack)
    assert_one_line(result, "in.mp4: is the video itself")
    outputs[-1] = tmp_path / "out.mkv"
    result = fauve("live", video, *outputs, "--force", "-s", pack)
    assert_one_line(result, "--record-controls: is an output, too")
    assert video.read_bytes() == before


def test_hls_is_written(tmp_path, pack):
    path = tmp_path / "live" / "show.m3u8"
    path.parent.mkdir()
    done, _ = report(start("test:", *SIZE, "-s", pack, "-o", path, "--duration", "3s", "--json"))
    assert list(path.parent.glob("*.ts"))
    with av.open(str(path)) as container:
        numbers = [read_code(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert len(numbers) > 5
    assert done["sinks"][str(path)]["frames"] >= len(numbers)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.mp4", "-o", "x.mkv"], ["none.mp4: no such file", "camera:0"]),
        (["camera:97", "-o", "x.mkv"], ["/dev/video97", "fauve devices"]),
        (["test:", "-o", "x.avi"], ["x.avi", ".mkv"]),
        (["test:", "-o", "ftp://a/b"], ["ftp://a/…", "rtmp://"]),
        (["test:", "-o", "none/x.mkv"], ["no folder"]),
        (["test:640x480", "-o", "x.mkv"], ["test:640x480", "--size"]),
        (["test:"], ["-o"]),
        (["test:", "-o", "whip::8090"], ["whip::8090", "whip:https://", "whep::PORT"]),
        (["test:", "-o", "x.mkv", "--style", "none"], ["none"]),
        (["tcp://127.0.0.1:9", "-o", "x.mkv"], ["tcp://127.0.0.1:9", "cannot be opened"]),
        (["test:", "-o", "camera:"], ["camera:"]),
        (["test:", "-o", "x.mkv", "--latency", "fast"], ["80ms"]),
        (["test:", "-o", "x.mkv", "--bitrate", "inf"], ["4M"]),
        (["listen:ftp://a", "-o", "x.mkv"], ["listen"]),
        (["test:", "-o", "x.mkv", "-o", "./x.mkv"], ["x.mkv: is given twice"]),
        (["test:", "-o", "x" * 252 + ".mkv"], ["xx.mkv: cannot be written: File name too long"]),
    ],
)
def test_what_goes_wrong_is_one_line(tmp_path, pack, arguments, words):
    if "--style" not in arguments:
        arguments = [*arguments, "--style", pack]
    assert_one_line(fauve("live", *arguments, cwd=tmp_path), *words)
    assert list(tmp_path.iterdir()) == []


def test_a_recording_that_never_began_is_not_left_behind(tmp_path, pack):
    result = fauve("live", "test:", "-o", "x.mkv", "-o", "ftp://a/b", "--style", pack, cwd=tmp_path)
    assert_one_line(result, "ftp://a/…")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_recording_replaces_another_with_its_first_picture(tmp_path, end):
    path, pattern = tmp_path / "show.mkv", PatternSource((64, 64))
    path.write_text("precious")
    getattr(open_sink(str(path), pattern.info, force=True), end)()
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]
    sink = open_sink(str(path), pattern.info, force=True)
    sink.write(Frame(pattern.picture(0), 0, 3000, pattern.info.time_base))
    getattr(sink, end)()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() != b"precious"


def test_a_disk_that_is_full_at_the_end_of_a_recording_is_said(tmp_path, monkeypatch):
    path, pattern = tmp_path / "show.mp4", PatternSource((320, 180), sound=False)
    sink = open_sink(str(path), pattern.info)
    for number in range(10):
        sink.write(Frame(pattern.picture(number), 3000 * number, 3000, pattern.info.time_base))
    close = sink._muxer.close

    def closes_without_room():
        close()
        os.truncate(path, path.stat().st_size // 2)

    monkeypatch.setattr(sink._muxer, "close", closes_without_room)
    with pytest.raises(SinkError, match=r"show.mp4: the last seconds are missing: the disk is full$"):
        sink.close()


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_a_recording_that_never_had_room_is_not_left_behind(tmp_path, suffix):
    path, pattern = tmp_path / f"show{suffix}", PatternSource((320, 180), sound=False)
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def record():
        sink = open_sink(str(path), pattern.info)
        try:
            for number in range(100):
                sink.write(Frame(pattern.picture(number), 3000 * number, 3000, pattern.info.time_base))
            sink.close()
        finally:
            sink.abort()

    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        with pytest.raises(
            SinkError, match=rf"^{path}: (cannot be written: |nothing was recorded: the disk)"
        ):
            record()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_recording_that_is_removed_meanwhile_is_said(tmp_path):
    path, pattern = tmp_path / "show.mkv", PatternSource((320, 180), sound=False)
    sink = open_sink(str(path), pattern.info)
    sink.write(Frame(pattern.picture(0), 0, 3000, pattern.info.time_base))
    path.unlink()
    with pytest.raises(SinkError, match=r"show.mkv: what was recorded is lost: No such file"):
        sink.close()


@pytest.mark.parametrize(("size", "frames"), [((640, 360), 64), ((1920, 1080), 64), ((3840, 2160), 16)])
def test_what_waits_for_a_recording_fits_in_memory_and_is_soon_encoded(tmp_path, size, frames):
    sink = open_sink(str(tmp_path / "show.mkv"), PatternSource(size).info)
    sink.abort()
    assert sink.waiting == frames


def test_what_is_built_at_the_end_is_given_up(tmp_path, pack, monkeypatch):
    """Before the deck is closed, which waits for it."""
    stops, closed = [], []
    load, close = engines.load, Deck.close

    def noted(*arguments, stop, **options):
        stops.append(stop)
        assert not stop.is_set()
        return load(*arguments, stop=stop, **options)

    monkeypatch.setattr(engines, "load", noted)
    monkeypatch.setattr(Deck, "close", lambda deck: closed.append(stops[0].is_set()) or close(deck))
    arguments = ["test:", *SIZE, "-o", str(tmp_path / "show.mkv"), "-s", pack, "--duration", "0.2s", "-q"]
    result = CliRunner().invoke(live, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert (len(stops), closed) == (1, [True])


def test_a_recording_is_not_overwritten(tmp_path, pack):
    path = tmp_path / "show.mkv"
    path.write_text("precious")
    assert_one_line(fauve("live", "test:", "-o", path, "-s", pack), "there is a file already")
    assert path.read_text() == "precious"


def test_addresses():
    assert parse("rtmp://a/live/x").format == "flv"
    assert parse("srt://a:1").format == "mpegts"
    assert parse("nut+udp://a:1").encoding.codec == "mjpeg"
    assert parse_source("listen:rtmp://0.0.0.0/live/x").options == {"listen": "1"}
    assert parse_source("rtsp://cam/1").options["rtsp_transport"] == "tcp"
    with pytest.raises(SinkError, match="no such output"):
        parse("gopher://a")
    for form in ("udp://HOST:PORT", "tcp://HOST:PORT", "srt://HOST:PORT", "nut+udp://HOST:PORT"):
        with pytest.raises(SinkError, match=f"is not of the form {re.escape(form)}"):
            parse(form.replace("HOST:PORT", "127.0.0.1"))
    with pytest.raises(SinkError, match="is not of the form rtmp://HOST"):
        parse("rtmp://")
    assert parse("RTMP://a/live/X").url == "rtmp://a/live/X"
    for nowhere in ("tcp://a:99999", "udp://a:abc", "rtmp://[::1/x", "https://a:99999/x", "rtmp://a:abc/x"):
        with pytest.raises(SinkError, match="is no address"):
            parse(nowhere)
    assert parse_source("listen:rtmp://[::1/x").options == {"listen": "1"}, "FFmpeg says what is wrong"
    with pytest.raises(SourceError, match="no such file"):
        open_source("missing.mkv")
    with pytest.raises(SinkError, match="window:full"):
        open_sink("window:huge", PatternSource((64, 64)).info)


@pytest.mark.skipif(os.environ.get("DISPLAY") is not None, reason="there is a display here")
@pytest.mark.skipif(sys.platform != "linux", reason="X displays")
def test_a_screen_needs_a_display():
    with pytest.raises(SourceError, match="DISPLAY"):
        parse_source("screen:")


@pytest.mark.skipif(sys.platform != "linux", reason="v4l2")
@pytest.mark.parametrize("has_motion_jpeg", [True, False])
def test_a_camera_is_asked_for_motion_jpeg_first(monkeypatch, has_motion_jpeg):
    asked = []

    def open_(url, *, options, **others):
        asked.append(options)
        if "input_format" in options and not has_motion_jpeg:
            raise av.error.ArgumentError(22, "Invalid argument")
        return url

    monkeypatch.setattr("av.open", open_)
    which = parse_source("camera:/dev/null", size=(1280, 720), rate=Fraction(30))
    assert open_container("camera:/dev/null", which, 5.0) == "/dev/null"
    plain = {"video_size": "1280x720", "framerate": "30"}
    motion_jpeg = {**plain, "input_format": "mjpeg"}
    assert asked == ([motion_jpeg] if has_motion_jpeg else [motion_jpeg, plain])


@pytest.mark.parametrize(("address", "asked"), [("camera:1", "video=Grabber"), ("camera:", "video=Webcam")])
def test_directshow_is_asked_for_a_camera_by_its_name(monkeypatch, address, asked):
    listed = [
        SimpleNamespace(name="@1", description="Microphone", media_types=["audio"]),
        SimpleNamespace(name="@2", description="Webcam", media_types=["video"]),
        SimpleNamespace(name="@3", description="Grabber", media_types=["video"]),
    ]
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr("av.device.enumerate_input_devices", lambda device: listed)
    assert parse_source(address).url == asked
    assert parse_source("camera:Grabber").url == "video=Grabber"
    assert parse_sound("microphone:").url == parse_sound("microphone:0").url == "audio=Microphone"
    with pytest.raises(SourceError, match=r"^camera:2: there is no such device; there is Webcam, Grabber,"):
        parse_source("camera:2")
    assert [each["name"] for each in devices._cameras()] == ["camera:Webcam", "camera:Grabber"]
    assert [each["name"] for each in devices._microphones()] == ["microphone:Microphone"]


@pytest.mark.skipif(not os.path.exists("/usr/share/alsa/alsa.conf"), reason="needs ALSA's settings")
def test_a_microphone_of_alsa_is_heard_and_listed(monkeypatch):
    for name in ALSA:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    # In a process of its own, as ALSA reads its settings once.
    code = (
        "from pipeline.sources.sound import parse_sound\n"
        "from pipeline.sources.live import open_container\n"
        "with open_container('microphone:null', parse_sound('microphone:null'), 5.0) as microphone:\n"
        "    print(next(microphone.decode(audio=0)).sample_rate)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "48000\n"), done.stderr
    names = ["null", "default", "hw:CARD=USB,DEV=0", "plughw:CARD=USB,DEV=0", "speex"]
    found = [SimpleNamespace(name=name, description=f"{name}\nof USB", media_types=[]) for name in names]
    monkeypatch.setattr("av.device.enumerate_input_devices", lambda device: found)
    assert devices._microphones() == [
        {"name": f"microphone:{name}", "what": f"{name}, of USB"} for name in (names[1], names[3])
    ]


def test_loudspeakers_are_listed_by_what_chooses_them(monkeypatch):
    found = [{"name": "Beamer", "max_output_channels": 2}, {"name": "Line in", "max_output_channels": 0}]
    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(query_devices=lambda: found))
    assert devices._loudspeakers() == [{"name": "speaker:Beamer", "what": ""}]
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert devices._loudspeakers() == []


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("rtmp://a.example/live/key", "rtmp://a.example/…"),
        ("whip:https://b.example:8443/room?token=key", "whip:https://b.example:8443/…"),
        ("srt://c.example:9000?passphrase=key", "srt://c.example:9000/…"),
        ("rtsp://me:key@d.example:554/1", "rtsp://d.example:554/…"),
        ("http://[::1]:80/#key", "http://[::1]:80/…"),
        ("nut+udp://127.0.0.1:1", "nut+udp://127.0.0.1:1"),
        ("http://127.0.0.1/", "http://127.0.0.1"),
        ("rtsp://me:k#ey@e.example/1", "rtsp://…"),
        ("rtsp://me:k/ey@e.example/1", "rtsp://…"),
        ("whep::8091", "whep::8091"),
        ("films/show.mkv", "films/show.mkv"),
    ],
)
def test_an_address_is_shown_without_its_secret(address, told):
    assert shown(address) == told


def test_a_source_that_cannot_be_opened_does_not_give_its_password_away():
    port = free_port()
    with pytest.raises(SourceError, match=rf"^rtsp://127.0.0.1:{port}/…: cannot be opened: [^/]*$"):
        open_source(f"rtsp://me:secret@127.0.0.1:{port}/secret")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["test:", "-o", "rmtp://a/live/secret"], "rmtp://a/…: no such output"),
        (["test:", *2 * ["-o", "rtmp://a/live/secret"]], "rtmp://a/…: is given twice"),
        (["test:", "-o", "udp://me:secret/@a:1"], "udp://…: is no address"),
        (["listen:https://a/secret", "-o", "x.mkv"], "listen:https://a/…: can listen for"),
    ],
)
def test_an_address_that_is_refused_keeps_its_secret(tmp_path, pack, arguments, told):
    result = fauve("live", *arguments, "-s", pack, cwd=tmp_path)
    assert_one_line(result, told)
    assert "secret" not in result.stderr


def test_a_pattern_of_less_than_a_picture_in_a_second():
    source = PatternSource((64, 64), Fraction(2, 5), sound=True)
    assert source.picture(3)[:10, :10].min() == 255
    assert source._sound(3).samples.samples == 2.5 * 48_000


def test_the_rate_of_the_pattern():
    source = PatternSource((64, 64), Fraction(50))
    began = time.monotonic()
    frames = []
    for frame in source:
        frames.append(frame)
        if len(frames) == 25:
            break
    assert 0.4 < time.monotonic() - began < 10
    assert all(later.pts > earlier.pts for earlier, later in pairwise(frames))


@pytest.mark.parametrize("begins", [0, 35])
def test_a_show_is_painted_again_at_full_quality(tmp_path, pack, begins):
    times = [(begins + number) * 512 for number in range(250)]
    video, record = make_video(tmp_path / "in.mkv", times), tmp_path / "show.jsonl"
    events = [
        {"time": 0, "control": "pack", "value": "tiny"},
        {"time": 0, "control": "strength", "value": 0},
        {"time": 4.8, "control": "freeze", "value": True},
        {"time": 5.0, "control": "crossfade", "value": 0},
        {"time": 5.0, "control": "strength", "value": 1},
        {"time": 5.2, "control": "freeze", "value": False},
        {"time": 7.0, "control": "style", "value": "cold"},
        {"time": 9.4, "control": "blackout", "value": True},
        {"time": 9.8, "control": "blackout", "value": False},
    ]
    record.write_text("".join(json.dumps(event) + "\n" for event in events))
    one, two = tmp_path / "one.mkv", tmp_path / "two.mkv"
    for path, workers in ((one, 1), (two, 2)):
        arguments = ["-s", pack, "--controls", record, "--codec", "ffv1", "--workers", workers]
        painted = fauve("run", video, "-o", path, *arguments)
        assert painted.returncode == 0, painted.stderr
    source, first, second = (read_video(path).images for path in (video, one, two))
    assert len(source) == len(first) == len(second) == 250
    changes = [np.abs(a.astype(int) - b).mean() for a, b in zip(source, first, strict=True)]
    assert max(changes[:120]) < 3
    assert min(changes[130:235]) > 6
    # Held across the place where the work of two is divided.
    assert all(np.array_equal(image, first[119]) for image in first[120:130])
    assert not np.array_equal(first[118], first[119])
    assert not any(image.any() for image in first[235:245])
    assert all(image.any() for image in first[130:235] + first[245:])
    cold = [image.astype(int).mean((0, 1)) for image in first]
    assert np.abs(cold[174] - cold[175]).max() > 4
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert_one_line(
        fauve("run", video, "-o", tmp_path / "x.mkv", "-s", pack, "--controls", video), "not a record"
    )


def clicks(path):
    """Ten seconds of sound in a WAV file that clicks at the beginning of each second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        at = np.arange(160_000)
        wave = (np.sin(at * 0.4) * 20_000 * (at % 16_000 < 1600)).astype(np.int16)
        for begin in range(0, len(wave), 1600):
            samples = av.AudioFrame.from_ndarray(
                wave[None, begin : begin + 1600], format="s16", layout="mono"
            )
            samples.sample_rate, samples.pts = 16000, begin
            container.mux(stream.encode(samples))
        container.mux(stream.encode(None))
    return path


def test_the_sound_of_another_place(tmp_path, pack):
    sound, path = clicks(tmp_path / "clicks.wav"), tmp_path / "show.mkv"
    arguments = ["-s", pack, "-o", path, "--sound", sound, "--duration", "5s", "--json"]
    done, _ = report(start("test:", *SIZE, *arguments))
    numbers, _, loudness = codes(str(path))
    assert len(numbers) == done["frames"] > 10
    loud = sorted(at for at, value in loudness.items() if value > 0.3)
    begins = [at for before, at in pairwise([-1000, *loud]) if at - before > 300]
    assert len(begins) >= 4
    assert all(abs(step - 1000) < 25 for step in np.diff(begins[1:]))
    silent = make_video(tmp_path / "silent.mp4", audio=False)
    for place, words in ((silent, "no sound in it"), (tmp_path / "none.wav", "no such file")):
        result = fauve("live", "test:", *SIZE, "-s", pack, "-o", tmp_path / "x.mkv", "--sound", place)
        assert_one_line(result, words)


class Late(PatternSource):
    """A pattern that takes its time to begin."""

    def __iter__(self):
        time.sleep(0.5)
        yield from super().__iter__()


@pytest.mark.parametrize("loop", [False, True])
def test_the_end_of_a_file_of_sound_is_no_loss(tmp_path, caplog, loop):
    video = make_video(tmp_path / "in.mp4", frames=10)
    source = WithSound(Late((64, 48)), str(video), loop=loop)
    with av.open(str(video)) as container:
        length = container.duration / av.time_base
    pieces = []
    for item in source:
        if isinstance(item, Frame) and item.time > 3:
            break
        if not isinstance(item, Frame):
            pieces.append(item.samples)
    source.close()
    assert caplog.text == ""
    begins = [piece.pts / piece.sample_rate for piece in pieces]
    assert (begins[-1] - begins[0] > length) == loop
    # Nor is there a gap before it begins again.
    assert all(b - a < 1.5 * pieces[0].samples / 48_000 for a, b in pairwise(begins))


def test_sound_that_is_lost_is_told_and_asked_for_until_it_is_back(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("pipeline.sources.sound.PAUSES", (0.05,))
    video, asked = str(make_video(tmp_path / "in.mp4", frames=5)), []

    def connect(self):
        asked.append(0)
        if len(asked) in (2, 3):
            raise SourceError("nobody is there")
        # Not before it was seen that it is lost.
        wait_until(lambda: len(asked) == 1 or len(told) > 1)
        return av.open(video)

    monkeypatch.setattr(WithSound, "_connect", connect)
    told = set()
    source = WithSound(PatternSource((64, 48)), "udp://127.0.0.1:1")
    for _ in source:
        told.add(source.lost)
        if "is back" in caplog.text:
            break
    source.close()
    assert len(asked) == 4
    assert told == {"", "udp://127.0.0.1:1: the sound is lost (it ended)"}


def test_sound_that_breaks_off_is_told_without_its_address(monkeypatch):
    class Broken(Stepping):
        def demux(self, audio):
            raise av.error.ConnectionResetError(104, "Connection reset by peer", "http://a/secret")
            yield

    monkeypatch.setattr(WithSound, "_connect", lambda self: Broken())
    source = WithSound(PatternSource((64, 48)), "http://a/secret")
    told = next(source.lost for _ in source if source.lost)
    source.close()
    assert told == "http://a/…: the sound is lost (Connection reset by peer)"


def test_sound_goes_on_behind_what_is_damaged(tmp_path, caplog):
    path = clicks(tmp_path / "clicks.wav")
    with av.open(str(path)) as container, av.open(str(tmp_path / "in.ts"), "w") as damaged:
        sound = damaged.add_stream("aac", rate=16000, layout="mono")
        for samples in container.decode(audio=0):
            damaged.mux(sound.encode(samples))
        damaged.mux(sound.encode(None))
    content = bytearray((tmp_path / "in.ts").read_bytes())
    middle = len(content) // 188 // 2 * 188
    del content[middle : middle + 7 * 188]  # a datagram
    (tmp_path / "in.ts").write_bytes(content)
    with av.open(str(tmp_path / "in.ts")) as container:
        with pytest.raises(av.error.InvalidDataError):
            list(container.decode(audio=0))
        length = container.duration / av.time_base
    source, ends = WithSound(PatternSource((64, 48)), str(tmp_path / "in.ts")), 0.0
    for item in source:
        if not isinstance(item, Frame):
            ends = float(item.samples.pts * item.samples.time_base) + item.samples.samples / 48_000
        if (isinstance(item, Frame) and item.time > length + 1) or source.lost:
            break
    source.close()
    assert caplog.text == ""
    assert ends == pytest.approx(length, abs=0.3)


class Stepping:
    """A microphone whose clock is set 5 seconds ahead after half a second, and back after another one."""

    duration, format, streams = None, SimpleNamespace(name="alsa"), SimpleNamespace(audio=[None])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Nothing is open."""

    def demux(self, audio):
        begun = time.monotonic()
        while time.monotonic() < begun + 60:
            time.sleep(0.02)
            # Its times are those of its clock, so that it is on time however busy the machine is.
            at = time.monotonic() - begun
            samples = av.AudioFrame.from_ndarray(np.zeros((2, 960), np.float32), "fltp", "stereo")
            samples.sample_rate, samples.pts = 48_000, round(48_000 * (at + 5 if 0.5 <= at < 1 else at))
            samples.time_base = Fraction(1, 48_000)
            yield SimpleNamespace(decode=lambda samples=samples: [samples])


def test_sound_whose_clock_is_set_finds_its_place_again(monkeypatch):
    monkeypatch.setattr("pipeline.sources.live.SETTLED", 0.3)
    monkeypatch.setattr(WithSound, "_connect", lambda self: Stepping())
    source, off = WithSound(PatternSource((64, 48)), "udp://127.0.0.1:1"), []
    for item in source:
        if not isinstance(item, Frame):
            now = time.monotonic() - source._zero
            off.append((now, float(item.samples.pts * item.samples.time_base) - now))
            if now > 2:
                break
    source.close()
    # It is never further ahead than networks deliver, and once set back waits for what may catch up. A busy
    # machine looks at it late: the earliest of each stretch counts.
    assert max(ahead for _, ahead in off) < 0.35
    assert max(ahead for now, ahead in off if now < 1) > -0.35
    assert min(ahead for _, ahead in off) < -4
    assert max(ahead for now, ahead in off if now > 1.6) > -0.35


def test_times_are_anchored_anew_where_they_go_astray():
    anchor = Anchor()
    assert anchor.place(100, 3.0) == 3.0
    assert [anchor.place(100 + late, 3.0 + late) for late in (0.5, 1.0)] == [3.5, 4.0]
    # Another clock, as it runs 0.2 % faster, and one that is set back by a minute.
    drifts = [anchor.place(101 + 1.002 * second, 4.0 + second) - (4.0 + second) for second in range(1000)]
    assert max(drifts) <= 0.3
    set_back = [anchor.place(second, 1100.0 + second) - (1100.0 + second) for second in range(5)]
    assert set_back[0] < -50
    assert set_back[-1] == 0
    film = Anchor(float("inf"), patient=True)
    assert [film.place(at, now) for at, now in ((0, 1.0), (100, 2.0), (101, 900.0))] == [1, 101, 102]


@pytest.mark.skipif(sys.platform == "win32", reason="kills")
def test_one_listens_for_rtsp(pack):
    port = free_port()
    sender = threading.Timer(
        1, start, ["test:", *SIZE, "-s", pack, "--no-audio", "-o", f"rtsp://127.0.0.1:{port}/live"]
    )
    sender.start()
    with open_source(f"listen:rtsp://127.0.0.1:{port}/live") as source:
        assert (source.info.width, source.info.height) == (320, 180)
        assert isinstance(next(iter(source)), Frame)
    sender.join()


def test_what_is_refused_leaves_the_files_of_the_evening_before(tmp_path, pack):
    record, path = tmp_path / "show.jsonl", tmp_path / "show.mkv"
    record.write_text("the first evening")
    arguments = ["live", "test:", *SIZE, "-s", pack, "-o", path, "--record-controls", record]
    assert_one_line(fauve(*arguments), "show.jsonl: there is a file already", "--force")
    # Nor does what comes after the outputs leave one of theirs behind, so that the next try is not refused.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for option in ("--panel", "--metrics", "--preview"):
            result = fauve(*arguments, "--force", option, f":{port}")
            assert_one_line(result, f"{option} 127.0.0.1:{port}: cannot be served there")
        assert sorted(tmp_path.iterdir()) == [record]
        # What is to be replaced is there until there is something to replace it with.
        path.write_text("the first evening, too")
        fauve(*arguments, "--force", "--panel", f":{port}")
    assert sorted(tmp_path.iterdir()) == [record, path]
    assert record.read_text() == "the first evening"
    assert path.read_text() == "the first evening, too"
    done = fauve(*arguments, "--force", "--duration", "1s")
    assert done.returncode == 0, done.stderr
    assert sorted(tmp_path.iterdir()) == [record, path]
    assert json.loads(record.read_text().splitlines()[0])["control"] == "pack"
