"""`fauve run`: video files in, painted video files out."""

import contextlib
import dataclasses
import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

import engines
from engines import EngineError, Look, Style
from pipeline.batch import plan
from pipeline.commands.options import (
    PATH,
    Address,
    Colour,
    Dimensions,
    Mix,
    Rate,
    detail_option,
    engine_options,
    follow_option,
    look,
    onnx_options,
    score_option,
    steady_option,
    told_flicker,
    told_frames,
)
from pipeline.errors import SinkError, SourceError
from pipeline.farm import Farm
from pipeline.frame import VideoInfo
from pipeline.grey_window import Window
from pipeline.progress import Mode, Progress, VideoProgress, say
from pipeline.render import Render
from pipeline.replay import Show
from pipeline.sinks.encoders import ENCODERS
from pipeline.sinks.parts import Parts
from pipeline.sinks.preview import PreviewPage
from pipeline.sources.file import Decoder
from pipeline.stats import Stats
from pipeline.stream import TICK

log = logging.getLogger("fauve")


@click.command()
@click.argument("videos", type=PATH, nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=PATH,
    required=True,
    help="The painted video (.mp4, .mov, .mkv, .webm, .ts), animation (.gif, .apng, .webp), picture or "
    "pictures (frame%05d.png, .jpg, .tif, .webp); a folder; or - for standard output.",
)
@click.option(
    "-s",
    "--style",
    default="pointillism",
    show_default=True,
    help="A bundled style, a pack, or an .onnx model.",
)
@click.option(
    "--strength", type=float, default=1.0, show_default=True, help="0 (the video) to 1 (the painting)."
)
@click.option("--mix", type=Mix(), help="Weights of a pack's styles, such as a=0.7,b=0.3.")
@click.option(
    "--controls", type=PATH, help="Replay a show: the file that `fauve live --record-controls` wrote."
)
@detail_option
@engine_options
@onnx_options
@click.option(
    "--size", type=Dimensions(), help="Size of the output, such as 1280x720 (default: the video's)."
)
@click.option(
    "--fps", type=Rate(), help="Constant frame rate of the output (default: each frame at its own time)."
)
@click.option(
    "--background",
    type=Colour(),
    default="black",
    show_default=True,
    help="Colour behind a transparent video, where the output cannot be transparent.",
)
@click.option(
    "--hdr",
    type=click.Choice(["tonemap", "keep"]),
    default="tonemap",
    show_default=True,
    help="What to do with HDR video: tone-map it to standard range, or keep its range in 10 bits.",
)
@click.option(
    "--window",
    type=click.FloatRange(1),
    help="For grey pictures of more than 8 bits: how many values lie between black and white, as in DICOM.",
)
@click.option(
    "--level",
    type=float,
    help="The value in the middle of --window (default: a window that shows nearly all values).",
)
@click.option(
    "--decoder",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="cuda decodes on an NVIDIA GPU where possible, and with --engine torch:cuda keeps frames there.",
)
@click.option("--codec", type=click.Choice(list(ENCODERS)), help="Default: h264, or vp9 for .webm.")
@click.option(
    "--crf",
    type=int,
    help="Quality: a lower number means better quality and a larger file (default for h264: 20).",
)
@click.option("--preset", help="Encoding effort, by the codec's own names (default for h264: veryfast).")
@click.option(
    "--pixel-format", "pixels", help="By FFmpeg's names, such as yuv422p10le (default for h264: yuv420p)."
)
@click.option(
    "--verify", "check", is_flag=True, help="Compare the result with the video, as `fauve verify` does."
)
@follow_option
@steady_option
@score_option
@click.option(
    "--preview",
    type=Address(),
    is_flag=False,
    flag_value="127.0.0.1:0",
    help="Show the picture in the browser while it is painted, at this address or at a free port.",
)
@click.option("--no-audio", is_flag=True, help="Leave the sound out.")
@click.option("--resume", is_flag=True, help="Continue where an earlier run stopped.")
@click.option(
    "--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that paint one video."
)
@click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Videos painted at the same time."
)
@click.option(
    "-f",
    "--force",
    is_flag=True,
    help="Replace existing files, and start over where an earlier run stopped; with --resume, go on there.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but warnings and errors.")
@click.option("--json", "as_json", is_flag=True, help="Print progress and result as lines of JSON.")
@click.pass_context
def run(
    context: click.Context,
    videos: tuple[Path, ...],
    output: Path,
    style: str,
    strength: float,
    mix: dict[str, float] | None,
    controls: Path | None,
    detail: Any,
    engine: str,
    precision: str,
    threads: int | None,
    layout: Any,
    value_range: Any,
    size: tuple[int, int] | None,
    fps: Fraction | None,
    background: tuple[int, int, int],
    hdr: str,
    window: float | None,
    level: float | None,
    decoder: Decoder,
    codec: str | None,
    crf: int | None,
    preset: str | None,
    pixels: str | None,
    check: bool,
    follow: bool,
    steady: float,
    score: bool,
    preview: tuple[str, int] | None,
    no_audio: bool,
    resume: bool,
    workers: int,
    jobs: int,
    force: bool,
    quiet: bool,
    as_json: bool,
    farm: Farm | None = None,
) -> None:
    """Paint VIDEOS, every frame in order and with their sound.

    One video (- is standard input) goes into one file. Several, or a folder of them, go into a folder under
    their own names; one that fails does not stop the others, what an earlier run has finished is not painted
    again, and what was stopped goes on.

    A result gets its name when it is complete. After Ctrl-C or a crash, --resume goes on with what was
    painted of one video.
    """
    pairs = plan(videos, output)
    # Into a folder, what was finished or stopped before goes on by itself.
    into_folder = output.is_dir()
    piped = str(output) == "-"
    if piped and (as_json or check):
        raise click.UsageError("standard output is the video; it leaves no room for --json or --verify")
    if check and any(str(video) == "-" for video in videos):
        raise click.UsageError("--verify reads the video again, which standard input cannot be")
    if check and (size or fps):
        raise click.UsageError(
            "--verify compares with the video as it is; it does not go with --size or --fps"
        )
    if (window is None) != (level is None):
        raise click.UsageError("--window and --level go together")
    if preview and (workers > 1 or jobs > 1):
        raise click.UsageError("--preview shows one video by one worker; leave out --workers and --jobs")
    pack = engines.load_style(style, layout=layout, value_range=value_range)
    if controls and (mix or strength != 1.0):
        raise click.UsageError("--controls says what --mix and --strength would; leave these out")
    chosen = Show(controls, pack.styles) if controls else look(mix, strength, pack)
    if pack.notes and not quiet:
        click.echo(f"{style}: {pack.notes}", err=True)
    how: Mode = "json" if as_json else "bar" if sys.stderr.isatty() and not quiet else "silent"

    def tell(text: str, **event: Any) -> None:
        if as_json:
            say(event)
        elif not quiet:
            click.echo(text, err=piped)

    def paint(
        video: Path,
        result: Path,
        progress: Callable[[VideoInfo], VideoProgress],
        between: Callable[[], None] | None = None,
    ) -> None:
        if result.exists() and (resume or (into_folder and not force)):
            finished = _finished_before(render, video, result, between)
            if finished is not None:
                tell(f"{result}: {finished}", event="finished before", output=str(result))
                return
        goes_on = resume
        if into_folder:
            # What is written in one go is begun anew there, and no reason to fail.
            goes_on = (resume or not force) and Parts(result).folder.exists()
        report = dataclasses.replace(render, resume=goes_on)(video, result, progress)
        found = render.differences(video, result, between) if check else []
        if found:
            raise SinkError(f"{result}: is written, but differs from {video}: {'; '.join(found)}")
        tell(
            f"{result}: {told_frames(report['frames'])} painted as {_title(pack, chosen)} "
            f"in {report['seconds']:.1f} s ({report['fps']:.1f} fps, {runtime.name} {runtime.precision})"
            + ("; the end of the video is missing" if report["cut_short"] else "")
            + (f"; {told_flicker(report['flicker'])}" if "flicker" in report else ""),
            event="done",
            **report,
        )

    def failed(video: Path, error: Exception) -> None:
        if as_json:
            say({"event": "error", "video": str(video), "message": str(error)})
        click.echo(f"fauve: {error}", err=True)

    with (
        engines.load(engine, style=pack, precision=precision, threads=threads, hint="throughput") as runtime,
        Progress(how) as shown,
        contextlib.closing(PreviewPage(*preview)) if preview else contextlib.nullcontext() as page,
    ):
        if page is not None:
            click.echo(f"the picture is at {page.url}", err=True)
            if sys.stderr.isatty():
                click.launch(page.url)
        render = Render(
            runtime,
            chosen,
            detail,
            codec,
            crf,
            preset,
            size,
            fps,
            background,
            audio=not no_audio,
            force=force,
            workers=workers,
            pixels=pixels,
            keep_hdr=hdr == "keep",
            decoder=decoder,
            farm=farm,
            page=page,
            score=score,
            window=None if window is None or level is None else Window(window, level),
            follow=follow,
            steady=steady,
        )
        if len(pairs) == 1:
            paint(*pairs[0], lambda info: shown.of(pairs[0][0].name, info.frames))
            return
        goes_on = "--resume --force goes on" if force and not resume else "the same command goes on"
        failures = _all(pairs, paint, shown, jobs, failed, goes_on)
    if failures:
        click.echo(f"fauve: {failures} of {len(pairs)} videos failed", err=True)
        context.exit(2)


def _title(pack: Style, chosen: Look | Show) -> str:
    """What is painted: a style of a pack that has several, or else the pack."""
    styles = [name for name, weight in chosen.mix.items() if weight] if isinstance(chosen, Look) else []
    several = len(pack.styles) > 1 and len(styles) == 1
    return f"{styles[0]} ({pack.title})" if several else pack.title


def _all(
    pairs: list[tuple[Path, Path]],
    paint: Callable[[Path, Path, Callable[[VideoInfo], VideoProgress], Callable[[], None]], None],
    shown: Progress,
    jobs: int,
    failed: Callable[[Path, Exception], None],
    goes_on: str,
) -> int:
    """Paint `jobs` of `pairs` at a time; one that fails does not stop the others. Returns how many failed.

    Args:
        goes_on: what to say of how to go on after Ctrl-C.
    """
    stopped = threading.Event()

    def stop_if_asked() -> None:
        if stopped.is_set():
            raise KeyboardInterrupt

    def paint_one(video: Path, result: Path) -> None:
        stop_if_asked()
        paint(
            *(video, result),
            lambda info: _Stoppable(shown.of(video.name, info.frames), stop_if_asked),
            stop_if_asked,
        )

    failures = finished = 0
    with ThreadPoolExecutor(jobs) as pool:
        try:
            left = {pool.submit(paint_one, *pair): pair for pair in pairs}
            while left:
                # In turns, because a thread that waits for ever does not see Ctrl-C on Windows.
                for painted in wait(left, TICK, FIRST_COMPLETED).done:
                    video, _ = left.pop(painted)
                    try:
                        painted.result()
                        finished += 1
                    except Exception as error:
                        expected = isinstance(error, (SourceError, SinkError, EngineError))
                        if not expected:
                            log.info("%s", video, exc_info=error)
                        failed(video, error if expected else _unexpected(video, error))
                        failures += 1
        except BaseException as error:
            stopped.set()
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(
                    f"stopped; {finished} of {len(pairs)} videos are done; {goes_on}"
                ) from None
            raise
    return failures


def _unexpected(video: Path, error: Exception) -> Exception:
    """`error`, which nobody thought of, as what can be told in one line."""
    return RuntimeError(f"{video}: {type(error).__name__}: {error}; please report it, with what -v tells")


class _Stoppable(VideoProgress):
    """Another progress, which stops its render when Ctrl-C has reached the one that waits for all."""

    def __init__(self, shown: VideoProgress, stop_if_asked: Callable[[], None]) -> None:
        self._shown = shown
        self._stop_if_asked = stop_if_asked

    def show(self, stats: Stats) -> None:
        self._stop_if_asked()
        self._shown.show(stats)

    def look_through(self, frames: int) -> None:
        self._stop_if_asked()
        self._shown.look_through(frames)

    def __exit__(self, *raised: Any) -> None:
        self._shown.__exit__(*raised)


def _finished_before(
    render: Render, video: Path, result: Path, between: Callable[[], None] | None
) -> str | None:
    """What is told of `result` where it is what an earlier run made of `video`; None if it is painted again.

    With --force, which may replace it, only what is painted as it is asked for now is left as it is.

    Args:
        between: called now and then; what it raises comes out.

    Raises:
        SinkError: it is something else and may not be replaced, or another run is writing it.
    """
    painted = Parts(result).replacing()
    alike = render.alike(video, result)
    if painted:
        wrong = f"{painted} frames of what is to replace it are painted; --resume --force goes on from there"
    elif alike is False:
        wrong = (
            "is there in another style, strength, detail, steadiness, codec or quality; --force replaces it, "
            "another -o keeps it"
        )
    elif render.force and alike is None:
        return None
    elif found := render.differences(video, result, between):
        wrong = f"is there and differs from {video} ({'; '.join(found)}); --force replaces it"
    else:
        style, again = "" if alike else " in whatever style", " without --resume" if render.force else ""
        return f"finished before{style}; --force{again} paints it again"
    if render.force:
        return None
    raise SinkError(f"{result}: {wrong}")
