"""`fauve live`: what happens now, painted while it happens."""

import contextlib
import itertools
import json
import logging
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

import engines
from pipeline.access import token_file
from pipeline.address import shown
from pipeline.batch import refuse_itself
from pipeline.commands.options import (
    Address,
    Dimensions,
    Mix,
    Rate,
    detail_option,
    engine_options,
    follow_option,
    load_any,
    look,
    onnx_options,
    score_option,
    steady_option,
    told_flicker,
    told_frames,
)
from pipeline.controls import LONGEST_CROSSFADE, Controls
from pipeline.deck import Deck
from pipeline.governor import Governor
from pipeline.keyboard import has_keys
from pipeline.live import LiveRun, open_sink
from pipeline.motion import Followed
from pipeline.sinks import Sink
from pipeline.sources.denoise import Denoised
from pipeline.sources.live import open_source
from pipeline.sources.sound import WithSound

log = logging.getLogger("fauve")

SAME_SIGNAL = 0.5
"""Seconds within which a second signal is the first one: timeout(1), among others, passes it on twice."""


class Seconds(click.ParamType):  # type: ignore[type-arg]
    """A time such as 80ms or 1.5s, in seconds."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        """Parse the text of the option."""
        if isinstance(value, float):
            return value
        number, factor = (value[:-2], 0.001) if value.endswith("ms") else (value.removesuffix("s"), 1.0)
        try:
            seconds = float(number) * factor
        except ValueError:
            seconds = -1
        if not 0 <= seconds < float("inf"):
            self.fail(f"{value!r} is no time such as 80ms or 1.5s", param, context)
        return seconds


class Bits(click.ParamType):  # type: ignore[type-arg]
    """A bit rate such as 4M or 800k, in bits per second."""

    name = "BITS"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> int:
        """Parse the text of the option."""
        if isinstance(value, int):
            return value
        factor = {"k": 1_000, "M": 1_000_000}.get(value[-1:], 1)
        try:
            bits = int(float(value.rstrip("kM")) * factor)
        except (ValueError, OverflowError):
            bits = 0
        if bits <= 0:
            self.fail(f"{value!r} is no bit rate such as 4M or 800k", param, context)
        return bits


@click.command(
    epilog="Pages and metrics at other addresses than this machine's need a token, which is a part of the "
    "printed address and stays the same: FAUVE_TOKEN, or the content of "
    f"{token_file() or 'a file in your home'}. Delete that file to get a new one."
)
@click.argument("source")
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    help="rtmp://, rtsp://, srt://, udp://, tcp:// or nut+udp:// and an address, a .m3u8 for HLS, whip:URL "
    "to send by WebRTC, whep::PORT to be watched by it, a file to record to (.mkv, .mp4, .ts), window:, "
    "window:full (the whole screen; window:full@1 that of the second display), camera: (a virtual camera), "
    "or speaker: and speaker:NAME (the sound, in time with a window or camera); may be given several times.",
)
@click.option(
    "-s",
    "--style",
    default="live",
    show_default=True,
    help="A bundled style, a pack, or an .onnx model.",
)
@click.option(
    "--strength", type=float, default=1.0, show_default=True, help="0 (the input) to 1 (the painting)."
)
@click.option("--mix", type=Mix(), help="Weights of a pack's styles, such as a=0.7,b=0.3.")
@click.option(
    "--crossfade", type=Seconds(), default=1.0, help="How long a change of style takes (default: 1s)."
)
@detail_option
@engine_options
@onnx_options
@click.option("--size", type=Dimensions(), help="Size to ask a camera or the test pattern for.")
@click.option("--fps", type=Rate(), help="Frame rate to ask a camera, the screen or the test pattern for.")
@click.option(
    "--denoise/--no-denoise",
    default=None,
    help="Remove noise from what stands still, so that no strokes crawl there (default: cameras only).",
)
@follow_option
@steady_option
@click.option("--loop", is_flag=True, help="Play a file again and again.")
@click.option("--no-audio", is_flag=True, help="Leave the sound out.")
@click.option("--sound", help="Where to take the sound from: microphone:, microphone:hw:1, a URL or a file.")
@click.option(
    "--timeout",
    type=Seconds(),
    default=5.0,
    help="Treat a source as lost after this long without a frame (default: 5s).",
)
@click.option("--latency", type=Seconds(), help="Paint smaller rather than be later than this, such as 80ms.")
@click.option("--fixed", is_flag=True, help="Never paint smaller to keep up; drop frames instead.")
@click.option(
    "--bitrate",
    type=Bits(),
    help="Highest bit rate of a stream in H.264, such as 4M (default: by its size); not of WebRTC.",
)
@click.option("--panel", type=Address(), help="Serve the control panel at this address, such as :8080.")
@click.option("--preview", type=Address(), help="Serve the picture alone at this address.")
@click.option("--osc", type=Address(), help="Listen for OSC at this address, such as :9000.")
@click.option("--osc-reply", type=Address(), help="Send the state to this address by OSC after each change.")
@click.option("--midi", help="MIDI input by a part of its name; `fauve devices` lists them.")
@click.option(
    "--midi-map",
    type=click.Path(path_type=Path),
    help="File that maps MIDI controls; what the panel learns is saved to it.",
)
@click.option("--metrics", type=Address(), help="Serve Prometheus metrics at this address, such as :9100.")
@click.option(
    "--record-controls",
    type=click.Path(path_type=Path),
    help="Record each change of the controls, with its time, to this file.",
)
@score_option
@click.option("--duration", type=Seconds(), help="Stop after this time.")
@click.option("-f", "--force", is_flag=True, help="Replace existing recordings.")
@click.option(
    "-q", "--quiet", is_flag=True, help="Print nothing but warnings, errors and addresses that carry a token."
)
@click.option("--json", "as_json", is_flag=True, help="Print the status as lines of JSON.")
def live(
    source: str,
    outputs: tuple[str, ...],
    style: str,
    strength: float,
    mix: dict[str, float] | None,
    crossfade: float,
    detail: Any,
    engine: str,
    precision: str,
    threads: int | None,
    layout: Any,
    value_range: Any,
    size: tuple[int, int] | None,
    fps: Fraction | None,
    denoise: bool | None,
    follow: bool,
    steady: float,
    loop: bool,
    no_audio: bool,
    sound: str | None,
    timeout: float,
    latency: float | None,
    fixed: bool,
    bitrate: int | None,
    panel: tuple[str, int] | None,
    preview: tuple[str, int] | None,
    osc: tuple[str, int] | None,
    osc_reply: tuple[str, int] | None,
    midi: str | None,
    midi_map: Path | None,
    metrics: tuple[str, int] | None,
    record_controls: Path | None,
    score: bool,
    duration: float | None,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Paint SOURCE while it happens: the newest frame wins, and what is too old is left out and counted.

    SOURCE is camera:0, screen:, a URL (rtsp://, rtmp://, srt://, udp://, tcp://, http://), listen:URL or
    whip::PORT to wait for a sender, a file played as if it were live, or test: for a moving pattern.

    Where an address is :PORT, as in whip::8090, whep::8091 and --panel :8080, only this machine is heard;
    0.0.0.0:PORT, as in whip:0.0.0.0:8090, is open to the whole network.

    While it runs, the terminal takes keys: 1-9 and 0 choose a style, n and p the next and the previous one,
    up and down the strength, b the input as it is, f holds the picture, space is black, q ends.
    """
    if not (outputs or panel or preview):
        raise click.UsageError("give an output with -o, or --panel or --preview to watch in the browser")
    places = [Path(output).resolve() for output in outputs]
    for output, place in zip(outputs, places, strict=True):
        if places.count(place) > 1:
            raise click.UsageError(f"{shown(output)}: is given twice")
    if osc_reply and not osc:
        raise click.UsageError("--osc-reply needs --osc, whose socket it sends from")
    if crossfade > LONGEST_CROSSFADE:
        raise click.BadParameter(f"{LONGEST_CROSSFADE:g}s at most", param_hint="--crossfade")
    pack = engines.load_style(style, layout=layout, value_range=value_range)
    chosen = look(mix, strength, pack)
    controls = Controls(style, pack.styles, chosen, crossfade=crossfade)
    leaving = threading.Event()

    def load(name: str) -> engines.Engine:
        played = load_any(name, layout, value_range)
        return engines.load(
            engine, style=played, precision=precision, threads=threads, behind=True, stop=leaving
        )

    if record_controls and record_controls.resolve() in places:
        raise click.BadParameter("is an output, too; give another name", param_hint="--record-controls")
    for read, written in itertools.product((source, sound), (*outputs, record_controls)):
        # Of what is too long for a name, pathlib's would raise.
        if read and written and os.path.exists(read) and os.path.exists(written):
            refuse_itself(Path(read), Path(written))
    stop = threading.Event()
    with _interrupted(stop) as begin, contextlib.ExitStack() as stack:
        stack.callback(controls.close)
        own = not (no_audio or sound)
        picture = open_source(address(source), size=size, rate=fps, loop=loop, sound=own, timeout=timeout)
        camera = stack.enter_context(picture)
        if sound:
            camera = WithSound(picture, sound, loop=loop)
            stack.callback(camera.close)
        if denoise or (denoise is None and address(source).startswith("camera:")):
            camera = Denoised(camera)
        if follow:
            camera = Followed(camera)
        governor = None if fixed else Governor(float(1 / camera.info.rate), latency)
        deck = Deck(
            *(load, style, (camera.info.width, camera.info.height), controls),
            detail=detail,
            governor=governor,
            steady=steady,
        )
        stack.callback(deck.close)
        # Before it: a pack that is being built would keep the process alive.
        stack.callback(leaving.set)
        sinks: list[Sink] = []
        # What is refused before the show begins leaves no file behind.
        opened = stack.enter_context(contextlib.ExitStack())
        for output in outputs:
            sinks.append(open_sink(output, camera.info, bits=bitrate, force=force))
            opened.callback(sinks[-1].abort)
        run = LiveRun(camera, deck, controls, sinks, governor, stop, score=score)
        stack.callback(run.close)
        if midi or midi_map:
            said = run.listen_to_midi(midi or "", midi_map)
            say(quiet or not said, said)
        if preview:
            say_address(quiet, "the picture is", run.serve_preview(*preview))
        if panel:
            say_address(quiet, "the panel is", run.serve_panel(*panel))
        if metrics:
            say_address(quiet, "metrics are", run.serve_metrics(*metrics))
        if osc:
            say(quiet, f"OSC is listened to at {run.serve_osc(*osc, osc_reply)}")
        if record_controls:
            controls.record(record_controls, force=force)
        # From here on, what stops it ends a show that has begun.
        begin()
        if has_keys() and not as_json:
            run.listen_to_keys()
        if duration is not None:
            timer = threading.Timer(min(duration, threading.TIMEOUT_MAX), stop.set)
            timer.daemon = True
            timer.start()
        opened.pop_all()
        with _status(as_json, quiet) as show:
            report = run.run(show)
    if as_json:
        say_json({"event": "done", **report})
    else:
        say(quiet, f"{told_frames(report['frames'])} in {report['seconds']:.1f} s")
        for name, counted in report["sinks"].items():
            say(
                quiet,
                f"{name}: {told_frames(counted['frames'])}, {counted['dropped']} left out, "
                f"latency {counted['p50_ms']:.0f} ms, {counted['p95_ms']:.0f} ms at the 95th percentile",
            )
        if "flicker" in report:
            say(quiet, told_flicker(report["flicker"]))


def say(quiet: bool, text: str) -> None:
    """Tell people on standard error, unless they want it quiet."""
    if not quiet:
        # A terminal that is closed does not end what goes on without it.
        with contextlib.suppress(OSError):
            click.echo(text, err=True)


def say_json(event: dict[str, Any]) -> None:
    """Tell programs on standard output; when the last of them has gone, the show goes on without."""
    try:
        print(json.dumps(event), flush=True)
    except OSError as error:
        log.warning("the status cannot be told any more: %s", error.strerror)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say_address(quiet: bool, what: str, url: str) -> None:
    """Tell where a page is; where it has a token, nobody could know it otherwise."""
    say(quiet and "?token=" not in url, f"{what} at {url}")


def address(source: str) -> str:
    """`source` with the words that people use for it made exact."""
    return f"{source}:" if source in ("test", "screen", "camera") else source


@contextlib.contextmanager
def _interrupted(stop: threading.Event) -> Iterator[Callable[[], None]]:
    """Have Ctrl-C, a polite kill, and a terminal that is closed, end the run properly.

    A second one, or one before it, ends it at once.

    Gives what is to be called when it begins, which raises what a library has swallowed: KeyboardInterrupt
    while OpenVINO is imported says that it is not installed.
    """
    first = -math.inf
    running = False

    def end(number: int, frame: Any) -> None:
        nonlocal first
        now, again = time.monotonic(), stop.is_set()
        if again and now - first <= SAME_SIGNAL:
            return
        first = now
        stop.set()
        if again or not running:
            raise KeyboardInterrupt("stopped at once" if running else "")

    def begin() -> None:
        nonlocal running
        running = True
        if stop.is_set():
            raise KeyboardInterrupt

    signals = [signal.SIGINT, signal.SIGTERM]
    # Where it is ignored, as nohup(1) has it, the show goes on without the terminal.
    if os.name != "nt" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    handlers = {number: signal.signal(number, end) for number in signals}
    try:
        yield begin
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _status(as_json: bool, quiet: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What shows the status of a run, once a second; in a terminal in one line, which others write over."""
    shown = 0.0
    terminal = sys.stderr.isatty() and not (quiet or as_json)

    def write(line: str) -> None:
        # The terminal may be closed while the show goes on.
        with contextlib.suppress(OSError):
            sys.stderr.write("\r\x1b[K" + line)
            sys.stderr.flush()

    def clear(record: logging.LogRecord | None = None) -> bool:
        """Make room for what is said next."""
        write("")
        return True

    def show(status: dict[str, Any]) -> None:
        nonlocal shown
        if time.monotonic() - shown < 1:
            return
        shown = time.monotonic()
        if as_json:
            say_json({"event": "status", **status})
        elif terminal:
            sinks = "  ".join(
                f"{name} {counted['fps']:.0f} fps {counted['p50_ms']:.0f} ms"
                + (f" ({counted['dropped']} left out)" if counted["dropped"] else "")
                for name, counted in status["sinks"].items()
            )
            wrong = "; ".join(filter(None, [status["problem"], *status["refused"].values()]))
            # What is wrong comes first: a narrow terminal has no room for the rest.
            line = (wrong and f"! {wrong}  ") + f"{status['fps_in']:.0f} fps in  {status['height']}p  {sinks}"
            # A full line would go on in the next one, which is not cleared.
            write(line[: shutil.get_terminal_size().columns - 1])

    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if terminal and isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr
    ]
    for handler in handlers:
        handler.addFilter(clear)
    try:
        yield show
    finally:
        for handler in handlers:
            handler.removeFilter(clear)
        if terminal:
            clear()
