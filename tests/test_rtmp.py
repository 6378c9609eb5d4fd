"""RTMP to and from a real server, and SRT through a real relay."""

import shutil
import subprocess
import time
from dataclasses import replace

import av
import numpy as np
import pytest

from pipeline.address import shown
from pipeline.frame import Frame
from pipeline.live import open_sink
from pipeline.sources.live import open_source
from pipeline.sources.pattern import TIME_BASE, PatternSource, read_code
from tests.packs import tiny_pack
from tests.parts import RTMP_MODULE, needs
from tests.test_live import (
    SIZE,
    codes,
    free_port,
    nothing_keeps_running,
    report,
    start,
    until_it_listens,
    wait_for,
)
from tests.test_resampler import film, follow

__all__ = ["nothing_keeps_running"]

QUICK = {"fflags": "nobuffer", "analyzeduration": "500000"}


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packs") / "tiny"
    tiny_pack(folder)
    return str(folder)


class Nginx:
    """An RTMP server that can be killed and started again."""

    def __init__(self, folder):
        self.port = free_port()
        self.url = f"rtmp://127.0.0.1:{self.port}/live/show"
        self._config = folder / "nginx.conf"
        self._config.write_text(
            f"load_module {RTMP_MODULE};\n"
            f"worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/errors;\n"
            "events { worker_connections 64; }\n"
            f"rtmp {{ server {{ listen {self.port}; application live {{ live on; }} }} }}\n"
        )
        self._process = None

    def start(self):
        self._process = subprocess.Popen(
            [shutil.which("nginx"), "-c", str(self._config)], stderr=subprocess.DEVNULL
        )
        until_it_listens(self.port)

    def stop(self):
        self._process.terminate()
        self._process.wait()


@pytest.fixture
def nginx(tmp_path):
    server = Nginx(tmp_path)
    server.start()
    yield server
    server.stop()


def _shown(url):
    """The stream at `url`, as soon as there is a picture in it: its sound may be there before."""
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        try:
            container = av.open(url, options=QUICK, timeout=10)
        except av.error.FFmpegError:
            pass
        else:
            if container.streams.video:
                return container
            container.close()
        time.sleep(0.5)
    pytest.fail(f"no picture at {url}")


def watch(url, frames):
    """Numbers of the next frames at `url`, which may not be there yet, and their times."""
    numbers, times = [], []
    with _shown(url) as container:
        for frame in container.decode(video=0):
            numbers.append(read_code(frame.to_ndarray(format="rgb24")))
            times.append(float(frame.pts * frame.time_base))
            if len(numbers) == frames:
                break
    return numbers, times


@needs("nginx")
def test_a_server_gets_the_painted_picture_with_its_sound(nginx, pack):
    process = start("test:", *SIZE, "-s", pack, "--strength", "0", "-o", nginx.url, "--json")
    numbers, times = watch(nginx.url, 60)
    with av.open(nginx.url, options=QUICK, timeout=10) as container:
        assert [stream.codec_context.name for stream in container.streams.audio] == ["aac"]
    process.terminate()
    done, _ = report(process)
    assert None not in numbers
    assert numbers == sorted(set(numbers))
    assert times == sorted(times)
    assert done["problem"] == ""


@needs("nginx")
def test_a_stream_from_a_server_is_painted(nginx, pack, tmp_path):
    path = tmp_path / "show.mkv"
    sender = start("test:", *SIZE, "-s", pack, "--strength", "0", "-o", nginx.url)
    watch(nginx.url, 5)
    done, _ = report(
        start(nginx.url, "-s", pack, "--strength", "0", "-o", path, "--duration", "5s", "--json")
    )
    sender.terminate()
    sender.communicate()
    numbers, times, loudness = codes(str(path))
    assert len(numbers) == done["frames"] > 5
    assert [number for number in numbers if number is not None] == sorted(numbers)
    assert times == sorted(set(times))
    assert max(loudness.values()) > 0.25


@needs("nginx")
def test_all_the_sound_of_a_server_arrives(nginx, tmp_path):
    program = pytest.importorskip("imageio_ffmpeg", reason="a sender").get_ffmpeg_exe()
    path = tmp_path / "film.flv"
    path.write_bytes(film("flv", seconds=20, rate=44_100))
    command = [program, "-loglevel", "quiet", "-re", "-i", str(path), "-c", "copy", "-f", "flv", nginx.url]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as sender:
        watch(nginx.url, 1)
        source, pieces = open_source(nginx.url), []
        for item in source:
            if isinstance(item, Frame):
                assert item.time < 15, f"only {len(pieces)} pieces came"
            else:
                pieces.append(item)
            if len(pieces) == 120:
                break
        source.close()
        sender.kill()
    # In its first second the delay of the stream is found, which on a busy machine may move the sound once.
    assert follow(pieces[60:])


@needs("nginx")
def test_a_server_that_is_restarted_gets_the_picture_again(nginx, pack, tmp_path):
    path = tmp_path / "show.mkv"
    process = start("test:", *SIZE, "-s", pack, "--strength", "0", "-o", nginx.url, "-o", path, "--json")
    for _ in range(2):
        numbers, _ = watch(nginx.url, 20)
        assert None not in numbers
        nginx.stop()
        nginx.start()
        began = time.monotonic()
        watch(nginx.url, 1)
        assert time.monotonic() - began < 30
    said = wait_for(process, "is back", times=2)
    process.terminate()
    done, err = report(process)
    err = said + err
    assert err.count("is lost") == err.count("is back") == 2
    counted = done["sinks"][shown(nginx.url)]
    assert counted["frames"] + counted["dropped"] == done["frames"]
    assert counted["dropped"] > 5, "what happened while the server was away"
    numbers, _, _ = codes(str(path))
    assert len(numbers) == done["frames"]
    # Every frame that was painted, in order; what is not in it was dropped before that, and counted.
    assert min(np.diff(numbers)) > 0
    assert numbers[-1] + 1 - len(numbers) <= done["dropped"]


@needs("nginx")
def test_a_server_that_refuses_is_named_and_asked_again(pack, tmp_path):
    port, path = free_port(), tmp_path / "show.mkv"
    url = f"rtmp://127.0.0.1:{port}/live/show"
    done, err = report(start("test:", *SIZE, "-s", pack, "-o", url, "-o", path, "--duration", "4s", "--json"))
    assert f"{shown(url)} is lost (Connection refused)" in err
    counted = done["sinks"][shown(url)]
    assert (counted["frames"], counted["dropped"]) == (0, done["frames"])
    numbers, _, _ = codes(str(path))
    assert len(numbers) == done["frames"] > 5


def pattern(number):
    return Frame(PatternSource((320, 180)).picture(number), number * 3000, 3000, TIME_BASE)


SRT_INFO = replace(PatternSource((320, 180)).info, sound=False)


def test_srt_begins_with_the_first_picture_that_counts_as_sent(tmp_path):
    program = pytest.importorskip("imageio_ffmpeg", reason='SRT needs the extra "live"').get_ffmpeg_exe()
    url, path = f"srt://127.0.0.1:{free_port()}", tmp_path / "got.ts"
    receiver = subprocess.Popen(
        [program, "-loglevel", "quiet", "-i", f"{url}?mode=listener", "-c", "copy", str(path)],
        stdin=subprocess.DEVNULL,
    )
    sink, number = open_sink(url, SRT_INFO), 0
    while number - sink.left_out < 40:
        assert number < 600, sink.lost
        sink.write(pattern(number))
        number += 1
        time.sleep(1 / 30)
    sink.close()
    receiver.wait(20)
    with av.open(str(path)) as container:
        assert next(container.demux(video=0)).is_keyframe
    numbers, _, _ = codes(str(path))
    # What was on its way at the end may be missing.
    assert len(numbers) > 20
    assert numbers == list(range(sink.left_out, sink.left_out + len(numbers)))


def test_srt_that_nobody_receives_counts_nothing_as_sent():
    pytest.importorskip("imageio_ffmpeg", reason='SRT needs the extra "live"')
    sink, number = open_sink(f"srt://127.0.0.1:{free_port()}?connect_timeout=300", SRT_INFO), 0
    while not sink.lost:
        assert number < 600
        sink.write(pattern(number))
        number += 1
        time.sleep(1 / 30)
    sink.abort()
    assert not sink.connected
    assert sink.left_out == number > 0


@needs("srt-live-transmit")
def test_srt_reaches_a_relay(pack):
    pytest.importorskip("imageio_ffmpeg", reason='SRT needs the extra "live"')
    srt, udp = free_port(), free_port()
    relay = subprocess.Popen(
        ["srt-live-transmit", "-q", f"srt://127.0.0.1:{srt}?mode=listener", f"udp://127.0.0.1:{udp}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(0.5)
    process = start("test:", *SIZE, "-s", pack, "--strength", "0", "-o", f"srt://127.0.0.1:{srt}", "--json")
    numbers, _ = watch(f"udp://127.0.0.1:{udp}", 60)
    process.terminate()
    report(process)
    relay.kill()
    relay.wait()
    read = [number for number in numbers if number is not None]
    assert len(read) > 30
    assert read == sorted(read)
