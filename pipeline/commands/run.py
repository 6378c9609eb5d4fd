"""`fauve run`: a video file in, a painted video file out."""

import sys
from pathlib import Path
from typing import Any

import click

import engines
from engines import Style
from pipeline.commands.options import PATH, Mix, detail_option, engine_options, look, onnx_options
from pipeline.encoders import ENCODERS
from pipeline.errors import SinkError
from pipeline.progress import Mode, Progress
from pipeline.scaling import stylizer
from pipeline.sinks.file import FileSink
from pipeline.sources.file import FileSource
from pipeline.stream import run as run_stream
from pipeline.verify import differences, read_contents


@click.command()
@click.argument("video", type=PATH)
@click.option(
    "-o", "--output", type=PATH, required=True, help="The painted video: .mp4, .mov, .mkv or .webm."
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
@detail_option
@engine_options
@onnx_options
@click.option("--codec", type=click.Choice(list(ENCODERS)), help="h264 if not given, vp9 in a .webm.")
@click.option("--crf", type=int, help="Quality: smaller is better and larger; 18 for h264 if not given.")
@click.option("--preset", help="Effort, as the codec calls it: veryfast for h264 if not given.")
@click.option(
    "--verify", "check", is_flag=True, help="Compare the result with the video, as `fauve verify` does."
)
@click.option("--no-audio", is_flag=True, help="Leave the sound out.")
@click.option("-f", "--force", is_flag=True, help="Replace a file that is there.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing unless something is wrong.")
@click.option("--json", "as_json", is_flag=True, help="Print progress and result as lines of JSON.")
def run(
    video: Path,
    output: Path,
    style: str,
    strength: float,
    mix: dict[str, float] | None,
    detail: Any,
    engine: str,
    precision: str,
    threads: int | None,
    layout: Any,
    value_range: Any,
    codec: str | None,
    crf: int | None,
    preset: str | None,
    check: bool,
    no_audio: bool,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Paint VIDEO, every frame of it in order and with its sound.

    The result gets its name when it is complete; after an error or Ctrl-C nothing is left behind.
    """
    if output.exists() and video.exists() and output.samefile(video):
        raise SinkError(f"{output}: is the video itself; give another name")
    pack = Style.load(style, layout=layout, value_range=value_range)
    chosen = look(mix, strength, pack.styles)
    if pack.notes and not quiet:
        click.echo(f"{style}: {pack.notes}", err=True)
    with (
        FileSource(video, audio=not no_audio) as source,
        engines.load(engine, style=pack, precision=precision, threads=threads, hint="throughput") as runtime,
    ):
        info = source.info
        paint = stylizer(runtime, (info.width, info.height), detail)
        sink = FileSink(output, info, codec=codec, crf=crf, preset=preset, force=force)
        how: Mode = "json" if as_json else "bar" if sys.stderr.isatty() and not quiet else "silent"
        with Progress(info.frames, how) as progress:
            stats = run_stream(
                source,
                paint,
                [sink],
                look_at=lambda time: chosen,
                streams=runtime.streams,
                progress=progress.show,
            )
        result = {
            "output": str(output),
            "frames": stats.encoded,
            "seconds": round(stats.seconds, 2),
            "fps": round(stats.fps, 1),
            "style": pack.name,
            "engine": runtime.name,
            "precision": runtime.precision,
            "damaged_packets": source.damaged,
        }
    if check:
        found = differences(read_contents(video), read_contents(output))
        if found:
            raise SinkError(f"{output}: is written, but differs from {video}: {'; '.join(found)}")
    progress.finish(result)
    if not quiet and not as_json:
        click.echo(
            f"{output}: {stats.encoded} frames painted as {pack.title} in {stats.seconds:.1f} s "
            f"({stats.fps:.1f} fps, {runtime.name} {runtime.precision})"
        )
