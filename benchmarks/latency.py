"""How old a live picture is when somebody sees it, and what a show may do to it.

    python -m benchmarks.latency [--only nut,rtmp,obs,obs-rtmp,load,controls,restarts,soak]

The test pattern carries the number of each frame in its pixels; a receiver in a process of its own decodes
what arrives, reads the number, and says when. RTMP goes through a real nginx, and OBS is a real one
(tests/install_parts.sh). That is six and a half minutes, and ten more for `soak`.
"""

import argparse
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

import engines
from benchmarks.machine import write_results
from engines import Image, Look, Size
from pipeline.address import shown
from pipeline.controls import Controls
from pipeline.deck import Deck
from pipeline.frame import Frame
from pipeline.governor import Governor
from pipeline.live import LiveRun, open_sink
from pipeline.obs import NAME, Link, Obs, nut_link, rtmp_link
from pipeline.scaling import resize
from pipeline.sinks import Sink
from pipeline.sources import Source
from pipeline.sources.live import open_source
from pipeline.sources.pattern import PatternSource, read_code, write_code
from pipeline.stats import percentiles

RESULT = Path(__file__).parent / "results" / "latency.json"

STYLE = "live"
LOOK = Look({"bauhaus": 1.0})
"""All styles cost the same; this one keeps light and dark, which the time code is read by, farthest apart."""
RATE = Fraction(30)
WARM_UP = 3.0
"""Seconds that are not counted: connecting, and the first pictures of everything."""

STARTS = 5
"""How often an OBS is started to be looked at."""

GLANCE = 0.05
"""Seconds between two looks at what OBS shows."""

BARS = {
    "nut": "motion JPEG in NUT: median at most 45 ms, 95th percentile at most 80 ms",
    "rtmp": "H.264 by RTMP: median at most 60 ms",
    "obs": "in OBS by NUT: median at most 120 ms",
    "obs-rtmp": "in OBS by RTMP: median at most 210 ms",
    "rate": "1280x720 at 30 fps is held (29.5), painted at 360 lines or more",
    "load": "with half of the machine: a new size within 2 s, from then on 28.5 fps, 95th percentile at most "
    "133 ms, which is a frame at each of four hops",
    "swap": "a change of style costs no more frames than none does",
    "pack": "nor does another pack, from when it is asked for until it has faded in",
    "crossfade": "no step between two frames of a crossfade is more than a tenth of the way",
    "messages": "1,000 control messages a second, all taken: 99 % of the frames that come without them",
    "restarts": "back within 3 s, ten times each for server and source, and the recording is whole",
    "memory": "at the end within 5 % of that after the first minute",
    "drops": "every frame is painted or counted as dropped, every painted one in the recording or counted",
    "sound": "flash and click within 40 ms of each other",
}

RECEIVER = """
import json, sys, time
import av
from pipeline.sources.pattern import read_code
url, format, options, seconds = sys.argv[1], sys.argv[2] or None, json.loads(sys.argv[3]), float(sys.argv[4])
container = None
while container is None or not container.streams.video:
    try:
        container = av.open(url, format=format, options=options, timeout=10)
    except av.error.FFmpegError:
        time.sleep(0.2)
video = container.streams.video[0]
video.thread_type = "SLICE"
video.codec_context.flags |= av.codec.context.Flags.low_delay
end = time.monotonic() + seconds
for frame in container.decode(video):
    now = time.monotonic()
    print(read_code(frame.to_ndarray(format="rgb24")), now, flush=True)
    if now > end:
        break
"""


class Captured(Sink):
    """Remembers when each frame was captured, by its number."""

    name = "captured"

    def __init__(self, rate: Fraction) -> None:
        self.at: dict[int, float] = {}
        self._rate = rate

    def write(self, frame: Frame) -> None:
        """Remember one frame."""
        if frame.captured_at is not None:
            self.at[round(frame.time * self._rate)] = frame.captured_at

    def mux(self, packet: Any) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def abort(self) -> None:
        """Nothing to do."""


class Watched(Sink):
    """Remembers small pictures of what is painted, and when each came, by the frame's number."""

    name = "watched"

    def __init__(self) -> None:
        self.pictures: list[tuple[float, int, NDArray[np.float32]]] = []

    def write(self, frame: Frame) -> None:
        """Remember one frame, without the row of its number."""
        small = resize(frame.image, (64, 36))[:-3].astype(np.float32)
        self.pictures.append((time.monotonic(), round(frame.time * RATE), small))

    def mux(self, packet: Any) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def abort(self) -> None:
        """Nothing to do."""

    def between(self, begin: float, end: float) -> list[tuple[float, int, NDArray[np.float32]]]:
        """What came between two times."""
        return [seen for seen in list(self.pictures) if begin <= seen[0] < end]


class Still(PatternSource):
    """A test pattern in which nothing moves but the number."""

    def __init__(self, size: Size) -> None:
        super().__init__(size, RATE)
        self._still = super().picture(10)

    def picture(self, number: int) -> Image:
        """Frame `number`."""
        image = self._still.copy()
        write_code(image, number)
        return image


class Show:
    """A live run of the test pattern, or another source, in this process, until `stop`."""

    def __init__(
        self,
        size: Size,
        outputs: Sequence[str],
        *,
        governed: bool = False,
        source: Source | None = None,
        watched: Sink | None = None,
    ) -> None:
        self.source = PatternSource(size, RATE) if source is None else source
        self.stop = threading.Event()
        pack = engines.load_style(STYLE)
        self.controls = Controls(STYLE, pack.styles, LOOK)
        self.governor = Governor(float(1 / RATE)) if governed else None
        self.deck = Deck(
            lambda name: engines.load("auto", style=name), STYLE, size, self.controls, governor=self.governor
        )
        self.captured = Captured(RATE)
        self.sinks = [*(open_sink(output, self.source.info, force=True) for output in outputs), self.captured]
        if watched is not None:
            self.sinks.append(watched)
        self.live = LiveRun(self.source, self.deck, self.controls, self.sinks, self.governor, self.stop)
        self.report: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.report = self.live.run(lambda status: None)

    def end(self) -> dict[str, Any]:
        """Stop it; its last status."""
        self.stop.set()
        self._thread.join()
        self.deck.close()
        return self.report


def received(size: Size, output: str, url: str, format: str, seconds: float) -> dict[str, Any]:
    """Latency from capture to decoded picture at a receiver, in ms, and what was lost on the way."""
    options = {"fflags": "nobuffer", "flags": "low_delay", "probesize": "32", "analyzeduration": "0"}
    if url.startswith("rtmp"):
        options = {"fflags": "nobuffer", "flags": "low_delay", "analyzeduration": "2500000"}
    arguments = [url, format, json.dumps(options), str(seconds + WARM_UP)]
    receiver = subprocess.Popen(
        [sys.executable, "-c", RECEIVER, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    time.sleep(1)
    show = Show(size, [output])
    out, _ = receiver.communicate()
    report = show.end()
    lines = [line.split() for line in out.splitlines()]
    arrived = [(int(number), float(at)) for number, at in lines if number != "None"]
    begin = arrived[0][1] + WARM_UP
    latencies = [
        at - show.captured.at[number] for number, at in arrived if at >= begin and number in show.captured.at
    ]
    p50, p95, p99 = (round(1000 * value, 1) for value in percentiles(latencies))
    return {
        "size": "{}x{}".format(*size),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "frames": len(latencies),
        "unreadable": sum(number == "None" for number, _ in lines),
        "fps": round(len(latencies) / (arrived[-1][1] - begin), 1),
        "dropped": report["dropped"] + report["sinks"][shown(output)]["dropped"],
    }


def nut(seconds: float) -> dict[str, Any]:
    """Motion JPEG in NUT by UDP on this machine."""
    return received(
        (640, 360), "nut+udp://127.0.0.1:48750", "udp://127.0.0.1:48750?buffer_size=4000000", "nut", seconds
    )


RTMP = "rtmp://127.0.0.1:48751/live/show"

RTMP_MODULE = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")


def rtmp(seconds: float) -> dict[str, Any] | None:
    """H.264 by RTMP through nginx on this machine; None where there is none."""
    program = shutil.which("nginx")
    if program is None or not RTMP_MODULE.exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        server = rtmp_server(program, Path(folder))
        time.sleep(0.5)
        try:
            return received((640, 360), RTMP, RTMP, "", seconds)
        finally:
            server.terminate()
            server.wait()


def rtmp_server(program: str, folder: Path) -> "subprocess.Popen[bytes]":
    """An nginx that takes `RTMP`, in one process, so that it can be killed."""
    config = folder / "nginx.conf"
    config.write_text(
        f"load_module {RTMP_MODULE}; master_process off; daemon off; pid {folder}/pid;\n"
        f"error_log {folder}/log;\n"
        "events { worker_connections 64; }\n"
        "rtmp { server { listen 48751; application live { live on; } } }\n"
    )
    return subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)


OBS_SETTINGS = """[General]
FirstRun=true
[OBSWebSocket]
FirstLoad=false
ServerEnabled=true
ServerPort=48753
AlertsEnabled=false
AuthRequired=true
ServerPassword=benchmark
"""


def obs(seconds: float) -> dict[str, Any] | None:
    """Into a real OBS by motion JPEG in NUT."""
    return shown_by_obs(seconds, nut_link())


def obs_rtmp(seconds: float) -> dict[str, Any] | None:
    """Into a real OBS that listens for RTMP."""
    return shown_by_obs(seconds, rtmp_link("127.0.0.1"))


def shown_by_obs(seconds: float, how: Link) -> dict[str, Any] | None:
    """In a real OBS, started `STARTS` times, because it begins up to two frames earlier or later; None
    where there is none."""
    if shutil.which("obs") is None or shutil.which("Xvfb") is None:
        return None
    starts = [watched_in_obs(seconds / STARTS, how) for _ in range(STARTS)]
    p50, p95, _ = (
        round(1000 * value, 1) for value in percentiles([age for ages, _ in starts for age in ages])
    )
    return {
        "p50_ms_at_most": p50,
        "p95_ms_at_most": p95,
        "p50_ms_of_each_start": [round(1000 * percentiles(ages)[0], 1) for ages, _ in starts],
        "screenshot_p50_ms": round(1000 * percentiles([took for _, asked in starts for took in asked])[0], 1),
        "pictures": sum(len(ages) for ages, _ in starts),
    }


def watched_in_obs(seconds: float, how: Link) -> tuple[list[float], list[float]]:
    """How old the pictures of an OBS under a virtual screen were, and how long each look at them took.

    A screenshot shows a picture that OBS had when it was asked or later: the age at the answer is an upper
    bound that contains the making and sending of the screenshot. It is asked for no oftener than `GLANCE`:
    as many as OBS can make take half a core, pictures come late for it, and for each one that did it shows
    everything a frame later from then on.
    """
    with tempfile.TemporaryDirectory() as home:
        settings = Path(home) / ".config" / "obs-studio" / "global.ini"
        settings.parent.mkdir(parents=True)
        settings.write_text(OBS_SETTINGS)
        screen = subprocess.Popen(["Xvfb", ":97", "-screen", "0", "640x480x24"], stderr=subprocess.DEVNULL)
        time.sleep(1)
        environment = {"HOME": home, "XDG_CONFIG_HOME": f"{home}/.config", "XDG_RUNTIME_DIR": home}
        studio = subprocess.Popen(
            ["obs", "--multi", "--minimize-to-tray", "--disable-updater"],
            env={**os.environ, **environment, "DISPLAY": ":97", "LIBGL_ALWAYS_SOFTWARE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            running = Obs(port=48753, password="benchmark")
            _until(lambda: _answers(running, how))
            show = Show((640, 360), [how.output])
            first = next(at for _, at, image in running.screenshots(NAME, (640, 360), 60) if readable(image))
            ages, asked = [], []
            for begin, answered, image in running.screenshots(
                NAME, (640, 360), WARM_UP + seconds, every=GLANCE
            ):
                number = read_code(image)
                if number in show.captured.at and answered > first + WARM_UP:
                    ages.append(answered - show.captured.at[number])
                    asked.append(answered - begin)
            show.end()
        finally:
            studio.kill()
            studio.wait()
            screen.kill()
            screen.wait()
    return ages, asked


def _answers(studio: Obs, how: Link) -> bool:
    """Whether OBS is up, and has its Media Source."""
    try:
        studio.connect(how)
    except OSError:
        time.sleep(1)
        return False
    return True


def readable(image: Image) -> bool:
    """Whether there is a number in it."""
    return read_code(image) is not None


BURN = "while True: pass"


def load(seconds: float) -> dict[str, Any]:
    """1280x720 at 30 fps, first alone, then beside programs that take half of the machine."""
    output = "nut+udp://127.0.0.1:48752"
    show = Show((1280, 720), [output], governed=True)

    def measured(seconds: float) -> dict[str, Any]:
        before, began = show.live.status()["sinks"][output]["frames"], time.monotonic()
        heights: list[dict[str, Any]] = []
        while time.monotonic() - began < seconds:
            time.sleep(0.05)
            height = show.live.status()["height"]
            if not heights or heights[-1]["height"] != height:
                heights.append({"after_s": round(time.monotonic() - began, 1), "height": height})
        status = show.live.status()
        sink, fps = status["sinks"][output], (status["sinks"][output]["frames"] - before) / seconds
        figures = {key: sink[key] for key in ("p50_ms", "p95_ms")}
        return {"height": status["height"], "fps": round(fps, 1), **figures, "heights": heights}

    time.sleep(WARM_UP + seconds / 2)
    alone = measured(seconds / 2)
    burners = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(os.cpu_count() or 1)]
    try:
        searching, under_load = measured(SEARCH), measured(seconds)
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    show.end()
    under_load["heights"] = [{**step, "after_s": step["after_s"] + SEARCH} for step in under_load["heights"]]
    return {"alone": alone, "searching": searching, "under_load": under_load}


SEARCH = 2.0
"""Seconds within which a new size must be found."""


CONTROLLER = """
import sys, time
from pythonosc.udp_client import SimpleUDPClient
port, rate, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
client, began = SimpleUDPClient("127.0.0.1", port), time.monotonic()
for number in range(round(rate * seconds)):
    client.send_message("/fauve/strength", 0.5 + number % 100 / 200)
    time.sleep(max(0, began + number / rate - time.monotonic()))
"""

MESSAGES = 1000
"""A second."""

FADE = 2.0
"""Seconds that a style takes to fade into another."""


def controls(seconds: float) -> dict[str, Any]:
    """What is turned while a still picture is painted and sent: the frames it costs, and jumps in fades."""
    watched, part = Watched(), seconds / 2
    show = Show((640, 360), ["nut+udp://127.0.0.1:48755"], source=Still((640, 360)), watched=watched)
    styles = show.controls.state["styles"]
    time.sleep(WARM_UP)
    found: dict[str, Any] = {"quiet": _frames(watched, lambda: time.sleep(part))}

    def cut() -> None:
        show.controls.set("crossfade", 0)
        for number in range(round(part)):
            show.controls.set("style", styles[number % len(styles)])
            time.sleep(1)

    def fade(style: str) -> None:
        show.controls.set("style", style)
        time.sleep(FADE + 0.5)

    def another() -> None:
        with tempfile.TemporaryDirectory() as folder:
            pack = str(renamed(Path(folder) / "other"))
            show.controls.set("pack", pack)
            _until(lambda: show.controls.state["pack"] == pack)
            time.sleep(0.5)

    found["cuts"] = _frames(watched, cut)
    fade(styles[0])
    show.controls.set("crossfade", FADE)
    found["fades"] = {style: _faded(watched, partial(fade, style)) for style in styles[1:4]}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        port = show.live.serve_osc("127.0.0.1", 0, ear.getsockname()).rpartition(":")[2]
        taken: list[float] = []
        show.controls.listen(lambda state: taken.append(state["strength"]))
        command = [sys.executable, "-c", CONTROLLER, port, str(MESSAGES), str(part)]
        found["messages"] = _frames(watched, lambda: subprocess.run(command, check=True))
        found["messages"].update(sent=round(MESSAGES * part), taken=len(taken))
    show.controls.set("strength", 1.0)
    time.sleep(0.5)
    found["pack"] = _faded(watched, another)
    show.end()
    return found


def renamed(folder: Path) -> Path:
    """A copy of the pack whose styles have other names, as another one to go over to."""
    shutil.copytree(Path(engines.__file__).parent / "styles" / STYLE, folder)
    manifest = json.loads((folder / "style.json").read_text("utf-8"))
    for style in manifest["styles"]:
        style["name"] = f"other-{style['name']}"
    (folder / "style.json").write_text(json.dumps(manifest), "utf-8")
    return folder


def _frames(watched: Watched, work: Callable[[], Any]) -> dict[str, Any]:
    """How many frames came and how many did not while `work` was done."""
    begin = time.monotonic()
    work()
    seen = watched.between(begin, time.monotonic())
    lost = sum(later[1] - earlier[1] - 1 for earlier, later in pairwise(seen))
    fps = (len(seen) - 1) / (seen[-1][0] - seen[0][0])
    return {"seconds": round(time.monotonic() - begin, 1), "fps": round(fps, 2), "lost": lost}


def _faded(watched: Watched, work: Callable[[], Any]) -> dict[str, Any]:
    """The same, and how far it is, in grey levels, from the first picture to the last, and at one step."""
    begin = time.monotonic()
    counted = _frames(watched, work)
    pictures = [picture for *_, picture in watched.between(begin, time.monotonic())]
    step = max(float(np.abs(later - earlier).mean()) for earlier, later in pairwise(pictures))
    way = float(np.abs(pictures[-1] - pictures[0]).mean())
    return {**counted, "way": round(way, 2), "largest_step": round(step, 2)}


SENDER = """
import sys, time
from fractions import Fraction
import av
from pipeline.sources.pattern import PatternSource
source = PatternSource((640, 360), Fraction(30))
with av.open(sys.argv[1] + "?listen=1", "w", format="mpegts", options={"flush_packets": "1"}) as out:
    video = out.add_stream("libx264", rate=30)
    video.width, video.height, video.pix_fmt = 640, 360, "yuv420p"
    video.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "15"}
    for number in range(100000):
        frame = av.VideoFrame.from_ndarray(source.picture(number), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, 30)
        out.mux(video.encode(frame))
        time.sleep(1 / 30)
"""

RESTARTS = 10


def restarts(seconds: float) -> dict[str, Any] | None:
    """Seconds until it is back after its server, then its source, was killed and started again, ten times.

    The starting of either program is within them. None where there is no nginx.
    """
    program = shutil.which("nginx")
    if program is None or not RTMP_MODULE.exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "server.mkv"
        server = rtmp_server(program, Path(folder))
        show = Show((640, 360), [RTMP, str(path)])
        stream: Any = show.sinks[0]
        _until(lambda: stream.connected)
        back = []
        for _ in range(RESTARTS):
            time.sleep(2)
            server.kill()
            server.wait()
            _until(lambda: not stream.connected)
            time.sleep(1)
            server, began = rtmp_server(program, Path(folder)), time.monotonic()
            _until(lambda: stream.connected)
            back.append(round(time.monotonic() - began, 2))
        found = {"server": _recovered(back, show.end(), path)}
        server.kill()
        server.wait()
        path, url = Path(folder) / "source.mkv", "tcp://127.0.0.1:48754"
        sender = subprocess.Popen([sys.executable, "-c", SENDER, url])
        time.sleep(2)
        show = Show((640, 360), [str(path)], source=open_source(url, timeout=2.0))
        back = []
        for _ in range(RESTARTS):
            time.sleep(3)
            sender.kill()
            sender.wait()
            _until(lambda: bool(show.source.lost))
            sender, began = subprocess.Popen([sys.executable, "-c", SENDER, url]), time.monotonic()
            _until(lambda: not show.source.lost)
            back.append(round(time.monotonic() - began, 2))
        found["source"] = _recovered(back, show.end(), path)
        sender.kill()
        sender.wait()
    return found


def _until(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing happened for {seconds:.0f} s")
        time.sleep(0.01)


def _recovered(back: list[float], report: dict[str, Any], path: Path) -> dict[str, Any]:
    """How long it took, and whether the recording made meanwhile has all painted frames, in order."""
    with av.open(str(path)) as container:
        times = [frame.pts for frame in container.decode(video=0)]
    counted = report["sinks"][next(name for name in report["sinks"] if name.endswith(path.name))]
    return {
        "back_after_s": back,
        "worst_s": max(back),
        "painted": report["frames"],
        "recorded": len(times),
        "recording_dropped": counted["dropped"],
        "rising": times == sorted(set(times)),
    }


def soak(seconds: float) -> dict[str, Any]:
    """Memory after the first minute and at the end, what became of every frame, and sound beside picture."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "show.mkv"
        show = Show((640, 360), [str(path)], source=PatternSource((640, 360), RATE, sound=True))
        time.sleep(min(60.0, seconds / 2))
        first = _memory()
        time.sleep(seconds - min(60.0, seconds / 2))
        last = _memory()
        report = show.end()
        counted = report["sinks"][str(path)]
        frames, flashes, clicks = flashes_and_clicks(path)
    apart = [1000 * (min(clicks, key=lambda click: abs(click - flash)) - flash) for flash in flashes]
    return {
        "seconds": seconds,
        "after_a_minute_mib": first,
        "at_the_end_mib": last,
        "frames": report["frames"],
        "uncounted": report["frames_in"] - report["dropped"] - report["frames"],
        "recorded": frames,
        "recording_dropped": counted["dropped"],
        "flashes": len(flashes),
        "clicks": len(clicks),
        "sound_after_picture_ms": {
            "median": round(float(np.median(apart)), 1),
            "least": round(min(apart), 1),
            "most": round(max(apart), 1),
        },
    }


FLASH = 40
"""Grey levels that the upper left corner rises by, from one frame to the next, where the pattern flashes."""

CLICK = 0.2
"""Loudness that a click begins with."""


def flashes_and_clicks(path: Path) -> tuple[int, list[float], list[float]]:
    """Of a recording of the test pattern: how many pictures it has, and when it flashes and clicks."""
    frames, before, quiet_since = 0, 255.0, 0.0
    flashes: list[float] = []
    clicks: list[float] = []
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(container.streams.video[0], container.streams.audio[0]):
            at = float(frame.pts * frame.time_base)
            if isinstance(frame, av.VideoFrame):
                luma = np.frombuffer(frame.planes[0], np.uint8).reshape(-1, frame.planes[0].line_size)
                side = frame.height // 6
                corner = float(luma[side // 4 : -(-side * 3 // 4), side // 4 : -(-side * 3 // 4)].mean())
                if corner - before > FLASH:
                    flashes.append(at)
                frames, before = frames + 1, corner
            else:
                loud = np.flatnonzero(np.abs(frame.to_ndarray()).max(0) > CLICK) / frame.sample_rate + at
                for moment in loud:
                    if moment - quiet_since > 0.3:
                        clicks.append(float(moment))
                    quiet_since = moment
    return frames, flashes, clicks


def _memory() -> float:
    """Resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / (1 << 20), 1)


def table(report: dict[str, Any]) -> str:
    """The latencies in `report` for the README."""
    rows = ["| | median | 95th percentile |", "| --- | --- | --- |"]
    for key, text in (("nut", "motion JPEG in NUT, by UDP"), ("rtmp", "H.264 by RTMP, through nginx")):
        measured = report[key]
        rows.append(f"| {text} | {measured['p50_ms']:.0f} ms | {measured['p95_ms']:.0f} ms |")
    for key, text in (("obs", "by the first of these"), ("obs-rtmp", "which listens for RTMP")):
        if key in report:
            seen = report[key]
            bounds = f"{seen['p50_ms_at_most']:.0f} ms at most | {seen['p95_ms_at_most']:.0f} ms at most"
            rows.append(f"| shown by OBS, {text} | {bounds} |")
    return "\n".join(rows)


def bars(report: dict[str, Any]) -> dict[str, Any]:
    """Each of `BARS` that was measured, and whether it is met."""
    judged: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "nut": ("nut", lambda part: part["p50_ms"] <= 45 and part["p95_ms"] <= 80),
        "rtmp": ("rtmp", lambda part: part["p50_ms"] <= 60),
        "obs": ("obs", lambda part: part["p50_ms_at_most"] <= 120),
        "obs-rtmp": ("obs-rtmp", lambda part: part["p50_ms_at_most"] <= 210),
        "rate": ("load", lambda part: part["alone"]["fps"] >= 29.5 and _lowest(part["alone"]) >= 360),
        "load": ("load", _found_within),
        "swap": ("controls", lambda part: part["cuts"]["lost"] <= part["quiet"]["lost"]),
        "pack": ("controls", lambda part: part["pack"]["lost"] <= part["quiet"]["lost"]),
        "crossfade": ("controls", lambda part: all(map(_smooth, (*part["fades"].values(), part["pack"])))),
        "messages": ("controls", _untouched),
        "restarts": ("restarts", lambda part: all(map(_whole, part.values()))),
        "memory": ("soak", lambda part: part["at_the_end_mib"] <= 1.05 * part["after_a_minute_mib"]),
        "drops": ("soak", _all_counted),
        "sound": ("soak", lambda part: max(map(abs, part["sound_after_picture_ms"].values())) <= 40),
    }
    met = {bar: judge(report[part]) for bar, (part, judge) in judged.items() if report.get(part)}
    return {"met": met, "bars": BARS}


def _lowest(measured: dict[str, Any]) -> int:
    return min(step["height"] for step in measured["heights"])


def _found_within(part: dict[str, Any]) -> bool:
    """Whether the size found in time was right: none smaller later, rate and latency as they should be."""
    found, later = part["searching"]["height"], part["under_load"]
    return bool(_lowest(later) >= found and later["fps"] >= 28.5 and later["p95_ms"] <= 133)


def _smooth(fade: dict[str, Any]) -> bool:
    return bool(fade["largest_step"] <= 0.1 * fade["way"])


def _untouched(part: dict[str, Any]) -> bool:
    messages, quiet = part["messages"], part["quiet"]
    return bool(messages["taken"] == messages["sent"] and messages["fps"] >= 0.99 * quiet["fps"])


def _whole(part: dict[str, Any]) -> bool:
    whole = part["recorded"] == part["painted"] and not part["recording_dropped"] and part["rising"]
    return bool(whole and part["worst_s"] <= 3)


def _all_counted(part: dict[str, Any]) -> bool:
    return part["uncounted"] == 0 and part["recorded"] + part["recording_dropped"] == part["frames"]


PARTS: dict[str, Callable[[float], dict[str, Any] | None]] = {
    "nut": nut,
    "rtmp": rtmp,
    "obs": obs,
    "obs-rtmp": obs_rtmp,
    "load": load,
    "controls": controls,
    "restarts": restarts,
    "soak": soak,
}


def main() -> None:
    """Measure what is asked for and write it down beside what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--soak", type=float, default=600.0)
    given = parser.parse_args()
    before = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    # Figures of another style are not put beside these.
    report = {name: before[name] for name in PARTS if name in before and before["style"] == STYLE}
    for name in given.only.split(","):
        seconds = given.soak if name == "soak" else given.seconds
        report[name] = PARTS[name](seconds)
        print(name, json.dumps(report[name]), flush=True)
        write_results("latency", {**report, "style": STYLE, **bars(report)})
    print(bars(report)["met"])


if __name__ == "__main__":
    main()
