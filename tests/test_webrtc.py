"""WebRTC from fauve to fauve, to a browser, and to nobody."""

import asyncio
import gc
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace

import av
import numpy as np
import pytest

from pipeline.access import Access
from pipeline.address import shown
from pipeline.colour import Decoded
from pipeline.frame import Frame
from pipeline.serving import PageServer
from pipeline.sinks.webrtc import WhepSink, WhipSink, _Tracks
from pipeline.sources.live import Capture, open_source
from pipeline.sources.pattern import PatternSource, read_code
from pipeline.sources.whip import WhipSource
from pipeline.webrtc import Loop, bind, serve, signalling
from tests.packs import tiny_pack
from tests.parts import chromium, needs
from tests.test_cli import assert_one_line, fauve
from tests.test_live import (
    codes,
    free_port,
    nothing_keeps_running,
    report,
    start,
    until_it_listens,
    until_painted,
    wait_for,
    wait_until,
)

__all__ = ["nothing_keeps_running"]

aiortc = pytest.importorskip("aiortc", reason='WebRTC needs the extra "live"')
H264Encoder = pytest.importorskip("aiortc.codecs.h264").H264Encoder

PICTURE = ["--size", "640x360", "--fps", "15", "--strength", "0"]


@pytest.fixture(autouse=True)
def configuration(monkeypatch, tmp_path):
    """Where the token of a test is kept."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packs") / "tiny"
    tiny_pack(folder)
    return str(folder)


def test_one_sends_and_the_other_paints(pack, tmp_path):
    port, path = free_port(), tmp_path / "show.mkv"
    receiver = start(f"whip::{port}", "-s", pack, "--strength", "0", "-o", path, "--json")
    until_it_listens(port)
    sender = start("test:", *PICTURE, "-s", pack, "-o", f"whip:http://127.0.0.1:{port}/whip", "--json")
    painted = until_painted(receiver, 60)
    sender.terminate()
    sent, _ = report(sender)
    assert sent["problem"] == ""
    said = wait_for(receiver, "the sender has gone")
    # Another one comes: it goes on.
    again = start("test:", *PICTURE, "-s", pack, "-o", f"whip:http://127.0.0.1:{port}/whip", "--json")
    said += wait_for(receiver, "is back")
    until_painted(receiver, painted + 60)
    again.terminate()
    report(again)
    receiver.terminate()
    done, _ = report(receiver)
    assert "waits for a sender" in said
    numbers, times, loudness = codes(str(path))
    assert len(numbers) == done["frames"]
    assert times == sorted(set(times))
    read = [number for number in numbers if number is not None]
    assert len(set(read)) > 10
    assert max(loudness.values()) > 0.2


def test_a_server_that_is_not_there_is_asked_again(pack, tmp_path):
    port, path = free_port(), tmp_path / "show.mkv"
    url = f"whip:http://127.0.0.1:{port}/whip"
    done, err = report(
        start("test:", *PICTURE, "-s", pack, "-o", url, "-o", path, "--duration", "4s", "--json")
    )
    assert f"{shown(url)} is lost" in err
    assert "refused" in err
    numbers, _, _ = codes(str(path))
    assert len(numbers) == done["frames"] > 5


async def watched(url, frames):
    """Numbers of the next pictures at a WHEP address."""
    peer = aiortc.RTCPeerConnection()
    peer.addTransceiver("video", direction="recvonly")
    taken = asyncio.get_running_loop().create_future()
    peer.on("track", taken.set_result)
    await peer.setLocalDescription(await peer.createOffer())

    def post():
        request = urllib.request.Request(
            url, peer.localDescription.sdp.encode(), {"Content-Type": "application/sdp"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 201
            return answer.read().decode()

    answer = await asyncio.to_thread(post)
    await peer.setRemoteDescription(aiortc.RTCSessionDescription(answer, "answer"))
    track = await asyncio.wait_for(taken, 10)
    numbers = []
    while len(numbers) < frames:
        frame = await asyncio.wait_for(track.recv(), 10)
        numbers.append(read_code(frame.to_ndarray(format="rgb24")))
    await peer.close()
    return numbers


def test_two_players_watch(pack):
    port = free_port()
    process = start("test:", *PICTURE, "-s", pack, "-o", f"whep::{port}", "--json")
    until_it_listens(port)
    url = f"http://127.0.0.1:{port}/whep"

    async def both():
        return await asyncio.gather(watched(url, 40), watched(url, 40))

    for numbers in asyncio.run(both()):
        read = [number for number in numbers if number is not None]
        assert len(read) > 20
        assert read == sorted(read)
    for headers, status in (({"Origin": "http://evil.example"}, 403), ({}, 415)):
        with pytest.raises(urllib.error.HTTPError, match=str(status)):
            urllib.request.urlopen(urllib.request.Request(url, b"x", headers, method="POST"), timeout=5)
    process.terminate()
    report(process)


@needs("chromium", "chromedriver")
def test_a_browser_watches(pack):
    port = free_port()
    process = start("test:", *PICTURE, "-s", pack, "-o", f"whep::{port}", "--json")
    until_it_listens(port)
    browser = chromium()
    try:
        browser.get(f"http://127.0.0.1:{port}/")
        size = (
            "const v = document.querySelector('video'); return [v.videoWidth, v.videoHeight, v.currentTime]"
        )
        end = time.monotonic() + 20
        while not browser.execute_script(size)[2] > 1:
            assert time.monotonic() < end
            time.sleep(0.2)
        assert browser.execute_script(size)[:2] == [640, 360]
        script = """
            const v = document.querySelector("video"), c = document.createElement("canvas");
            [c.width, c.height] = [16, 9];
            c.getContext("2d").drawImage(v, 0, 0, 16, 9);
            return Array.from(c.getContext("2d").getImageData(0, 0, 16, 9).data)
        """
        before = np.array(browser.execute_script(script))
        wait_until(lambda: np.abs(np.array(browser.execute_script(script)) - before).mean() > 3)
    finally:
        browser.quit()
    process.terminate()
    report(process)


def test_what_goes_wrong_is_one_line(pack):
    assert_one_line(fauve("live", "test:", "-s", pack, "-o", "whep:nowhere"), "whep::8090")
    assert_one_line(fauve("live", "whip:what", "-s", pack, "-o", "x.mkv"), "whip::8090")
    for url, words in (
        ("http://a/x y?token=secret", "a space"),
        ("http://a:9x/?token=secret", "is no address"),
        ("http:///x?token=secret", "http://HOST/"),
    ):
        result = fauve("live", "test:", "-s", pack, "-o", f"whip:{url}")
        assert_one_line(result, words)
        assert "secret" not in result.stderr


def asked(url, method, body=b"", **headers):
    """Status and headers of the answer to a request."""
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


STUN = "stun.l.google.com"

SDP = {"Content-Type": "application/sdp"}


class Peer:
    """A stand-in for a connection."""

    connectionState = "connecting"  # noqa: N815, as aiortc has it

    async def close(self):
        """There is none."""


def test_each_session_is_ended_by_its_own_name_and_none_is_kept():
    peers, ended, loop = [], [], Loop("test")

    async def accept(offer):
        peers.append(Peer())
        return "answer", peers[-1]

    async def end(peer):
        ended.append(peers.index(peer))

    listening, _, url = bind("whep:127.0.0.1:0")
    access = Access("0.0.0.0")
    end_serving = serve(loop, listening, signalling("whep", access, accept, end))
    base, token = url.removesuffix("/whep"), access.url(0).partition("?")[2]
    bearer = {"Authorization": "Bearer " + token.removeprefix("token=")}
    # A player that was given the address with the token in it ends the session where it is told to.
    names = [asked(f"{url}?{token}", "POST", b"x", **SDP)[1]["Location"]]
    names.append(asked(url, "POST", b"x", **SDP, **bearer)[1]["Location"])
    assert asked(base + names[0], "DELETE")[0] == 200
    names.append(asked(url, "POST", b"x", **SDP, **bearer)[1]["Location"])
    # Nobody else ends it, and trying to does not keep its owner from it.
    assert asked(base + names[1], "DELETE")[0] == 404
    assert asked(base + names[1], "DELETE", **bearer)[0] == 200
    assert ended == [0, 1]
    # One who leaves without a word is forgotten.
    peers.clear()
    gc.collect()
    assert asked(f"{base}{names[2]}?{token}", "DELETE")[0] == 404
    end_serving()
    loop.close()


def test_an_offer_that_cannot_be_answered_leaves_no_viewer():
    sink = WhepSink("whep:127.0.0.1:0", PatternSource((64, 64)).info)
    for offer in (b"nonsense", b"v=0\r\nm=video what\r\n"):
        assert asked(sink.url, "POST", offer, **SDP)[0] == 400
    assert sink._peers == {}
    sink.close()


def test_what_a_viewer_is_too_slow_for_is_counted():
    sink, peer = WhepSink("whep:127.0.0.1:0", PatternSource((64, 64)).info), Peer()

    async def join():
        sink._peers[peer] = _Tracks(aiortc, sink._loop, sound=False)

    frames = [Frame(np.zeros((64, 64, 3), np.uint8), index, 1, Fraction(1, 30)) for index in range(4)]
    sink.write(frames[0])
    assert sink.left_out == 0, "nobody watches"
    sink._loop.run(join(), 5)
    for state, left_out in (("connecting", 0), ("connected", 3)):
        peer.connectionState = state
        for frame in frames:
            sink.write(frame)
            sink._loop.run(asyncio.sleep(0), 5)
        assert sink.left_out == left_out, "once it is there, the viewer never asks for one"
    sink.close()


async def offer_of_nobody():
    """The offer of a viewer who goes before there is an answer."""
    peer = aiortc.RTCPeerConnection()
    peer.addTransceiver("video", direction="recvonly")
    await peer.setLocalDescription(await peer.createOffer())
    offer = peer.localDescription.sdp
    await peer.close()
    return offer.encode()


@pytest.mark.parametrize(
    ("url", "asks"), [("http://127.0.0.1:1/whep", []), ("http://192.0.2.1:1/whep", [STUN])]
)
def test_google_is_asked_how_we_are_seen_only_where_somebody_is_outside(monkeypatch, url, asks):
    looked_up = []

    def nobody(host):
        looked_up.append(host)
        raise OSError("no such host")

    monkeypatch.setattr("pipeline.sinks.webrtc.bind", lambda address: (*bind(address)[:2], url))
    sink = WhepSink("whep:127.0.0.1:0", PatternSource((64, 64)).info)
    offer = asyncio.run(offer_of_nobody())
    monkeypatch.setattr("socket.gethostbyname", nobody)
    sink._loop.run(sink._accept(offer.decode()), 10.0)
    assert looked_up == asks
    sink.close()


def test_a_viewer_who_is_never_connected_is_forgotten(monkeypatch):
    monkeypatch.setattr("pipeline.webrtc.CONNECT_WITHIN", 3.0)
    sink = WhepSink("whep:127.0.0.1:0", PatternSource((64, 64)).info)
    assert asked(sink.url, "POST", asyncio.run(offer_of_nobody()), **SDP)[0] == 201
    assert len(sink._peers) == 1
    wait_until(lambda: not sink._peers)
    sink.close()


def test_a_sender_who_is_never_connected_is_forgotten(monkeypatch):
    monkeypatch.setattr("pipeline.webrtc.CONNECT_WITHIN", 3.0)
    port, accepting, accept = free_port(), [], WhipSource._accept
    monkeypatch.setattr(
        WhipSource, "_accept", lambda self, offer: (accepting.append(self), accept(self, offer))[1]
    )
    opening = threading.Thread(target=open_source, args=(f"whip::{port}",))
    opening.start()
    until_it_listens(port)
    url = f"http://127.0.0.1:{port}/whip"
    assert asked(url, "POST", asyncio.run(offer_of_nobody()), **SDP)[0] == 201
    (source,) = accepting
    assert len(source._peers) == 1
    wait_until(lambda: not source._peers)
    source._first.set()
    opening.join()
    source.close()


class Server:
    """Takes what is sent by WHIP; `there` says whether it can be reached once it has answered."""

    def __init__(self, there, host="127.0.0.1"):
        self.there, self.loop, self.peers, self.ended = there, Loop("test"), [], []
        listening, access, self.url = bind(f"whip:{host}:0")
        self.end_serving = serve(self.loop, listening, signalling("whip", access, self.accept, self.end))

    async def accept(self, offer):
        peer = aiortc.RTCPeerConnection()
        await peer.setRemoteDescription(aiortc.RTCSessionDescription(offer, "offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        answer = peer.localDescription.sdp
        if not self.there:
            await peer.close()
        self.peers.append(peer)
        return answer, peer

    async def end(self, peer):
        self.ended.append(self.peers.index(peer))
        await peer.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.end_serving()
        self.loop.close()


def test_a_server_that_the_show_ends_for_before_they_have_met_is_told():
    with Server(there=False) as server:
        sink = WhipSink(f"whip:{server.url}", PatternSource((64, 64)).info)
        wait_until(lambda: server.peers)
        sink.close()
        wait_until(lambda: server.ended)
        assert server.ended == [0]


def test_a_session_whose_connection_breaks_is_ended_before_the_next_begins():
    with Server(there=True) as server:
        sink = WhipSink(f"whip:{server.url}", PatternSource((64, 64)).info)
        for number in range(2):
            wait_until(lambda number=number: len(server.peers) > number and sink._connected)
            assert server.ended == list(range(number))
            server.loop.run(server.peers[number].close(), 20)
        sink.close()
        wait_until(lambda: len(server.ended) == len(server.peers))


def test_an_offer_goes_where_the_server_sends_it():
    with Server(there=False) as server:

        class Balancer(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(307)
                self.send_header("Location", server.url)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format, *args):
                pass

        balancer = PageServer("--test", "127.0.0.1", 0, Balancer)
        threading.Thread(target=balancer.serve_forever).start()
        address = f"whip:http://127.0.0.1:{balancer.server_port}/whip"
        sink = WhipSink(address, PatternSource((64, 64)).info)
        wait_until(lambda: server.peers)
        sink.close()
        wait_until(lambda: server.ended)
        balancer.shutdown()
        balancer.server_close()


def test_a_server_that_wants_a_token_is_said_how_to_give_it():
    with Server(there=False, host="0.0.0.0") as server:
        sink = WhipSink(f"whip:{server.url.partition('?')[0]}", PatternSource((64, 64)).info)
        wait_until(lambda: sink.lost)
        sink.close()
    assert sink.lost == "the server says 403; its token is given as ?token=TOKEN"


def test_a_picture_with_odd_sides_is_one_that_h264_has_a_place_for():
    sink, peer = WhepSink("whep:127.0.0.1:0", PatternSource((33, 17)).info), Peer()
    peer.connectionState = "connected"

    async def join():
        sink._peers[peer] = _Tracks(aiortc, sink._loop, sound=False)
        return sink._peers[peer]

    tracks = sink._loop.run(join(), 5)
    sink.write(Frame(np.full((17, 33, 3), 90, np.uint8), 0, 1, Fraction(1, 30)))
    picture = sink._loop.run(tracks.tracks[0].recv(), 5)
    sink.close()
    assert (picture.width, picture.height) == (34, 18)
    assert H264Encoder().encode(picture, force_keyframe=True)[0]


def test_a_server_that_the_picture_does_not_reach_is_lost(monkeypatch):
    monkeypatch.setattr("pipeline.sinks.webrtc.CONNECT_WITHIN", 0.5)
    server = Server(there=False)
    sink = WhipSink(f"whip:{server.url}", PatternSource((64, 64)).info)
    wait_until(lambda: sink.lost)
    assert sink.lost == "it has answered, but the picture finds no way to it"
    assert sink.reconnected == 0
    for number in range(3):
        sink.write(Frame(np.zeros((64, 64, 3), np.uint8), number, 1, Fraction(1, 30)))
    assert sink.left_out == 3
    # It may take nobody else until it knows that this one does not come.
    wait_until(lambda: 0 in server.ended)
    sink.close()
    with server:
        pass


def test_a_server_that_never_answers_does_not_hold_up_the_end():
    sending = """if True:
        import sys
        from pipeline.sinks import webrtc
        from pipeline.sources.pattern import PatternSource

        webrtc.ANSWER_WITHIN = 600.0
        sink = webrtc.WhipSink(sys.argv[1], PatternSource((64, 64)).info)
        sys.stdin.readline()
        sink.close()
        """
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"whip:http://127.0.0.1:{server.getsockname()[1]}/whip"
        process = subprocess.Popen([sys.executable, "-c", sending, address], stdin=subprocess.PIPE)
        asking, _ = server.accept()
        try:
            process.communicate(b"\n", timeout=60)
        finally:
            process.kill()
            asking.close()
    assert process.returncode == 0


class Numbered(aiortc.VideoStreamTrack):
    """The pattern from the picture `number` on."""

    def __init__(self, number):
        super().__init__()
        self.pattern, self.number = PatternSource((640, 360)), number

    async def recv(self):
        pts, time_base = await self.next_timestamp()
        frame = av.VideoFrame.from_ndarray(self.pattern.picture(self.number), format="rgb24")
        frame.pts, frame.time_base = pts, time_base
        self.number += 1
        return frame


async def sending(url, number, *others):
    """A connection that sends the pattern, and other tracks, to a WHIP address."""
    peer = aiortc.RTCPeerConnection()
    for track in (Numbered(number), *others):
        peer.addTrack(track)
    await peer.setLocalDescription(await peer.createOffer())
    request = urllib.request.Request(url, peer.localDescription.sdp.encode(), SDP, method="POST")
    with await asyncio.to_thread(urllib.request.urlopen, request, timeout=10) as answer:
        sdp = answer.read().decode()
    await peer.setRemoteDescription(aiortc.RTCSessionDescription(sdp, "answer"))
    return peer


def test_of_two_senders_the_newest_is_shown():
    port, loop = free_port(), Loop("senders")
    url, numbers = f"http://127.0.0.1:{port}/whip", []
    with ThreadPoolExecutor() as pool:
        opening = pool.submit(open_source, f"whip::{port}")
        until_it_listens(port)
        peers = [loop.run(sending(url, 0), 20)]
        source = opening.result(30)
        peers.append(loop.run(sending(url, 5000), 20))
    end = time.monotonic() + 60
    for frame in source:
        assert time.monotonic() < end
        numbers.append(read_code(frame.image))
        if sum(number is not None and number >= 5000 for number in numbers) == 20:
            break
    read = [number for number in numbers if number is not None]
    assert read == sorted(read)
    assert len(source._peers) == 1
    assert source.lost == ""
    source.close()
    for peer in peers:
        loop.run(peer.close(), 5)
    loop.close()


def test_sound_that_is_not_wanted_does_not_wait_in_its_track(monkeypatch):
    taken = []

    class Counted(aiortc.rtcrtpreceiver.RemoteStreamTrack):
        async def recv(self):
            taken.append(self.kind)
            return await super().recv()

    monkeypatch.setattr(aiortc.rtcpeerconnection, "RemoteStreamTrack", Counted)
    port, loop = free_port(), Loop("senders")
    with ThreadPoolExecutor() as pool:
        opening = pool.submit(open_source, f"whip::{port}", sound=False)
        until_it_listens(port)
        peer = loop.run(sending(f"http://127.0.0.1:{port}/whip", 0, aiortc.AudioStreamTrack()), 20)
        source = opening.result(30)
    assert source.info.sound is False
    wait_until(lambda: taken.count("audio") > 3)
    source.close()
    loop.run(peer.close(), 5)
    loop.close()


def test_a_sender_whose_place_is_taken_is_none_from_that_picture_on():
    """A picture of its own that had come before then is not shown after."""
    loop, closed = Loop("senders"), threading.Event()

    class Peer:
        async def close(self):
            closed.set()

    source, before, newest = WhipSource.__new__(WhipSource), Peer(), Peer()
    source.address, source._peers, source._taking = "whip::1", [before, newest], set()

    async def taken_over():
        source._take_over(newest)
        return list(source._peers)

    assert loop.run(taken_over(), 5) == [newest]
    assert closed.wait(5)
    loop.close()


def test_of_two_senders_one_is_heard(monkeypatch):
    """The one whose picture is shown: that of the other may take a while, or never come."""
    anchor = SimpleNamespace(place=lambda *times: 0.0, sound=lambda now, samples: [(samples, now)])
    monkeypatch.setattr("pipeline.sources.whip.Anchor", lambda: anchor)
    heard, shown_one, other = [], Peer(), Peer()
    source = WhipSource.__new__(WhipSource)
    Capture.__init__(source, "whip::1")
    source._sound, source._peers, source._first = True, [shown_one, other], threading.Event()
    source._first.set()
    source._aiortc = aiortc
    source._put_sound = lambda samples, counted, at: heard.append(samples)

    class Sound:
        def __init__(self, *pieces):
            self.pieces = list(pieces)

        async def recv(self):
            if not self.pieces:
                raise aiortc.MediaStreamError
            return SimpleNamespace(pts=0, time_base=Fraction(1, 48_000), of=self.pieces.pop())

    asyncio.run(source._take_sound(Sound("other"), other))
    asyncio.run(source._take_sound(Sound("shown"), shown_one))
    assert [samples.of for samples in heard] == ["shown"]


def test_the_time_for_which_a_sender_is_waited_for_is_none_of_the_run(monkeypatch):
    source, peer = WhipSource.__new__(WhipSource), SimpleNamespace()
    Capture.__init__(source, "whip::1")
    source._began -= 600
    source._sound, source._peers, source._first = True, [peer], threading.Event()
    source._aiortc, source._timeout, source._decoded = aiortc, 5.0, Decoded()
    pictures = [av.VideoFrame(64, 48, "yuv420p")]

    class Pictures:
        async def recv(self):
            if not pictures:
                raise aiortc.MediaStreamError
            return pictures.pop()

    asyncio.run(source._take_pictures(Pictures(), peer))
    frame = next(iter(source))
    assert 0 <= frame.time < 60


def test_what_takes_too_long_is_given_up():
    loop, given_up = Loop("test"), threading.Event()

    async def wait():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            given_up.set()
            raise

    with pytest.raises(TimeoutError):
        loop.run(wait(), 0.1)
    assert given_up.wait(5)
    loop.close()


def test_what_is_left_in_a_loop_ends_with_it():
    loop, begun, ended = Loop("test"), threading.Event(), []

    async def wait():
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    asyncio.run_coroutine_threadsafe(wait(), loop.loop)
    assert begun.wait(5)
    loop.close()
    assert ended == [True]
    assert loop.loop.is_closed()


def test_a_sender_that_falls_silent_is_lost_and_comes_back():
    port, over, silent = free_port(), threading.Event(), threading.Event()

    def send():
        until_it_listens(port)
        pattern = PatternSource((64, 48))
        whip = WhipSink(f"whip:http://127.0.0.1:{port}/whip", pattern.info)
        number = 0
        while not over.wait(0.05):
            if not silent.is_set():
                whip.write(Frame(pattern.picture(number), 3000 * number, 3000, pattern.info.time_base))
                number += 1
        whip.close()

    sender = threading.Thread(target=send)
    sender.start()
    with open_source(f"whip::{port}", timeout=1.0) as source:
        silent.set()
        wait_until(lambda: source.lost)
        assert source.lost == "the sender has fallen silent"
        silent.clear()
        wait_until(lambda: not source.lost)
        assert source.reconnected == 1
        over.set()
        sender.join()


def test_a_server_that_answers_nonsense_is_asked_again(monkeypatch):
    asked_for = []

    def connect(self):
        asked_for.append(time.monotonic())
        raise RuntimeError("what is this?")

    monkeypatch.setattr(WhipSink, "_connect", connect)
    sink = WhipSink("whip:http://127.0.0.1:9/whip", PatternSource((64, 64)).info)
    end = time.monotonic() + 20
    while len(asked_for) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    left_out = sink.left_out
    sink.write(Frame(np.zeros((64, 64, 3), np.uint8), 0, 1, Fraction(1, 30)))
    assert sink.left_out == left_out + 1
    sink.close()
    assert len(asked_for) >= 3
    assert sink.lost == "what is this?"


@needs("chromium", "chromedriver")
def test_the_page_of_a_viewer_connects_again_and_says_why_it_does_not(pack):
    port = free_port()
    show = ["test:", *PICTURE, "-s", pack, "-o", f"whep::{port}", "--json"]
    process = start(*show)
    until_it_listens(port)
    browser = chromium()

    def until(is_so):
        end = time.monotonic() + 60
        while not is_so():
            assert time.monotonic() < end, browser.find_element("tag name", "p").text
            time.sleep(0.1)

    def plays():
        """Whether the newest picture is shown, and nothing is complained of."""
        at = browser.execute_script("return document.querySelector('video').currentTime")
        return at > 0.5 and not browser.find_element("tag name", "p").text

    try:
        browser.get(f"http://127.0.0.1:{port}/")
        until(plays)
        process.kill()
        process.wait()
        until(
            lambda: "fauve does not answer; it is tried again" in browser.find_element("tag name", "p").text
        )
        again = start(*show)
        until(plays)
        again.terminate()
        report(again)
    finally:
        browser.quit()
