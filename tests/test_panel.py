"""The panel in a real browser, beside OSC, keys, MIDI and metrics: all of them turn and show one state."""

import asyncio
import contextlib
import errno
import json
import logging
import os
import pty
import re
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.error
import urllib.request
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest

from engines import Look
from pipeline.access import Access, token_file
from pipeline.commands.live import _status, live, say
from pipeline.controls import LONGEST_CROSSFADE, Controls, crossfade_at
from pipeline.errors import SinkError
from pipeline.frame import Frame
from pipeline.keyboard import Keyboard, has_keys, keys, press
from pipeline.live import LiveRun
from pipeline.metrics import Metrics, exposition
from pipeline.midi import Midi
from pipeline.replay import Show
from pipeline.sinks import preview
from pipeline.sinks.preview import PreviewPage
from pipeline.sinks.webrtc import WhepSink
from pipeline.sources.pattern import PatternSource
from tests.packs import tiny_pack
from tests.parts import chromium, needs
from tests.test_cli import FAUVE, assert_one_line, fauve
from tests.test_live import SIZE, STARTED, free_port, nothing_keeps_running
from tests.videos import read_video

__all__ = ["nothing_keeps_running"]

starlette = pytest.importorskip("starlette", reason='the panel needs the extra "live"')

STATUS = {
    "fps_in": 30.0,
    "frames_in": 90,
    "repeated": 5,
    "dropped": 7,
    "painted": 88,
    "height": 176,
    "engine": "openvino float32",
    "reconnects": 1,
    "engine_restarts": 0,
    "problem": "",
    "loading": "",
    "refused": {},
    "uptime": 3.0,
    "sinks": {
        "panel": {
            "fps": 30.0,
            "frames": 88,
            "dropped": 0,
            "reconnects": 2,
            "p50_ms": 20,
            "p95_ms": 30,
            "p99_ms": 40,
        }
    },
}


@pytest.fixture(autouse=True)
def configuration(monkeypatch, tmp_path):
    """Where the token of a test is kept."""
    monkeypatch.delenv("FAUVE_TOKEN", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "fauve" / "token"


@pytest.fixture
def controls():
    return Controls("pack", ("warm", "cold"), Look())


@pytest.fixture
def panel(controls):
    from pipeline.panel import Panel

    panel = Panel(controls, lambda: STATUS, "127.0.0.1", 0)
    yield panel
    panel.close()


def get(url, **headers):
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, answer.read()


def wait_for(what, seconds=10):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


async def messages(url, count, *, send=(), **options):
    from websockets.asyncio.client import connect

    async with connect(url, **options) as client:
        for message in send:
            await client.send(json.dumps(message))
        return [json.loads(await asyncio.wait_for(client.recv(), 5)) for _ in range(count)]


def talk(panel, count, send=(), **options):
    url = panel.url.replace("http:", "ws:").replace("/?", "/control?")
    url = url if "/control" in url else url + "control"
    return asyncio.run(messages(url, count, send=send, **options))


def test_a_page_gets_the_state_and_turns_it(panel, controls):
    first, second, *_ = talk(panel, 3, [{"set": "strength", "value": 0.4}, {"set": "panic", "value": True}])
    assert first["state"]["strength"] in (1.0, 0.4)
    assert second["state"]["strength"] == 0.4
    assert controls.state["strength"] == 0.4
    assert controls.state["blackout"] is True


@contextlib.contextmanager
def page_of(panel):
    """What a page is told, message after message, once it has the state."""
    from websockets.sync.client import connect

    with connect(panel.url.replace("http:", "ws:") + "control") as client:
        assert "state" in json.loads(client.recv(5))
        yield (json.loads(client.recv(5)) for _ in range(100))


def test_what_is_turned_elsewhere_is_shown_and_reported(panel, controls):
    with page_of(panel) as told:
        controls.set("style", "cold")
        assert any(each.get("state", {}).get("mix") == {"warm": 0, "cold": 1} for each in told)
        assert any(each.get("status") == STATUS for each in told)


def test_the_status_comes_however_much_is_turned(panel, controls):
    over = threading.Event()

    def turn():
        while not over.wait(0.01):
            controls.set("strength", 0.5)

    turning = threading.Thread(target=turn, daemon=True)
    turning.start()
    began, told = time.monotonic(), []
    while time.monotonic() - began < 20 and not any("status" in message for message in told):
        told += talk(panel, 70)
    over.set()
    turning.join(5)
    assert any("status" in message for message in told)


def test_a_page_shows_what_each_pack_paints(panel):
    import engines

    first = talk(panel, 1)[0]
    assert first["pictures"] == {}
    with engines.load("onnxruntime", style="live") as engine:
        with page_of(panel) as told:
            panel.show_styles("pack", engine)
            pictures = next(message["pictures"] for message in told if message.get("pictures"))
        assert list(pictures["pack"]) == list(engine.style.styles)
        assert all(picture.startswith("data:image/jpeg;base64,") for picture in pictures["pack"].values())
        panel.show_styles("another", engine)
    assert set(talk(panel, 1)[0]["pictures"]) == {"pack", "another"}


def test_a_page_that_was_open_before_gets_the_picture_of_this_run():
    from pipeline.panel import PanelSink

    sink, image = PanelSink(), np.zeros((8, 8, 3), np.uint8)
    assert sink.newer(5000, 0.0) == (5000, b"")
    sink.write(Frame(image, 0, 0, Fraction(1)))
    number, picture = sink.newer(5000, 0.0)
    assert number == 1
    assert picture
    assert sink.newer(number, 0.0) == (1, b"")


def test_a_picture_is_encoded_once_however_many_look(monkeypatch):
    from pipeline.panel import PanelSink

    encoded = []
    monkeypatch.setattr(preview, "jpeg", lambda image: (encoded.append(0), b"jpeg")[1])
    sink = PanelSink()
    for number in (1, 2):
        sink.write(Frame(np.zeros((8, 8, 3), np.uint8), 0, 0, Fraction(1)))
        assert [sink.newer(0, 0.0) for _ in range(3)] == [(number, b"jpeg")] * 3
    assert len(encoded) == 2


def test_no_other_site_shows_a_page_in_its_own(panel):
    whep = WhepSink("whep:127.0.0.1:0", PatternSource((64, 64)).info)
    try:
        for url in (panel.url, whep.url.removesuffix("whep")):
            with urllib.request.urlopen(url, timeout=10) as answer:
                assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
                assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'self'"
    finally:
        whep.close()


def test_a_network_that_goes_away_while_a_page_is_sent_is_not_told_of(capfd):
    page = PreviewPage()
    try:
        raise OSError(errno.EHOSTUNREACH, "No route to host")
    except OSError:
        page._server.handle_error(None, ("10.0.0.1", 1))
    page.close()
    assert capfd.readouterr().err == ""


@needs("chromium", "chromedriver")
def test_short_crossfades_have_room_on_the_slider_and_on_a_fader(panel, controls, tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"control 1/21": "crossfade"}))
    midi = Midi(controls, "no such device", path)
    faded = []
    for value in range(128):
        midi.take(message("control_change", channel=0, control=21, value=value))
        faded.append(controls.state["crossfade"])
    midi.close()
    assert (faded[0], faded[-1]) == (0, LONGEST_CROSSFADE)
    # A second is hit to a tenth, and most of the way is for what is common.
    assert max(after - before for before, after in pairwise(faded) if before < 1) < 0.1
    assert 5 < faded[64] < 10
    slide = "at('crossfade').value = arguments[0]; at('crossfade').dispatchEvent(new Event('input'))"
    with browsing(panel.url) as browser:
        wait_for(lambda: browser.find_elements("css selector", ".style"))
        for position in (0, 0.2, 0.5, 1):
            browser.execute_script(slide, position)
            wait_for(lambda at=position: controls.state["crossfade"] == round(crossfade_at(at), 2))
        controls.set("crossfade", 0.5)
        shown = "return document.querySelector('[data-control=crossfade] output').textContent"
        wait_for(lambda: browser.execute_script(shown) == "0.50")
        assert browser.execute_script("return +at('crossfade').value") == pytest.approx(0.2, abs=0.01)
        screenshot(browser, "crossfade")


@needs("chromium", "chromedriver")
def test_the_panel_is_played_from_the_keyboard(panel, controls):
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    keys = webdriver.Keys
    look = """const button = document.activeElement, outline = getComputedStyle(button).outlineStyle;
        return [button.textContent, outline !== 'none', button.ariaPressed]"""
    with browsing(panel.url) as browser:
        wait_for(lambda: browser.find_elements("css selector", ".style"))

        def press(*pressed):
            webdriver.ActionChains(browser).send_keys(*pressed).perform()

        # A style says that it has the focus, and whether it is on.
        browser.execute_script("at('pack').focus()")
        press(keys.TAB)
        assert browser.execute_script(look) == ["warm", True, "true"]
        press(keys.TAB, keys.TAB)
        assert browser.execute_script(look) == ["cold", True, "false"]
        press(keys.ENTER)
        wait_for(lambda: browser.execute_script(look)[2] == "true")
        assert controls.state["mix"] == {"warm": 0, "cold": 1}
        # A crossfade of no time is left step by step, though the first ones mean none, either.
        browser.execute_script("at('crossfade').focus()")
        press(keys.HOME)
        wait_for(lambda: controls.state["crossfade"] == 0)
        browser.execute_script("window.told = 0; const drawn = draw; draw = () => { drawn(); told++; }")
        for step in range(1, 20):
            press(keys.ARROW_RIGHT)
            wait_for(lambda step=step: browser.execute_script("return told") >= step)
        wait_for(lambda: controls.state["crossfade"] > 0.02)


@needs("chromium", "chromedriver")
def test_a_slider_that_is_let_go_shows_what_was_turned_meanwhile(panel, controls):
    fire = "at('strength').dispatchEvent(new Event(arguments[0]))"
    value = "return +at('strength').value"
    with browsing(panel.url) as browser:
        wait_for(lambda: browser.find_elements("css selector", ".style"))
        browser.execute_script(fire, "pointerdown")
        controls.set("strength", 0.25)
        wait_for(lambda: browser.execute_script("return state.strength") == 0.25)
        assert browser.execute_script(value) == 1
        browser.execute_script(fire, "pointerup")
        assert browser.execute_script(value) == 0.25


def test_nobody_waits_for_a_picture_when_the_show_is_over():
    from pipeline.panel import PanelSink

    sink, answers = PanelSink(), []
    waiting = threading.Thread(target=lambda: answers.append(sink.newer(0, 600.0)), daemon=True)
    waiting.start()
    sink.close()
    waiting.join(10)
    assert answers == [(0, b"")]


@pytest.mark.parametrize(
    "message", [{"set": "strength", "value": 3}, {"set": "volume"}, {"learn": "strength"}, [], {"do": 1}]
)
def test_nonsense_is_answered_and_changes_nothing(panel, controls, message):
    before = controls.state
    told = talk(panel, 2, [message])
    assert any("error" in one for one in told)
    assert controls.state == before


def test_a_name_that_is_no_text_is_told_to_a_page_and_recorded(tmp_path):
    from pipeline.panel import Panel

    sinks = {"\udce4.mkv": STATUS["sinks"]["panel"]}
    controls = Controls("\udce4", ("warm", "cold"), Look())
    controls.record(tmp_path / "show.jsonl")
    controls.close()
    recorded = (tmp_path / "show.jsonl").read_text("utf-8").splitlines()
    assert json.loads(recorded[0]) == {"time": 0.0, "control": "pack", "value": "\udce4"}
    assert list(Show(tmp_path / "show.jsonl", ("warm", "cold")).look_at(Fraction(0)).mix) == ["warm", "cold"]
    panel = Panel(controls, lambda: {**STATUS, "sinks": sinks}, "127.0.0.1", 0)
    try:
        with page_of(panel) as told:
            assert any(each.get("status", {}).get("sinks") == sinks for each in told)
    finally:
        panel.close()


def test_what_is_no_message_is_answered_and_the_link_stays(panel, controls, capfd):
    from websockets.sync.client import connect

    texts = ['{"set": "strength", "value": 1' + "0" * 400 + "}", b"\0\1", "[" * 30_000, "no JSON"]
    with connect(panel.url.replace("http:", "ws:") + "control", max_size=None) as client:
        for text in texts:
            client.send(text)
            wait_for(lambda: "error" in json.loads(client.recv(5)))
        client.send(json.dumps({"set": "strength", "value": 0.5}))
        wait_for(lambda: controls.state["strength"] == 0.5)
    assert "Traceback" not in capfd.readouterr().err


def answer(url, *headers):
    """The status line that a server sends for a request with these headers, whatever is in them."""
    host, _, port = url.removeprefix("http://").partition("/")[0].rpartition(":")
    path = "/" + url.removeprefix("http://").partition("/")[2]
    with socket.create_connection((host.strip("[]"), int(port)), 10) as client:
        client.sendall("\r\n".join([f"GET {path} HTTP/1.1", *headers, "", ""]).encode())
        return client.makefile("rb").readline().decode()


@pytest.mark.parametrize("headers", [["Host: ["], ["Host: 127.0.0.1", "Origin: http://["], ["Host: [::1"]])
def test_addresses_that_are_none_are_refused(panel, controls, headers, capfd):
    metrics, page = Metrics(lambda: STATUS, "127.0.0.1", 0), PreviewPage()
    upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    upgrade += ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
    try:
        for url in (panel.url, panel.url + "picture", metrics.url, page.url):
            assert " 403 " in answer(url, *headers)
        assert " 403 " in answer(panel.url + "control", *headers, *upgrade)
        assert " 204 " in answer(panel.url + "picture?after=" + "9" * 5000, "Host: localhost")
    finally:
        metrics.close()
        page.close()
    assert "Traceback" not in capfd.readouterr().err


def test_the_newest_picture(panel):
    import cv2

    assert get(panel.url + "picture?after=0")[0] == 204
    panel.sink.write(Frame(np.full((90, 160, 3), 200, np.uint8), 0, 1, Fraction(1, 30)))
    status, content = get(panel.url + "picture?after=0")
    assert status == 200
    shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (90, 160, 3)
    assert abs(int(shown[0, 0, 0]) - 200) < 4


def test_a_foreign_page_is_refused(panel):
    with pytest.raises(urllib.error.HTTPError, match="403"):
        get(panel.url, Origin="http://evil.example")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        get(panel.url, Host="evil.example")
    assert get(panel.url, Origin=panel.url.rstrip("/"))[0] == 200
    with pytest.raises(Exception, match="403"):
        talk(panel, 1, origin="http://evil.example")


def test_another_address_needs_the_token(controls):
    from pipeline.panel import Panel

    panel = Panel(controls, lambda: STATUS, "0.0.0.0", 0)
    try:
        plain = panel.url.partition("?")[0]
        with pytest.raises(urllib.error.HTTPError, match="403"):
            get(plain)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            get(plain + "?token=guess")
        assert get(panel.url)[0] == 200
        assert "state" in talk(panel, 1)[0]
    finally:
        panel.close()


def test_the_token_stays_the_same_and_is_nobody_elses(configuration, controls):
    from pipeline.panel import Panel

    urls = []
    for _ in range(2):
        panel = Panel(controls, lambda: STATUS, "0.0.0.0", 0)
        urls.append(panel.url.partition("?")[2])
        assert get(panel.url.partition("?")[0] + "?" + urls[0])[0] == 200
        panel.close()
    assert urls == [f"token={configuration.read_text().strip()}"] * 2
    assert stat.S_IMODE(configuration.stat().st_mode) == 0o600
    configuration.unlink()
    assert not Access("0.0.0.0").allows(urls[0], {"Host": "10.0.0.1:80"})


def test_the_token_that_another_is_just_making_is_waited_for(configuration):
    configuration.parent.mkdir(parents=True)
    configuration.write_text("")
    writing = threading.Timer(0.05, configuration.write_text, ["made-by-another\n"])
    writing.start()
    assert Access("10.1.2.3").url(80).endswith("/?token=made-by-another")
    writing.join()


def test_a_token_of_ones_own(configuration, monkeypatch):
    monkeypatch.setenv("FAUVE_TOKEN", "stage-left-1")
    assert Access("10.1.2.3").url(80).endswith("/?token=stage-left-1")
    assert not configuration.exists()


def test_a_token_that_is_none_is_one_line(configuration, monkeypatch):
    for token in ("short", "with spaces in it", "a&b=cdefghi"):
        monkeypatch.setenv("FAUVE_TOKEN", token)
        with pytest.raises(SinkError, match="FAUVE_TOKEN: a token has 8 letters"):
            Access("0.0.0.0")
    monkeypatch.delenv("FAUVE_TOKEN")
    configuration.parent.mkdir(parents=True)
    configuration.write_text("")
    with pytest.raises(SinkError, match=r"token: a token has .* delete the file for another"):
        Access("0.0.0.0")
    configuration.unlink()
    configuration.parent.rmdir()
    configuration.parent.write_text("no folder")
    with pytest.raises(SinkError, match=r"cannot be kept there: .*; give one in FAUVE_TOKEN"):
        Access("0.0.0.0")


def test_who_has_no_home_needs_a_token_for_other_addresses_only(monkeypatch):
    def homeless(*_, **__):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("pipeline.access.user_config_path", homeless)
    assert token_file() is None
    assert Access("127.0.0.1").url(80) == "http://127.0.0.1:80/"
    with pytest.raises(
        SinkError, match=r"^there is no home to keep a token in; set HOME, or .* FAUVE_TOKEN$"
    ):
        Access("10.1.2.3")
    monkeypatch.setenv("FAUVE_TOKEN", "stage-left-1")
    assert Access("10.1.2.3").url(80).endswith("/?token=stage-left-1")


def test_access():
    here, anywhere = Access("localhost"), Access("0.0.0.0")
    assert here.allows("", {"Host": "localhost:80"})
    assert here.allows("", {"Host": "[::1]:80"})
    assert not here.allows("", {})
    assert not anywhere.allows("", {"Host": "0.0.0.0:80"})
    assert anywhere.allows(anywhere.url(80).partition("?")[2], {"Host": "10.0.0.1:80"})


def test_an_address_can_be_opened():
    assert Access("::1").url(80) == "http://[::1]:80/"
    assert Access("localhost").url(80, "metrics") == "http://localhost:80/metrics"
    assert Access("10.1.2.3").url(80).startswith("http://10.1.2.3:80/?token=")
    # A phone finds this machine by its own address, not by the one that stands for all.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        try:
            way.connect(("192.0.2.1", 9))
            own = way.getsockname()[0]
        except OSError:
            own = "0.0.0.0"
    assert Access("0.0.0.0").url(80).startswith(f"http://{own}:80/?token=")


@pytest.fixture
def ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")


def test_the_panel_is_served_by_ipv6_too(controls, ipv6):
    from pipeline.panel import Panel

    panel = Panel(controls, lambda: STATUS, "::1", 0)
    try:
        assert get(panel.url)[0] == 200
        assert "state" in talk(panel, 1)[0]
    finally:
        panel.close()


@pytest.mark.parametrize("host", ["::1", "::"])
def test_each_page_is_served_by_ipv6_too(controls, ipv6, host):
    from pipeline.panel import Panel

    pages = [
        Panel(controls, lambda: STATUS, host, 0),
        Metrics(lambda: STATUS, host, 0),
        PreviewPage(host, 0),
    ]
    try:
        for page in pages:
            port, path = page.url.rpartition(":")[2].split("/")
            assert get(f"http://[::1]:{port}/{path}")[0] == 200
            if host == "::" and socket.has_dualstack_ipv6():
                assert get(f"http://127.0.0.1:{port}/{path}")[0] == 200
    finally:
        for page in pages:
            page.close()


def test_a_taken_port_is_one_line(controls, panel):
    from pipeline.panel import Panel

    with pytest.raises(SinkError, match=r"cannot be served there: Address already in use$"):
        Panel(controls, lambda: STATUS, "127.0.0.1", int(panel.url.rsplit(":", 1)[1].rstrip("/")))


def test_a_thousand_changes_a_second_are_taken(panel, controls):
    began = time.monotonic()
    for index in range(1000):
        controls.set("strength", index / 1000)
        controls.scene_at(Fraction(index, 1000))
    assert time.monotonic() - began < 20
    assert controls.state["strength"] == 0.999


def test_keys(controls):
    stop = threading.Event()
    for key in ("2", "n", "p", "p", "n", "down", "down", "b", "f", " ", "x", ""):
        press(controls, stop, key)
    state = controls.state
    assert state["mix"] == {"warm": 0, "cold": 1}
    assert state["strength"] == 0.9
    assert (state["bypass"], state["freeze"], state["blackout"]) == (True, True, True)
    press(controls, stop, "q")
    assert stop.is_set()


def test_keys_of_the_first_ten_styles():
    names = tuple(f"style {number}" for number in range(1, 12))
    controls = Controls("pack", names, Look({names[-1]: 1}))
    for key, number in (("1", 1), ("9", 9), ("0", 10)):
        press(controls, threading.Event(), key)
        assert controls.state["mix"] == {name: float(name == f"style {number}") for name in names}


def test_a_key_for_a_style_that_is_just_gone_is_no_error(controls, monkeypatch):
    stale = controls.state
    controls.swapped("other", ("red",), Look())
    monkeypatch.setattr(Controls, "state", stale)
    press(controls, threading.Event(), "2")
    monkeypatch.undo()
    assert controls.state["mix"] == {"red": 1}


@pytest.mark.parametrize(
    ("typed", "pressed", "begun"),
    [
        ("bf", ["b", "f"], ""),
        ("\x1b[B\x1b[B\x1bOA", ["down", "down", "up"], ""),
        ("2\x1b[B ", ["2", "down", " "], ""),
        ("f\x1b", ["f"], "\x1b"),
        ("\x1b[A\x1b[", ["up"], "\x1b["),
        ("\x1b[1;5", [], "\x1b[1;5"),
        ("\x1b[1;5A\x1b[15~q", ["", "", "q"], ""),
        ("\x1bq\x1b\x1b", ["", ""], "\x1b"),
    ],
)
def test_every_key_counts_that_a_terminal_sends(typed, pressed, begun):
    assert keys(typed) == (pressed, begun)


@pytest.mark.skipif(os.name == "nt", reason="pseudo terminals")
def test_keys_that_come_together_or_in_pieces_are_all_pressed(controls, monkeypatch):
    leader, follower = pty.openpty()
    with os.fdopen(follower, "r") as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        # However late the second piece comes on a busy machine.
        late = SimpleNamespace(select=lambda *files: select.select(*files[:3], 3.0))
        monkeypatch.setattr("pipeline.keyboard.select", late)
        keyboard = Keyboard(controls, threading.Event())
        os.write(leader, b"\x1b[B" * 5 + b"bf")
        wait_for(lambda: controls.state["freeze"])
        assert (controls.state["strength"], controls.state["bypass"]) == (0.75, True)
        os.write(leader, b"\x1b[")
        time.sleep(0.03)
        os.write(leader, b"A")
        wait_for(lambda: controls.state["strength"] == 0.8)
        keyboard.close()
    os.close(leader)


def message(kind, **values):
    return SimpleNamespace(type=kind, **values)


def test_midi_learns_and_turns(controls, tmp_path):
    path = tmp_path / "map.json"
    midi = Midi(controls, "no such device", path)
    assert "MIDI" in midi.description
    knob = {"channel": 0, "control": 21}
    midi.take(message("control_change", **knob, value=10))
    assert controls.state["strength"] == 1.0
    midi.learn("strength")
    midi.take(message("control_change", **knob, value=127))
    midi.take(message("control_change", **knob, value=0))
    assert controls.state["strength"] == 0
    midi.learn("style=cold")
    midi.take(message("note_on", channel=9, note=36, velocity=100))
    midi.take(message("note_on", channel=9, note=36, velocity=0))
    assert controls.state["mix"]["cold"] == 1
    midi.learn("freeze")
    midi.take(message("note_on", channel=9, note=37, velocity=1))
    assert controls.state["freeze"] is True
    assert json.loads(path.read_text()) == {
        "control 1/21": "strength",
        "note 10/36": "style=cold",
        "note 10/37": "freeze",
    }
    again = Midi(controls, "no such device", path)
    again.take(message("control_change", **knob, value=127))
    assert controls.state["strength"] == 1.0
    midi.close()
    again.close()
    path.write_text("[]")
    with pytest.raises(SinkError, match=r"map\.json"):
        Midi(controls, "", path)


def test_a_pad_that_is_let_go_acts_no_second_time(controls, tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"control 1/20": "style=cold", "control 1/21": "style=warm"}))
    midi = Midi(controls, "no such device", path)
    for control, value in ((20, 127), (21, 127), (20, 0), (21, 0)):
        midi.take(message("control_change", channel=0, control=control, value=value))
    midi.close()
    assert controls.state["mix"] == {"warm": 1, "cold": 0}


class Port:
    """An open MIDI input."""

    def __init__(self, name, callback):
        self.name, self.send, self.closed = name, callback, False

    def close(self):
        self.closed = True


@pytest.mark.parametrize("name", ["nano", ""])
def test_a_controller_that_is_unplugged_is_waited_for(controls, monkeypatch, caplog, name):
    pytest.importorskip("mido", reason='MIDI needs the extra "live"')
    # In ALSA's order.
    there, ports, told = ["Midi Through 14:0", "nanoKONTROL2 20:0"], [], []
    monkeypatch.setattr("pipeline.midi.LOOK_EVERY", 0.02)
    monkeypatch.setattr("pipeline.midi.input_names", lambda: list(there))
    monkeypatch.setattr("pipeline.midi.output_names", list)
    monkeypatch.setattr(
        "mido.open_input", lambda name, callback: (ports.append(Port(name, callback)), ports[-1])[1]
    )
    midi = Midi(controls, name, None)
    midi.changed = lambda: told.append(midi.state["input"])
    assert midi.description == "MIDI is taken from nanoKONTROL2 20:0"
    del there[1]
    wait_for(lambda: not midi.connected)
    assert ports[0].closed
    there.append("nanoKONTROL2 24:0")
    wait_for(lambda: midi.connected)
    midi.learn("strength")
    ports[1].send(message("control_change", channel=0, control=21, value=0))
    assert controls.state["strength"] == 0
    midi.close()
    assert [port.closed for port in ports] == [True, True]
    gone = f"no MIDI input '{name or 'nanoKONTROL2'}' here; there is Midi Through 14:0"
    assert caplog.messages == [gone, "MIDI is taken from nanoKONTROL2 24:0"]
    assert told[:2] == caplog.messages


@pytest.fixture
def taught(tmp_path):
    """Makes a `Midi` with a map, and without a controller."""
    made = []

    def teach(controls, mapping):
        path = tmp_path / "map.json"
        path.write_text(json.dumps(mapping))
        made.append(Midi(controls, "no such device", path))
        return made[-1]

    yield teach
    for midi in made:
        midi.close()


def test_programs_and_pitch_bend_are_learned_and_turn(controls, tmp_path, taught):
    midi = taught(controls, {})
    midi.learn("style=cold")
    midi.take(message("program_change", channel=0, program=5))
    assert controls.state["mix"] == {"warm": 0, "cold": 1}
    midi.learn("strength")
    # A fader of a Mackie controller is touched before it is moved.
    midi.take(message("note_on", channel=0, note=104, velocity=127))
    turned = []
    for pitch in (-8192, -8191, 0, 8191):
        midi.take(message("pitchwheel", channel=0, pitch=pitch))
        turned.append(controls.state["strength"])
    assert turned == [0, 1 / 16383, 8192 / 16383, 1]
    learned = {"program 1/5": "style=cold", "pitch 1": "strength"}
    assert json.loads((tmp_path / "map.json").read_text()) == learned


@pytest.mark.parametrize(
    "let_go",
    [
        message("note_on", channel=9, note=36, velocity=0),
        message("note_off", channel=9, note=36, velocity=64),
        message("control_change", channel=0, control=21, value=0),
    ],
)
@pytest.mark.parametrize("switch", ["bypass", "freeze", "blackout"])
def test_a_switch_is_held_while_a_pad_is_pressed(controls, taught, let_go, switch):
    midi = taught(controls, {"note 10/36": f"hold {switch}", "control 1/21": f"hold {switch}"})
    for _ in range(2):
        if let_go.type == "control_change":
            midi.take(message("control_change", channel=0, control=21, value=127))
        else:
            midi.take(message("note_on", channel=9, note=36, velocity=1))
        assert controls.state[switch] is True
        midi.take(let_go)
        assert controls.state[switch] is False


def test_what_cannot_be_held_is_said_and_changes_nothing(controls, taught, caplog):
    midi = taught(controls, {"program 1/5": "hold blackout", "note 10/36": "hold strength"})
    before = controls.state
    caplog.clear()
    midi.take(message("program_change", channel=0, program=5))
    midi.take(message("note_on", channel=9, note=36, velocity=1))
    assert controls.state == before
    assert caplog.messages == [
        "MIDI program 1/5: a program does not say when it is let go, so that it cannot hold blackout",
        "MIDI note 10/36: nothing but bypass, freeze, blackout can be held, not 'strength'",
    ]


@pytest.fixture
def three():
    """Controls whose pack has a style that is called next."""
    return Controls("pack", ("warm", "next", "cold"), Look())


def test_midi_goes_to_the_next_style_and_to_one_of_that_name(three, taught):
    midi = taught(
        three,
        {
            "note 1/1": "style next",
            "note 1/2": "style previous",
            "note 1/3": "style=next",
            "program 1/1": "style next",
            "control 1/1": "style next",
        },
    )

    def after(*messages):
        for told in messages:
            midi.take(told)
        return max(three.state["mix"], key=three.state["mix"].get)

    def note(number, velocity=64):
        return message("note_on", channel=0, note=number, velocity=velocity)

    def knob(value):
        return message("control_change", channel=0, control=1, value=value)

    assert after(note(1), note(1, 0)) == "next"
    assert after(note(1), note(1)) == "warm"
    assert after(note(2)) == "cold"
    assert after(note(3)) == "next"
    assert after(message("program_change", channel=0, program=1)) == "cold"
    # Turned up it is one step, and so is each press of a pad that never sends 0.
    assert after(*map(knob, (0, 64, 100, 127))) == "warm"
    assert after(knob(127)) == "next"
    assert after(knob(0), knob(127), knob(0)) == "cold"


def test_a_record_has_the_style_that_was_gone_to(three, tmp_path):
    three.record(tmp_path / "show.jsonl")
    three.scene_at(Fraction(0))
    for key in "nnpp":
        press(three, threading.Event(), key)
    press(three, threading.Event(), "p")
    three.scene_at(Fraction(1))
    three.close()
    events = [json.loads(line) for line in (tmp_path / "show.jsonl").read_text().splitlines()]
    chosen = ["next", "cold", "next", "warm", "cold"]
    assert events[-5:] == [{"time": 1.0, "control": "style", "value": style} for style in chosen]
    show = Show(tmp_path / "show.jsonl", ("warm", "next", "cold"))
    assert show.look_at(Fraction(9)).mix == {"warm": 0, "next": 0, "cold": 1}


class Output:
    """An open MIDI output."""

    def __init__(self, name):
        self.name, self.sent, self.closed, self.broken = name, [], False, False

    def send(self, told):
        if self.broken:
            raise OSError("unplugged")
        # What is sent to probe it is no light's.
        if told.type != "sysex":
            self.sent.append(told)

    def close(self):
        self.closed = True


@pytest.fixture
def surface(monkeypatch, tmp_path):
    """A controller with an output: inputs that are there, what is opened, and a map of everything."""
    pytest.importorskip("mido", reason='MIDI needs the extra "live"')
    there, inputs, outputs = ["BCF2000 20:0"], [], []
    monkeypatch.setattr("pipeline.midi.LOOK_EVERY", 0.02)
    monkeypatch.setattr("pipeline.midi.SHOW_EVERY", 0)
    monkeypatch.setattr("pipeline.midi.input_names", lambda: list(there))
    monkeypatch.setattr("pipeline.midi.output_names", lambda: ["Midi Through 14:0", *there])
    monkeypatch.setattr(
        "mido.open_input", lambda name, callback: (inputs.append(Port(name, callback)), inputs[-1])[1]
    )
    monkeypatch.setattr("mido.open_output", lambda name: (outputs.append(Output(name)), outputs[-1])[1])
    path = tmp_path / "map.json"
    path.write_text(
        json.dumps(
            {
                "control 1/21": "strength",
                "control 1/22": "crossfade",
                "pitch 1": "mix/cold",
                "note 10/36": "style=cold",
                "note 10/37": "freeze",
                "note 10/38": "hold blackout",
                "note 10/39": "style next",
                "note 10": "freeze",
                "control 99/1": "freeze",
                "program 1/5": "style=warm",
            }
        )
    )
    return SimpleNamespace(there=there, inputs=inputs, outputs=outputs, map=path)


def control_change(control, value):
    from mido import Message

    return Message("control_change", control=control, value=value)


def pitch(value):
    from mido import Message

    return Message("pitchwheel", pitch=value)


def note(number, velocity):
    from mido import Message

    return Message("note_on", channel=9, note=number, velocity=velocity)


def begun():
    """What a controller is sent first."""
    dark = [note(number, 0) for number in (36, 37, 38)]
    return [control_change(21, 127), control_change(22, 32), pitch(-8192), *dark]


def test_lights_and_faders_show_what_is_set(controls, surface):
    midi = Midi(controls, "bcf", surface.map)
    (output,) = surface.outputs
    expected = []

    def shows(*told):
        expected.extend(told)
        wait_for(lambda: len(output.sent) >= len(expected))
        assert output.sent == expected

    shows(*begun())
    controls.set("strength", 0.4)
    shows(control_change(21, 51))
    controls.set("strength", 0.401)  # as far as the controller can show it, the same
    controls.set("style", "cold")
    shows(pitch(8191), note(36, 127))
    controls.set("mix/cold", 0.5)
    shows(pitch(0))
    controls.toggle("freeze")
    shows(note(37, 127))
    controls.set("panic", True)
    shows(note(38, 127))
    midi.learn("strength")
    midi.take(control_change(30, 127))
    shows(control_change(21, 127))
    midi.close()
    assert output.closed


def test_a_fader_under_a_hand_is_left_alone(controls, surface, monkeypatch):
    monkeypatch.setattr("pipeline.midi.RESTS", 300.0)
    midi = Midi(controls, "bcf", surface.map)
    (output,), (hand,) = surface.outputs, surface.inputs
    wait_for(lambda: output.sent == begun())
    for value in range(10, 100):
        hand.send(control_change(21, value))
        hand.send(pitch(value))
    controls.set("strength", 0.5)
    controls.toggle("freeze")
    wait_for(lambda: len(output.sent) > 6)
    # The share of cold that the fader gave it is no reason either to move it.
    assert output.sent == [*begun(), note(37, 127)]
    monkeypatch.setattr("pipeline.midi.RESTS", 0.0)
    controls.toggle("freeze")
    wait_for(lambda: len(output.sent) > 8)
    assert output.sent == [*begun(), note(37, 127), control_change(21, 64), note(37, 0)]
    midi.close()


def test_a_pad_that_goes_dark_by_itself_is_lit_again(controls, surface):
    midi = Midi(controls, "bcf", surface.map)
    (output,), (hand,) = surface.outputs, surface.inputs
    wait_for(lambda: output.sent == begun())
    for count, velocity in ((7, 127), (8, 0)):
        hand.send(note(37, velocity))
        wait_for(lambda count=count: len(output.sent) == count)
    assert output.sent[6:] == [note(37, 127)] * 2
    midi.close()


def test_a_controller_that_is_unplugged_lets_go_and_shows_all_when_it_is_back(controls, surface, caplog):
    midi = Midi(controls, "bcf", surface.map)
    wait_for(lambda: surface.outputs[0].sent == begun())
    surface.inputs[0].send(note(38, 127))
    assert controls.state["blackout"]
    surface.outputs[0].broken = True
    controls.set("strength", 0.5)
    wait_for(lambda: caplog.messages)
    del surface.there[0]
    wait_for(lambda: not midi.connected)
    wait_for(lambda: not controls.state["blackout"])
    controls.set("strength", 1)
    surface.there.append("BCF2000 24:0")
    wait_for(lambda: len(surface.outputs) == 2 and surface.outputs[1].sent == begun())
    midi.close()
    assert caplog.messages == [
        "the controller's lights and faders show nothing more: unplugged",
        "no MIDI input 'bcf' here; there is none",
        "MIDI is taken from BCF2000 24:0",
    ]


def test_nothing_is_sent_where_it_is_heard_again(controls, surface, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "fauve")

    class Bus(Output):
        def send(self, told):
            super().send(told)
            surface.inputs[-1].send(told)

    monkeypatch.setattr(
        "mido.open_output", lambda name: (surface.outputs.append(Bus(name)), surface.outputs[-1])[1]
    )
    midi = Midi(controls, "", surface.map)
    (bus,) = surface.outputs
    assert bus.closed
    controls.toggle("freeze")
    midi.close()
    assert bus.sent == []
    assert controls.state["freeze"]
    assert caplog.messages[-1] == "what is sent to the MIDI controller comes back; nothing more is sent"


@pytest.mark.parametrize(
    ("outputs", "opened"),
    [
        (["BCF2000 24:0", "BCF2000 20:0"], "BCF2000 20:0"),
        (["GS Synth 0", "BCF2000 1"], "BCF2000 1"),
        ([], None),
    ],
)
def test_the_output_of_the_same_name_is_used(controls, surface, monkeypatch, caplog, outputs, opened):
    caplog.set_level(logging.INFO, "fauve")
    monkeypatch.setattr("pipeline.midi.output_names", lambda: outputs)
    Midi(controls, "", surface.map).close()
    assert [output.name for output in surface.outputs] == ([opened] if opened else [])
    assert caplog.records[0].levelno == logging.INFO
    assert caplog.messages[0] == (
        "the lights and faders of BCF2000 20:0 show what is set"
        if opened
        else "there is no MIDI output BCF2000, whose lights and faders would show what is set"
    )


def test_an_output_that_cannot_be_opened_is_one_line(controls, surface, monkeypatch, caplog):
    def taken(name):
        raise OSError("another program has it")

    monkeypatch.setattr("mido.open_output", taken)
    midi = Midi(controls, "", surface.map)
    surface.inputs[0].send(control_change(21, 0))
    assert controls.state["strength"] == 0
    midi.close()
    assert caplog.messages == [
        "the lights and faders of BCF2000 20:0 cannot show what is set: another program has it"
    ]


def test_a_map_in_no_folder_is_one_line(controls, tmp_path):
    with pytest.raises(SinkError, match=r"map\.json: there is no folder"):
        Midi(controls, "", tmp_path / "none" / "map.json")


def test_a_map_that_cannot_be_written_is_said_and_the_knob_turns(controls, tmp_path, caplog):
    folder = tmp_path / "stick"
    folder.mkdir()
    midi = Midi(controls, "no such device", folder / "map.json")
    folder.rmdir()
    midi.learn("strength")
    midi.take(message("control_change", channel=0, control=21, value=0))
    midi.close()
    assert controls.state["strength"] == 0
    waiting, *said = caplog.messages
    assert re.fullmatch(r"no MIDI .*; it is waited for", waiting)
    assert said == [f"{folder}/map.json: what MIDI has learned cannot be kept: No such file or directory"]


def test_a_fader_for_a_style_that_the_pack_lacks_is_ten_lines(controls, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("pipeline.controls.COMPLAINTS_WITHIN", 300.0)
    path = tmp_path / "map.json"
    path.write_text('{"control 1/21": "mix/gone"}')
    midi = Midi(controls, "no such device", path)
    caplog.clear()
    try:
        for value in range(128):
            midi.take(message("control_change", channel=0, control=21, value=value))
    finally:
        midi.close()
    assert caplog.messages == ["MIDI control 1/21: no style 'gone' here; there is warm, cold"] * 10


def test_what_is_no_osc_is_one_line(controls, caplog, capsys):
    from pythonosc.osc_message_builder import build_msg

    from pipeline.osc import Osc

    osc = Osc(controls, "127.0.0.1", 0, None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", osc.port))
        client.send(b"/fauve/\xff\xfe\0\0\0,f\0\0\0\0\0\0")
        client.send(build_msg("/fauve/strength", 0.25).dgram)
        wait_for(lambda: controls.state["strength"] == 0.25)
    osc.close()
    (record,) = caplog.records
    assert "OSC from 127.0.0.1: a packet that cannot be read" in record.getMessage()
    assert "Traceback" not in capsys.readouterr().err


def test_osc_that_is_cut_off_or_means_nothing_is_refused(controls, caplog):
    from pythonosc.osc_message_builder import build_msg

    from pipeline.osc import Osc

    whole = build_msg("/fauve/strength", 0.7).dgram
    osc = Osc(controls, "127.0.0.1", 0, None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", osc.port))
        for cut in (whole[:-4], whole[:-1], build_msg("/fauve/freeze", "perhaps").dgram):
            client.send(cut)
        wait_for(lambda: len(caplog.records) == 3)
        assert controls.state["strength"] == 1
        assert not controls.state["freeze"]
        # Without a type tag, as the oldest senders send it.
        client.send(b"/fauve/panic\0\0\0\0")
        wait_for(lambda: controls.state["blackout"])
        client.send(whole)
        wait_for(lambda: controls.state["strength"] == pytest.approx(0.7))
    osc.close()
    assert len(caplog.records) == 3
    assert "freeze is on or off, not 'perhaps'" in caplog.text


def bundle(*elements):
    """A bundle of OSC to be done at once, each element behind its size."""
    sized = (len(element).to_bytes(4, "big") + element for element in elements)
    return b"#bundle\0" + bytes(7) + b"\1" + b"".join(sized)


def test_what_is_no_osc_in_a_bundle_is_one_line_of_ten_at_most(controls, caplog):
    from pythonosc.osc_message_builder import build_msg

    from pipeline.osc import Osc

    weaker, black = build_msg("/fauve/strength", 0.25).dgram, build_msg("/fauve/blackout", 1).dgram
    unreadable = (
        bundle() + (-4).to_bytes(4, "big", signed=True),
        bundle(weaker)[:-4],
        bundle(weaker, *[b""] * 1000),
        bundle(b"/fauve/strength\0,Sf\0warm\0\0\0\0\x3f\0\0\0"),
    )
    osc = Osc(controls, "127.0.0.1", 0, None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", osc.port))
        for packet in unreadable * 5:
            client.send(packet)
        client.send(bundle(bundle(weaker), black))
        wait_for(lambda: controls.state["blackout"])
    osc.close()
    assert controls.state["strength"] == 0.25
    said = "OSC from 127.0.0.1: a packet that cannot be read: "
    assert len(caplog.messages) == 10
    assert all(message.startswith(said) for message in caplog.messages)
    assert caplog.messages[0] == caplog.messages[1] == f"{said}a bundle is cut off"
    assert caplog.messages[3] == f"{said}/fauve/strength has values of the unknown type S"


def test_osc_has_a_button_for_each_style(three, caplog):
    from pythonosc.udp_client import SimpleUDPClient

    from pipeline.osc import Osc

    taken = []
    osc = Osc(three, "127.0.0.1", 0, None)
    three.listen(lambda state: taken.append(max(state["mix"], key=state["mix"].get)))
    with SimpleUDPClient("127.0.0.1", osc.port) as client:
        for address, value in (
            ("style/cold", 1),
            ("style/warm", 0),
            ("style/warm", 0.0),
            ("style/warm", []),
            ("style/next", 1.0),
            ("style/next", 0.0),
            ("style/next", []),
            ("style/previous", 1),
            ("style/previous", 1),
            ("style", "next"),
            ("style/gone", 1),
            ("style/warm", 3),
            ("style/cold", 1),
        ):
            client.send_message(f"/fauve/{address}", value)
        wait_for(lambda: len(taken) == 8)
    osc.close()
    assert taken == ["cold", "warm", "next", "cold", "next", "warm", "next", "cold"]
    assert caplog.messages == [
        "OSC /fauve/style/gone from 127.0.0.1: no style 'gone' here; there is warm, next, cold",
        "OSC /fauve/style/warm from 127.0.0.1: style/warm is on or off, not 3",
    ]


def test_osc_in_and_out(controls):
    from pythonosc.osc_message import OscMessage
    from pythonosc.udp_client import SimpleUDPClient

    from pipeline.osc import Osc

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(5)
        osc = Osc(controls, "127.0.0.1", 0, ear.getsockname())
        with SimpleUDPClient("127.0.0.1", osc.port) as client:
            client.send_message("/fauve/strength", 0.7)
            wait_for(lambda: controls.state["strength"] == pytest.approx(0.7))
            client.send_message("/fauve/strength", 7.0)
            client.send_message("/fauve/nonsense", 7.0)
            client.send_message("/fauve/mix/cold", 0.25)
            wait_for(lambda: controls.state["mix"]["cold"])
            client.send_message("/fauve/panic", [])
            wait_for(lambda: controls.state["blackout"])
        assert controls.state["mix"] == {"warm": 1, "cold": 0.25}
        heard = {}
        while "/fauve/blackout" not in heard or heard["/fauve/blackout"] == [0]:
            told = OscMessage(ear.recv(1024))
            heard[told.address] = told.params
        assert heard["/fauve/strength"] == [pytest.approx(0.7)]
        osc.close()


def test_a_style_that_another_pack_lacks_has_no_share_on_any_controller(controls, surface):
    from pythonosc.osc_message import OscMessage

    from pipeline.osc import Osc

    controls.set("style", "cold")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(10)
        osc, midi = Osc(controls, "127.0.0.1", 0, ear.getsockname()), Midi(controls, "bcf", surface.map)
        (output,) = surface.outputs
        controls.set("strength", 0.5)

        def told(pack):
            heard = {}
            while heard.get("/fauve/pack") != pack or "/fauve/style" not in heard:
                message = OscMessage(ear.recv(1024))
                heard = {} if message.address == "/fauve/strength" else heard
                heard[message.address] = message.params[0]
            return {address: share for address, share in heard.items() if "/mix/" in address}

        assert told("pack") == {"/fauve/mix/warm": 0, "/fauve/mix/cold": 1}
        wait_for(lambda: pitch(8191) in output.sent and note(36, 127) in output.sent)
        controls.swapped("other", ("warm", "new"), Look())
        assert told("other") == {"/fauve/mix/warm": 1, "/fauve/mix/cold": 0, "/fauve/mix/new": 0}
        wait_for(lambda: output.sent[-2:] == [pitch(-8192), note(36, 0)])
        osc.close()
        midi.close()


def test_osc_takes_many_messages_in_order_and_tells_the_last(controls):
    from pythonosc.osc_message import OscMessage
    from pythonosc.udp_client import SimpleUDPClient

    from pipeline.osc import Osc

    taken = []
    controls.listen(lambda state: taken.append(state["strength"]))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(5)
        osc = Osc(controls, "127.0.0.1", 0, ear.getsockname())
        with SimpleUDPClient("127.0.0.1", osc.port) as client:
            for number in range(400):
                client.send_message("/fauve/strength", number / 400)
                if number % 50 == 49:
                    wait_for(lambda number=number: len(taken) == number + 1)
        heard = []
        while not heard or heard[-1] != pytest.approx(399 / 400):
            told = OscMessage(ear.recv(1024))
            heard += told.params if told.address == "/fauve/strength" else []
        osc.close()
    assert taken == sorted(taken)
    assert len(heard) < 200


def test_a_listener_that_osc_cannot_reach_is_one_line(controls):
    from pipeline.osc import Osc

    with pytest.raises(
        SinkError, match=r"^--osc-reply \[::1\]:9: cannot be sent to from where --osc listens: "
    ):
        Osc(controls, "127.0.0.1", 0, ("::1", 9))


def test_a_name_that_no_host_has_is_one_line_of_osc(controls):
    from pipeline.osc import Osc

    with pytest.raises(SinkError, match=r"^--osc 10\.0\.\.1:9000: cannot listen there: .*label"):
        Osc(controls, "10.0..1", 9000, None)
    with pytest.raises(SinkError, match=r"^--osc-reply 10\.0\.\.1:9: cannot be sent to .*label"):
        Osc(controls, "127.0.0.1", 0, ("10.0..1", 9))


def test_osc_tells_of_a_pack_whose_name_is_no_text():
    from pythonosc.osc_message import OscMessage

    from pipeline.osc import Osc

    controls = Controls("tr\udce4um", ("warm",), Look({"warm": 1.0}))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(5)
        osc = Osc(controls, "127.0.0.1", 0, ear.getsockname())
        controls.set("strength", 0.5)
        heard = {}
        while "/fauve/style" not in heard:
            told = OscMessage(ear.recv(1024))
            heard[told.address] = told.params
        osc.close()
    assert heard["/fauve/pack"] == ["tr?um"]


def test_what_osc_brings_does_nothing_to_the_terminal(controls, caplog):
    from pythonosc.osc_message_builder import build_msg

    from pipeline.osc import Osc

    osc = Osc(controls, "127.0.0.1", 0, None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", osc.port))
        client.send(build_msg("/fauve/\x1b[2J", 1).dgram)
        client.send(b"/fauve/style\0\0\0\0,\x1b\0\0")
        wait_for(lambda: len(caplog.records) == 2)
    osc.close()
    assert all(message.isprintable() and "not printable" in message for message in caplog.messages)


def test_osc_at_an_address_of_ipv6_reaches_who_has_none(controls, ipv6):
    from pipeline.osc import Osc

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(5)
        osc = Osc(controls, "::", 0, ear.getsockname())
        controls.set("strength", 0.5)
        assert ear.recv(1024).startswith(b"/fauve/")
        osc.close()


def test_a_thousand_messages_that_are_wrong_are_ten_lines(controls, caplog, monkeypatch):
    from pythonosc.udp_client import SimpleUDPClient

    from pipeline.osc import Osc

    monkeypatch.setattr("pipeline.controls.COMPLAINTS_WITHIN", 300.0)
    osc = Osc(controls, "127.0.0.1", 0, None)
    try:
        with SimpleUDPClient("127.0.0.1", osc.port) as client:
            for number in range(1000):
                client.send_message(f"/fauve/{number}", 7.0)
                if number % 50 == 49:
                    wait_for(lambda number=number: osc._complaints.untold == number - 9)
            assert len(caplog.records) == 10
            osc._complaints._said.clear()
            client.send_message("/fauve/strength", 7.0)
            wait_for(lambda: not osc._complaints.untold)
    finally:
        osc.close()
    assert caplog.messages[-1].endswith("not 7 (and 990 more messages before)")


def test_a_bundle_is_as_large_as_udp_has_them(controls, caplog):
    from pythonosc.osc_bundle_builder import OscBundleBuilder
    from pythonosc.osc_message_builder import build_msg
    from pythonosc.udp_client import SimpleUDPClient

    from pipeline.osc import Osc

    bundle = OscBundleBuilder(0)
    for number in range(1000):
        bundle.add_content(build_msg("/fauve/strength", number / 1000))
    whole = bundle.build()
    assert whole.size > 20_000
    osc = Osc(controls, "127.0.0.1", 0, None)
    try:
        with SimpleUDPClient("127.0.0.1", osc.port) as client:
            client.send(whole)
            wait_for(lambda: controls.state["strength"] == pytest.approx(0.999) or caplog.records)
    finally:
        osc.close()
    assert caplog.messages == []


def test_whoever_asks_and_has_gone_is_not_told_of(capfd):
    metrics, page = Metrics(lambda: STATUS, "127.0.0.1", 0), PreviewPage()
    try:
        for url, asked in (
            (metrics.url, b"GET /met"),
            (page.url, b"GET /stream HTTP/1.1\r\nHost: ::1\r\n\r\n"),
        ):
            with socket.create_connection(("127.0.0.1", urlsplit(url).port)) as asking:
                # Closed like that, the connection is reset.
                asking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                asking.sendall(asked)
        time.sleep(0.2)
    finally:
        metrics.close()
        page.close()
    assert capfd.readouterr().err == ""


def test_metrics_of_a_file_whose_name_is_no_text():
    metrics = Metrics(lambda: {**STATUS, "sinks": {"\udce4": STATUS["sinks"]["panel"]}}, "127.0.0.1", 0)
    try:
        assert b'{sink="?"}' in get(metrics.url)[1]
    finally:
        metrics.close()


def test_metrics():
    text = exposition(STATUS)
    assert "# TYPE fauve_frames_in_total counter\nfauve_frames_in_total 90\n" in text
    assert "\nfauve_repeated_total 5\n" in text
    assert 'fauve_latency_seconds{sink="panel",quantile="0.95"} 0.03\n' in text
    assert 'fauve_sink_dropped_total{sink="panel"} 0\n' in text
    assert "fauve_up 1\n" in text
    assert exposition({**STATUS, "sinks": {'a"\nb': STATUS["sinks"]["panel"]}}).count('{sink="a\\"\\nb"') == 7
    assert "fauve_source_reconnects_total 1\n" in text
    assert 'fauve_sink_reconnects_total{sink="panel"} 2\n' in text
    assert "fauve_engine_restarts_total 0\n" in text
    # After ten hours, each frame still counts.
    assert "\nfauve_frames_in_total 1234567\n" in exposition({**STATUS, "frames_in": 1_234_567})


def test_a_pack_that_is_refused_is_told_and_the_show_is_up():
    assert "fauve_up 1\n" in exposition({**STATUS, "refused": {"nope": "nope: no such pack"}})
    assert "fauve_up 0\n" in exposition({**STATUS, "problem": "the engine failed"})


@pytest.fixture
def pack(tmp_path):
    tiny_pack(tmp_path / "tiny")
    return str(tmp_path / "tiny")


def started(*arguments, words, count):
    """A live run, and the addresses that follow on `words` in what it says."""
    process = subprocess.Popen(
        [*FAUVE, "live", "test:", *SIZE, *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )
    STARTED.append(process)
    found = []
    while len(found) < count:
        line = process.stderr.readline()
        assert line, "it ended"
        found += [line.split()[-1] for word in words if word in line]
    return process, found


def test_a_run_without_any_input_has_no_keys(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert not has_keys()


@pytest.mark.skipif(os.name == "nt", reason="pseudo terminals")
def test_a_terminal_that_is_closed_ends_the_keys_alone(controls, monkeypatch):
    leader, follower = pty.openpty()
    failed = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    with os.fdopen(follower, "r") as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        keyboard = Keyboard(controls, threading.Event())
        os.close(leader)
        keyboard._thread.join(10)
        assert not keyboard._thread.is_alive()
        # The terminal takes no settings any more, either.
        keyboard.close()
    assert failed == []


@pytest.mark.skipif(os.name == "nt", reason="pseudo terminals")
def test_the_terminal_takes_keys(pack):
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*FAUVE, "live", "test:", *SIZE, "-s", pack, "--preview", ":0"],
        stdin=follower,
        stderr=subprocess.PIPE,
        text=True,
    )
    while "the picture is at" not in process.stderr.readline():
        pass
    # It listens once the terminal does not show what is typed.
    wait_for(lambda: not termios.tcgetattr(follower)[3] & termios.ECHO, 30)
    os.write(leader, b"q")
    try:
        _, err = process.communicate(timeout=10)
        assert process.returncode == 0, err
    finally:
        process.kill()
        os.close(leader)
        os.close(follower)
    assert not select.select([], [], [], 0)[0]


def test_a_show_that_is_ended_by_a_key_as_it_begins_ends_like_any_other(tmp_path, pack, monkeypatch):
    monkeypatch.setattr("pipeline.commands.live.has_keys", lambda: True)
    monkeypatch.setattr(LiveRun, "listen_to_keys", lambda run: run.stop.set())
    arguments = ["test:", *SIZE, "-s", str(pack), "-o", str(tmp_path / "out.mkv"), "--quiet"]
    with live.make_context("live", arguments) as context:
        live.invoke(context)
    assert read_video(tmp_path / "out.mkv").images


@pytest.mark.skipif(os.name == "nt", reason="pseudo terminals")
def test_the_status_keeps_to_one_line_that_others_write_over(capsys, monkeypatch):
    columns = 60
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(handler)
    sinks = {f"a_rather_long_name_{number}.mkv": STATUS["sinks"]["panel"] for number in range(3)}
    try:
        with _status(False, False) as show:
            show({**STATUS, "sinks": sinks, "refused": {"nope": "nope: no such pack"}})
            logging.getLogger("fauve").warning("a server is lost")
        logging.getLogger("fauve").warning("over")
    finally:
        logging.getLogger().removeHandler(handler)
    before, line, *said = capsys.readouterr().err.split("\r\x1b[K")
    assert (before, len(line)) == ("", columns - 1)
    assert line.startswith("! nope: no such pack  30 fps in")
    assert said == ["a server is lost\n", "over\n"]


@pytest.mark.skipif(os.name == "nt", reason="pseudo terminals")
@needs("bash")
def test_in_the_background_of_a_terminal_it_goes_on_without_keys(pack):
    child, terminal = pty.fork()
    if child == 0:
        os.execvp("bash", ["bash", "--norc", "-i"])
    command = [*FAUVE, "live", "test:", *SIZE, "-s", pack, "--preview", ":0", "--duration", "2s"]
    os.write(terminal, (" ".join(command) + " &\n").encode())
    said, end = b"", time.monotonic() + 60
    try:
        while not re.search(rb"\d+ frames in", said):
            assert time.monotonic() < end, said
            assert b"Stopped" not in said
            if select.select([terminal], [], [], 0.1)[0]:
                said += os.read(terminal, 4096)
            else:
                os.write(terminal, b"\n")  # the shell tells of its jobs before it asks again
    finally:
        # It hangs up on what it has started.
        os.kill(child, signal.SIGHUP)
        os.close(terminal)
        os.waitpid(child, 0)


@pytest.mark.skipif(os.name == "nt", reason="pseudo terminals")
def test_a_terminal_that_a_shell_has_set_back_takes_keys_again(controls, monkeypatch):
    leader, follower = pty.openpty()
    with os.fdopen(follower, "r") as terminal:
        before = termios.tcgetattr(follower)
        monkeypatch.setattr("sys.stdin", terminal)
        keyboard = Keyboard(controls, threading.Event())
        # As it does for its own prompt, when Ctrl-Z has stopped what it started.
        termios.tcsetattr(follower, termios.TCSADRAIN, before)
        os.write(leader, b"f")
        wait_for(lambda: controls.state["freeze"])
        keyboard.close()
        assert termios.tcgetattr(follower) == before
    os.close(leader)


@pytest.mark.skipif(os.name == "nt", reason="pseudo terminals")
def test_a_terminal_that_is_closed_does_not_end_the_show(monkeypatch):
    leader, follower = pty.openpty()
    said = 0
    with contextlib.suppress(OSError), os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        handler = logging.StreamHandler(terminal)
        logging.getLogger().addHandler(handler)
        try:
            with _status(False, False) as show:
                os.close(leader)
                show(STATUS)
                said += 1
                logging.getLogger("fauve").warning("a server is lost")
                said += 1
            say(False, "88 frames in 3.0 s")
            said += 1
        finally:
            logging.getLogger().removeHandler(handler)
    assert said == 3


def test_an_address_with_a_token_is_told_however_quiet_it_is(pack):
    process, (panel, metrics) = started(
        *["-s", pack, "--panel", "0.0.0.0:0", "--metrics", "0.0.0.0:0", "--preview", ":0", "-q"],
        words=["the panel is at", "metrics are at"],
        count=2,
    )
    assert get(panel)[0] == get(metrics)[0] == 200
    assert panel.partition("?")[2] == metrics.partition("?")[2]
    process.terminate()
    _, err = process.communicate(timeout=15)
    assert "the picture is at" not in err


def test_a_stream_key_is_in_no_page_and_no_line(pack):
    server = f"rtmp://127.0.0.1:{free_port()}"
    outputs = [word for key in ("secret-1", "secret-2") for word in ("-o", f"{server}/live/{key}")]
    process, (page, metrics) = started(
        *["-s", pack, *outputs, "--preview", ":0", "--metrics", ":0"],
        words=["the picture is at", "metrics are at"],
        count=2,
    )
    names = [f"{server}/…", f"{server}/… (2)"]

    def state():
        return json.loads(get(page + "state")[1])["live"]

    wait_for(lambda: all(f"{name}: " in state()["problem"] for name in names), 30)
    told = json.dumps(state()) + get(metrics)[1].decode()
    for name in names:
        assert f'fauve_sink_dropped_total{{sink="{name}"}}' in told
    process.terminate()
    _, err = process.communicate(timeout=30)
    for name in names:
        assert f"{name} is lost (Connection refused)" in err
        assert f"{name}: 0 frames" in err
    assert "secret" not in told + err


def test_a_token_is_explained():
    said = " ".join(fauve("live", "--help").stdout.split())
    assert "FAUVE_TOKEN" in said
    assert "Delete that file" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--osc-reply", "127.0.0.1:9"], ["--osc-reply needs --osc"]),
        (["--crossfade", "90s"], ["--crossfade", "60s at most"]),
        (["--midi", "x", "--midi-map", "none/map.json"], ["none/map.json", "there is no folder"]),
    ],
)
def test_what_could_not_work_is_one_line(pack, tmp_path, arguments, words):
    result = fauve("live", "test:", *SIZE, "-s", pack, "-o", tmp_path / "x.mkv", *arguments)
    assert_one_line(result, *words)
    assert not (tmp_path / "x.mkv").exists()


@contextlib.contextmanager
def browsing(url, size=(1200, 800)):
    """A browser at `url` whose page has `size` pixels."""
    browser = chromium(size)
    try:
        browser.get(url)
        yield browser
    finally:
        browser.quit()


def screenshot(browser, name):
    """Keep what is seen, if somebody wants to look at it."""
    folder = os.environ.get("FAUVE_SCREENSHOTS")
    if folder:
        browser.save_screenshot(f"{folder}/{name}.png")


SEEN = "const box = document.querySelector('#lost').getBoundingClientRect(); return [box.top, box.height]"


@needs("chromium", "chromedriver")
@pytest.mark.skipif(os.name == "nt", reason="SIGSTOP")
def test_a_phone_sees_that_the_link_is_lost_and_no_tap_is_late(pack):
    process, (panel,) = started("-s", pack, "--panel", ":0", words=["the panel is at"], count=1)
    with browsing(panel, (400, 500)) as browser:
        wait_for(lambda: len(browser.find_elements("css selector", ".style")) == 2)
        screenshot(browser, "phone")
        pressed = "return document.querySelector('#blackout').getAttribute('aria-pressed')"
        assert browser.execute_script(pressed) == "false"
        browser.execute_script("scrollTo(0, document.documentElement.scrollHeight)")
        process.send_signal(signal.SIGSTOP)
        try:
            wait_for(lambda: browser.execute_script(SEEN)[1] > 10)
            assert browser.execute_script(SEEN)[0] == 0
            assert browser.execute_script("return scrollY") > 0
            screenshot(browser, "phone-lost")
            browser.execute_script("document.querySelector('#blackout').click()")
        finally:
            process.send_signal(signal.SIGCONT)
        wait_for(lambda: browser.execute_script(SEEN)[1] == 0, 30)
        assert browser.execute_script(pressed) == "false"
        browser.execute_script("document.querySelector('#blackout').click()")
        wait_for(lambda: browser.execute_script(pressed) == "true")
    process.terminate()
    process.communicate(timeout=15)


@needs("chromium", "chromedriver")
def test_a_tap_says_what_is_wanted_and_an_error_can_be_read(panel, controls):
    taken = []
    take, panel._take = panel._take, lambda message: (taken.append(message), take(message))
    with browsing(panel.url) as browser:
        wait_for(lambda: browser.find_elements("css selector", ".style"))
        browser.find_element("id", "freeze").click()
        wait_for(lambda: controls.state["freeze"])
        assert taken == [{"set": "freeze", "value": True}]
        # It outlasts the reports of how it goes.
        browser.execute_script(
            """window.reports = 0;
            new MutationObserver(() => reports++).observe(at("status"), {childList: true});
            send({set: "style", value: "gone"})"""
        )
        wait_for(lambda: "no style 'gone'" in browser.find_element("id", "error").text)
        wait_for(lambda: browser.execute_script("return reports") >= 4)
        assert "no style 'gone'" in browser.find_element("id", "error").text
        wait_for(lambda: not browser.find_element("id", "error").text)


@needs("chromium", "chromedriver")
def test_a_pack_that_is_loaded_takes_no_slider_from_under_a_finger(panel, controls, monkeypatch):
    monkeypatch.setattr("pipeline.panel.thumbnails", lambda engine: {"warm": "data:,1", "cold": "data:,2"})
    with browsing(panel.url) as browser:
        wait_for(lambda: browser.find_elements("css selector", ".style"))
        browser.execute_script("window.touched = document.querySelector('.style input')")
        panel.show_styles("other", None)
        wait_for(lambda: browser.execute_script("return 'other' in pictures"))
        controls.set("strength", 0.25)
        wait_for(lambda: browser.execute_script("return state.strength") == 0.25)
        assert browser.execute_script("return touched.isConnected")
        # Its own come as soon as anything is shown.
        panel.show_styles("pack", None)
        controls.set("strength", 0.5)
        wait_for(lambda: len(browser.find_elements("css selector", ".style img")) == 2)


@needs("chromium", "chromedriver")
@pytest.mark.parametrize("size", [(1200, 800), (400, 850)])
def test_midi_learns_what_is_touched_on_the_page(controls, tmp_path, size):
    from pipeline.panel import Panel

    actions = pytest.importorskip("selenium.webdriver", reason="needs selenium").ActionChains
    midi = Midi(controls, "no such device", tmp_path / "map.json")
    panel = Panel(controls, lambda: STATUS, "127.0.0.1", 0, midi=midi)
    told = []
    controls.listen(told.append)
    learned = [
        ("label:has(#strength)", "strength", 1),
        ("[data-style=cold]", "mix/cold", 2),
        ("[data-style=cold] button", "style=cold", 3),
        ("#blackout", "blackout", 4),
        ("#only button:nth-child(3)", "hold blackout", 5),
        ("#only button:nth-child(5)", "style next", 6),
    ]
    with browsing(panel.url, size) as browser:
        said = browser.find_element("id", "midi")
        wait_for(lambda: browser.find_elements("css selector", ".style"))
        assert not browser.find_element("id", "only").is_displayed()
        for touched, control, knob in learned:
            browser.find_element("id", "learn").click()
            wait_for(lambda: "Touch what" in said.text)
            screenshot(browser, f"learn-{size[0]}")
            element = browser.find_element("css selector", touched)
            browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            # In the lower half of it, where a slider is.
            low = element.size["height"] // 4
            actions(browser).move_to_element_with_offset(element, 0, low).click().perform()
            wait_for(lambda control=control: f"for {control} (no MIDI" in said.text)
            screenshot(browser, f"waits-{size[0]}")
            assert midi.state["waits"] == control
            assert told == []
            midi.take(message("control_change", channel=0, control=knob, value=0))
            wait_for(lambda knob=knob, c=control: said.text == f"MIDI control 1/{knob} turns {c}")
            told.clear()
        assert json.loads((tmp_path / "map.json").read_text()) == {
            f"control 1/{knob}": control for _, control, knob in learned
        }
        # Whoever has changed their mind.
        for _ in range(2):
            browser.find_element("id", "learn").click()
        assert not said.text
        browser.find_element("id", "learn").click()
        browser.find_element("id", "freeze").click()
        # Until the page knows, the button would begin anew.
        wait_for(lambda: "for freeze (no MIDI" in said.text)
        assert midi.state["waits"] == "freeze"
        browser.find_element("id", "learn").click()
        wait_for(lambda: midi.state["waits"] is None)
        wait_for(lambda: not said.text)
        browser.find_element("id", "freeze").click()
        wait_for(lambda: controls.state["freeze"])
    panel.close()


@needs("chromium", "chromedriver")
@pytest.mark.parametrize("size", [(1200, 800), (400, 850)])
def test_nothing_that_is_reported_moves_what_can_be_touched(panel, size):
    """How it goes is told four times a second, in rows that come and go."""
    with browsing(panel.url, size) as browser:
        wait_for(lambda: browser.find_elements("css selector", "#status span"))
        moved = browser.execute_script(
            """const touched = [...document.querySelectorAll("section *")];
            const tops = () => touched.map(e => e.getBoundingClientRect().top);
            const s = JSON.parse(arguments[0]), before = tops();
            report({...s, sinks: {}});
            const fewer = tops();
            for (let n = 0; n < 8; n++) s.sinks["a_recording_with_a_name_".repeat(3) + n] = s.sinks.panel;
            report({...s, problem: "the engine failed: ".repeat(8) + "not_this_pack_either_".repeat(8)});
            tell("error", "no_such_style_".repeat(20));
            const page = document.documentElement;
            return [before.length, before, fewer, tops(), page.scrollWidth - page.clientWidth]""",
            json.dumps(STATUS),
        )
        screenshot(browser, f"problem-{size[0]}")
        count, before, fewer, more, beside = moved
        assert count > 10
        assert beside == 0
        assert before == fewer == more


@needs("chromium", "chromedriver")
def test_there_is_nothing_to_learn_without_midi(panel):
    with browsing(panel.url) as browser:
        wait_for(lambda: browser.find_elements("css selector", ".style"))
        assert not browser.find_element("id", "learn").is_displayed()


@needs("chromium", "chromedriver")
def test_a_page_tells_which_pack_is_on_its_way_whoever_asked_for_it(panel):
    with browsing(panel.url) as browser:
        wait_for(lambda: browser.find_elements("css selector", ".style"))
        shown = browser.execute_script(
            """const s = JSON.parse(arguments[0]);
            wanted = "slow";
            return arguments[1].map(told => {
              report({...s, ...told}); list();
              return [at("pack").value, at("loading").value, at("problem").textContent];
            })""",
            json.dumps(STATUS),
            [
                {"loading": "slow", "problem": "it is lost"},
                {"loading": "slow", "refused": {"other": "no pack"}},
                {"loading": "another", "refused": {}},
                {"refused": {"another": "none"}},
            ],
        )
        played = browser.execute_script("return state.pack")
        assert shown == [
            ["slow", "loading", "it is lost"],
            ["slow", "loading", "no pack"],
            ["another", "loading", ""],
            [played, "", "none"],
        ]


@needs("chromium", "chromedriver")
def test_the_pack_is_shown_and_chosen(pack, tmp_path):
    tiny_pack(tmp_path / "other")
    other = str(tmp_path / "other")
    process, (panel,) = started("-s", pack, "--panel", ":0", words=["the panel is at"], count=1)
    with browsing(panel) as browser:
        packs = browser.find_element("id", "pack")
        shown = "return [document.querySelector('#pack').value, document.querySelector('#loading').value]"
        wait_for(lambda: browser.execute_script(shown) == [pack, ""])
        options = [option.text for option in packs.find_elements("tag name", "option")]
        assert options == ["live", "studio", pack, "another…"]
        choose = "const p = arguments[0]; p.value = arguments[1]; p.dispatchEvent(new Event('change'))"
        browser.execute_script("window.prompt = () => arguments[0]", other)
        assert browser.execute_script(f"{choose}; {shown}", packs, "") == [other, "loading"]
        wait_for(lambda: browser.execute_script("return state.pack") == other, 30)
        wait_for(lambda: browser.execute_script(shown) == [other, ""])
        screenshot(browser, "packs")
        # One that is none is said, and the pack that is played is shown.
        browser.execute_script("window.prompt = () => 'none'")
        browser.execute_script(choose, packs, "")
        wait_for(lambda: "none" in browser.find_element("id", "problem").text)
        wait_for(lambda: browser.execute_script(shown) == [other, ""])
        browser.execute_script(choose, packs, pack)
        wait_for(lambda: browser.execute_script("return state.pack") == pack, 30)
    process.terminate()
    process.communicate(timeout=15)


@needs("chromium", "chromedriver")
def test_a_browser_turns_the_panel_and_osc_hears_of_it(pack, tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    from pythonosc.osc_message import OscMessage
    from selenium.webdriver.common.by import By

    osc_port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(10)
        process, (panel, metrics) = started(
            *["-s", pack, "--panel", ":0", "--metrics", ":0", "--osc", f":{osc_port}"],
            *["--osc-reply", f"127.0.0.1:{ear.getsockname()[1]}"],
            words=["the panel is at", "metrics are at"],
            count=2,
        )
        browser = chromium()
        try:
            browser.get(panel)
            wait_for(lambda: len(browser.find_elements(By.CSS_SELECTOR, ".style")) == 2)
            heard = {}

            def hears(address, value):
                while heard.get(address) != value:
                    told = OscMessage(ear.recv(1024))
                    heard[told.address] = told.params
                return True

            browser.find_elements(By.CSS_SELECTOR, ".style button")[1].click()
            assert hears("/fauve/style", ["cold"])
            slider = browser.find_element(By.ID, "strength")
            actions = webdriver.ActionChains(browser)
            actions.drag_and_drop_by_offset(slider, -slider.size["width"] // 4, 0).perform()
            while not 0.05 < heard.get("/fauve/strength", [1.0])[0] < 0.6:
                told = OscMessage(ear.recv(1024))
                heard[told.address] = told.params
            browser.find_element(By.ID, "blackout").click()
            assert hears("/fauve/blackout", [1])
            wait_for(lambda: "on" in browser.find_element(By.ID, "blackout").get_attribute("class"))
            # From elsewhere: the page shows it.
            from pythonosc.udp_client import SimpleUDPClient

            with SimpleUDPClient("127.0.0.1", osc_port) as client:
                client.send_message("/fauve/blackout", 0)
                client.send_message("/fauve/strength", 0.9)
            value = "return document.querySelector('#strength').value"
            wait_for(lambda: float(browser.execute_script(value)) == pytest.approx(0.9))
            # The picture moves.
            source = "return document.querySelector('#picture').src"
            before = browser.execute_script(source)
            wait_for(lambda: browser.execute_script(source) not in ("", before))
            wait_for(lambda: "fps" in browser.find_element(By.ID, "status").text)
            shot = os.environ.get("FAUVE_SCREENSHOTS")
            if shot:
                browser.save_screenshot(f"{shot}/panel.png")
                browser.set_window_size(420, 900)
                time.sleep(1)
                browser.save_screenshot(f"{shot}/panel-phone.png")
        finally:
            browser.quit()
        with urllib.request.urlopen(metrics, timeout=5) as answer:
            text = answer.read().decode()
        assert "fauve_painted_total" in text
        process.terminate()
        process.communicate(timeout=15)
        assert process.returncode == 0
