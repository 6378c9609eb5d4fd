"""The picture in the browser, asked for as a browser does."""

import contextlib
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from fractions import Fraction
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from pipeline.errors import SinkError
from pipeline.frame import Frame
from pipeline.sinks import preview
from pipeline.sinks.preview import PreviewPage, PreviewSink
from tests.packs import tiny_pack
from tests.parts import chromium, needs
from tests.test_cli import FAUVE, assert_one_line, fauve
from tests.videos import make_video, picture, read_video


@pytest.fixture
def page():
    page = PreviewPage()
    yield page
    page.close()


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read()


def next_picture(stream):
    assert stream.readline() == b"--picture\r\n"
    assert stream.readline() == b"Content-Type: image/jpeg\r\n"
    assert stream.readline() == b"\r\n"
    content = b""
    while not content.endswith(b"\xff\xd9\r\n"):
        content += stream.read(1)
    return cv2.imdecode(np.frombuffer(content[:-2], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def frame(index, **size):
    return Frame(picture(index, **size), index, 1, Fraction(1, 25))


def test_the_newest_picture_is_shown(page):
    sink = PreviewSink(page)
    page.begin("holiday.mp4", 40)
    sink.write(frame(0))
    with urllib.request.urlopen(page.url + "stream", timeout=10) as stream:
        assert "multipart/x-mixed-replace" in stream.headers["Content-Type"]
        assert np.abs(next_picture(stream).astype(int) - picture(0)).mean() < 4
        for index in range(1, 21):
            sink.write(frame(index))
        # One may be on its way when the next ones come; most of them are never sent.
        assert any(np.abs(next_picture(stream).astype(int) - picture(20)).mean() < 4 for _ in range(5))
    kind, state = get(page.url + "state")
    assert kind == "application/json"
    assert json.loads(state) == {
        "video": "holiday.mp4",
        "frame": 21,
        "frames": 40,
        "time": 0.8,
        "finished": False,
    }
    sink.close()
    assert json.loads(get(page.url + "state")[1])["finished"]


def test_a_slow_network_has_no_old_pictures_waiting(page, monkeypatch):
    monkeypatch.setattr(preview, "EVERY", 0.0)
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    size = len(preview.jpeg(noise))
    encoded = []
    monkeypatch.setattr(preview, "jpeg", lambda image: encoded.append(image) or bytes(size))
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    with slow:
        slow.connect(("127.0.0.1", urlsplit(page.url).port))
        slow.sendall(b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        while not encoded:
            page.show(Frame(noise, 0, 1, Fraction(1, 10)))
            time.sleep(0.02)
        for _ in range(20):
            page.show(Frame(noise, 0, 1, Fraction(1, 10)))
            time.sleep(0.02)
        # Nothing is read: one is on its way.
        assert len(encoded) == 1


def test_a_picture_is_encoded_once_however_many_look(page, monkeypatch):
    encoded, encode = [], preview.jpeg
    monkeypatch.setattr(preview, "jpeg", lambda image: (encoded.append(0), encode(image))[1])
    sink = PreviewSink(page)
    sink.write(frame(0))
    with contextlib.ExitStack() as stack:
        streams = [
            stack.enter_context(urllib.request.urlopen(page.url + "stream", timeout=10)) for _ in range(3)
        ]
        for index in (1, 2):
            for stream in streams:
                next_picture(stream)
            assert len(encoded) == index
            sink.write(frame(index))


def test_who_watches_a_live_picture_sees_no_more_than_the_page_shows():
    sinks = {"rtmp://a.example/…": {"fps": 29.9, "p50_ms": 21.0, "frames": 3}, "preview": {}}
    status = {"sinks": {}, "dropped": 7, "problem": "it is lost", "height": 480}
    page = PreviewPage(status=lambda: status)
    none = json.loads(get(page.url + "state")[1])["live"]
    status["sinks"] = sinks
    live = json.loads(get(page.url + "state")[1])["live"]
    page.close()
    assert none == {"fps": 0.0, "ms": 0.0, "dropped": 7, "problem": "it is lost"}
    assert live == {"fps": 29.9, "ms": 21.0, "dropped": 7, "problem": "it is lost"}


@needs("chromium", "chromedriver")
def test_the_page_shows_the_picture_of_the_next_run(page):
    colour = """const canvas = document.createElement("canvas");
        canvas.getContext("2d").drawImage(document.querySelector("img"), 0, 0, 1, 1);
        return [...canvas.getContext("2d").getImageData(0, 0, 1, 1).data.slice(0, 3)];"""

    def shows(page, grey):
        """Whether the browser has this grey; a picture is shown when the next one comes."""
        PreviewSink(page).write(Frame(np.full((48, 64, 3), grey, np.uint8), 0, 1, Fraction(1)))
        return max(abs(value - grey) for value in browser.execute_script(colour)) < 8

    def until(is_so):
        end = time.monotonic() + 30
        while not is_so():
            assert time.monotonic() < end
            time.sleep(0.2)

    port = int(page.url.rstrip("/").rpartition(":")[2])
    browser = chromium()
    try:
        browser.get(page.url)
        until(lambda: shows(page, 200))
        page.close()
        until(lambda: "ended" in browser.find_element("id", "text").text)
        again = PreviewPage(port=port)
        until(lambda: shows(again, 90))
        again.close()
    finally:
        browser.quit()


def test_a_large_picture_is_made_smaller(page):
    PreviewSink(page).write(frame(0, width=3840, height=2160))
    with urllib.request.urlopen(page.url + "stream", timeout=10) as stream:
        assert next_picture(stream).shape == (720, 1280, 3)


def test_the_page_and_what_is_not_there(page):
    kind, content = get(page.url)
    assert kind == "text/html; charset=utf-8"
    assert b'"/stream?"' in content
    with urllib.request.urlopen(page.url, timeout=10) as answer:
        assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
        assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'self'"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(page.url + "../etc/passwd")


def test_a_port_that_is_taken(page):
    with pytest.raises(SinkError, match="cannot be served there"):
        PreviewPage(port=int(page.url.rstrip("/").rpartition(":")[2]))


def test_a_run_shows_itself(tmp_path):
    tiny_pack(tmp_path / "tiny")
    video = make_video(tmp_path / "in.mp4", frames=900, size=(320, 180))
    command = [*FAUVE, "run", video, "-o", tmp_path / "out.mp4", "--style", tmp_path / "tiny", "--preview"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    told = process.stderr.readline()
    assert told.startswith("the picture is at http://127.0.0.1:"), told
    url = told.split()[-1]
    with urllib.request.urlopen(url + "stream", timeout=30) as stream:
        assert next_picture(stream).shape == (180, 320, 3)
    state = json.loads(get(url + "state")[1])
    assert (state["video"], state["frames"]) == ("in.mp4", 900)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert len(read_video(tmp_path / "out.mp4").times) == 900


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--preview", ":8080", "--workers", "2"], "--preview shows one video by one worker"),
        (["--preview", "here"], "'here' is no address such as :8080"),
    ],
)
def test_pages_that_cannot_be(tmp_path, options, words):
    video = make_video(tmp_path / "in.mp4", frames=3)
    assert_one_line(fauve("run", video, "-o", tmp_path / "out.mp4", *options), words)
