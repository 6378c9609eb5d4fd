"""How old a live picture is when somebody sees it, read back from the pixels.

    python -m benchmarks.latency [--only nut,rtmp,obs,load,restarts,soak]

The test pattern carries the number of each frame in its pixels; a receiver in a process of its own decodes
what arrives, reads the number, and says when. RTMP goes through a real nginx (tests/install_parts.sh).
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

import engines
from benchmarks.machine import write_results
from engines import Look
from pipeline.controls import Controls
from pipeline.deck import Deck
from pipeline.frame import Frame
from pipeline.governor import Governor
from pipeline.live import LiveRun, open_sink
from pipeline.sinks import Sink
from pipeline.sources import Source
from pipeline.sources.live import open_source
from pipeline.sources.pattern import PatternSource, read_code
from pipeline.stats import percentiles

RESULT = Path(__file__).parent / "results" / "latency.json"

STYLE = "pointillism"
RATE = Fraction(30)
WARM_UP = 3.0
"""Seconds that are not counted: connecting, and the first pictures of everything."""

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


class Show:
    """A live run of the test pattern, or another source, in this process, until `stop`."""

    def __init__(
        self,
        size: tuple[int, int],
        outputs: Sequence[str],
        *,
        governed: bool = False,
        source: Source | None = None,
    ) -> None:
        self.source = PatternSource(size, RATE) if source is None else source
        self.stop = threading.Event()
        pack = engines.load_style(STYLE)
        controls = Controls(STYLE, pack.styles, Look())
        self.governor = Governor(float(1 / RATE)) if governed else None
        self.deck = Deck(
            lambda name: engines.load("auto", style=name), STYLE, size, controls, governor=self.governor
        )
        self.captured = Captured(RATE)
        self.sinks = [*(open_sink(output, self.source.info, force=True) for output in outputs), self.captured]
        self.live = LiveRun(self.source, self.deck, controls, self.sinks, self.governor, self.stop)
        self.report: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.report = self.live.run(lambda status: None)

    def end(self) -> dict[str, Any]:
        """Stop it; its last status."""
        self.stop.set()
        self._thread.join()
        self.deck.close()
        return self.report


def received(size: tuple[int, int], output: str, url: str, format: str, seconds: float) -> dict[str, Any]:
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
        "dropped": report["dropped"] + report["sinks"][output]["dropped"],
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
    """Into a real OBS under a virtual screen, by screenshots of its source; None where there is none.

    A screenshot shows a picture that OBS had when it was asked or later: the age at the answer is an upper
    bound that contains the making and sending of the screenshot.
    """
    if shutil.which("obs") is None or shutil.which("Xvfb") is None:
        return None
    from pipeline.obs import NAME, Obs

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
            how = None
            while how is None:
                try:
                    how = running.connect()
                except OSError:
                    time.sleep(1)
            show = Show((640, 360), [how.output])
            time.sleep(WARM_UP + 3)
            ages, asked = [], []
            for begin, answered, image in running.screenshots(NAME, (640, 360), seconds):
                number = read_code(image)
                if number in show.captured.at:
                    ages.append(answered - show.captured.at[number])
                    asked.append(answered - begin)
            show.end()
        finally:
            studio.kill()
            studio.wait()
            screen.kill()
            screen.wait()
    p50, p95, _ = (round(1000 * value, 1) for value in percentiles(ages))
    shot = round(1000 * percentiles(asked)[0], 1)
    return {"p50_ms_at_most": p50, "p95_ms_at_most": p95, "screenshot_p50_ms": shot, "pictures": len(ages)}


BURN = "while True: pass"


def load(seconds: float) -> dict[str, Any]:
    """1280x720 at 30 fps, first alone, then beside programs that take half of the machine."""
    show = Show((1280, 720), ["nut+udp://127.0.0.1:48752"], governed=True)
    time.sleep(WARM_UP + seconds)
    alone = show.live.status()
    burners = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(os.cpu_count() or 1)]
    began, heights = time.monotonic(), []
    while time.monotonic() - began < seconds:
        time.sleep(0.1)
        status = show.live.status()
        if not heights or heights[-1]["height"] != status["height"]:
            heights.append({"after_s": round(time.monotonic() - began, 1), "height": status["height"]})
    loaded = show.live.status()
    for burner in burners:
        burner.kill()
        burner.wait()
    show.end()

    def told(status: dict[str, Any]) -> dict[str, Any]:
        sink = status["sinks"]["nut+udp://127.0.0.1:48752"]
        return {"height": status["height"], **{key: sink[key] for key in ("fps", "p50_ms", "p95_ms")}}

    return {"alone": told(alone), "under_load": told(loaded), "heights_under_load": heights}


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
    """Memory after the first minute and at the end, and whether every drop was counted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "show.mkv"
        show = Show((640, 360), [str(path)])
        time.sleep(min(60.0, seconds / 2))
        first = _memory()
        time.sleep(seconds - min(60.0, seconds / 2))
        last = _memory()
        report = show.end()
        counted = report["sinks"][str(path)]
    return {
        "seconds": seconds,
        "after_a_minute_mib": first,
        "at_the_end_mib": last,
        "frames": report["frames"],
        "uncounted": report["frames_in"] - report["dropped"] - report["frames"],
        "recorded": counted["frames"],
        "recording_dropped": counted["dropped"],
    }


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
    seen = report["obs"]
    bounds = f"{seen['p50_ms_at_most']:.0f} ms at most | {seen['p95_ms_at_most']:.0f} ms at most"
    rows.append(f"| shown by OBS, by the first of these | {bounds} |")
    return "\n".join(rows)


PARTS: dict[str, Callable[[float], dict[str, Any] | None]] = {
    "nut": nut,
    "rtmp": rtmp,
    "obs": obs,
    "load": load,
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
    report = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in given.only.split(","):
        seconds = given.soak if name == "soak" else given.seconds
        report[name] = PARTS[name](seconds)
        print(name, json.dumps(report[name]))
        write_results("latency", {**report, "style": STYLE})


if __name__ == "__main__":
    main()
