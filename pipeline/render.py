"""One video file painted into another, with everything that was asked for."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from engines import Engine, Image, Look, Size
from pipeline.errors import SinkError
from pipeline.frame import VideoInfo
from pipeline.progress import Progress
from pipeline.rate import ConstantRate
from pipeline.scaling import Detail, resize, stylizer
from pipeline.sinks.file import FileSink
from pipeline.sources import Source
from pipeline.sources.file import FileSource
from pipeline.stream import run
from pipeline.verify import differences, read_contents


@dataclass(frozen=True)
class Render:
    """How videos are to be painted and written."""

    engine: Engine
    look: Look
    detail: Detail = 1.0
    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    size: Size | None = None
    """(width, height) of the output; the source's if not given. Another shape changes that of the pixels."""
    rate: Fraction | None = None
    """Frames per second of the output; each frame at its own time if not given."""
    audio: bool = True
    force: bool = False
    """Replace files that are there."""

    def __call__(
        self, video: Path, output: Path, progress: Callable[[VideoInfo], Progress]
    ) -> dict[str, Any]:
        """Paint `video` into `output` and return what happened.

        Args:
            progress: makes the progress to show for such a video.

        Raises:
            SourceError, SinkError, EngineError: as `pipeline.stream.run`; nothing is left of `output`.
        """
        if output.exists() and video.exists() and output.samefile(video):
            raise SinkError(f"{output}: is the video itself; give another name")
        with FileSource(video, audio=self.audio) as file:
            source: Source = file if self.rate is None else ConstantRate(file, self.rate)
            info, paint = source.info, stylizer(self.engine, (file.info.width, file.info.height), self.detail)
            if self.size is not None:
                info, paint = _at_size(info, self.size), _resized(paint, self.size)
            sink = FileSink(
                output, info, codec=self.codec, crf=self.crf, preset=self.preset, force=self.force
            )
            try:
                with progress(info) as shown:
                    stats = run(
                        source,
                        paint,
                        [sink],
                        look_at=lambda time: self.look,
                        streams=self.engine.streams,
                        progress=shown.show,
                    )
            except BaseException:
                # Ctrl-C may come before the threads that would abort it.
                sink.abort()
                raise
        return {
            "video": str(video),
            "output": str(output),
            "frames": stats.encoded,
            "seconds": round(stats.seconds, 2),
            "fps": round(stats.fps, 1),
            "style": self.engine.style.name,
            "engine": self.engine.name,
            "precision": self.engine.precision,
            "damaged_packets": file.damaged,
        }

    def differences(self, video: Path, output: Path) -> list[str]:
        """What `output` lacks of the promise about `video`, as `fauve verify` finds it.

        A size or rate that was asked for is no difference; the frames of another rate are not compared.
        """
        before, after = read_contents(video), read_contents(output)
        if not self.audio:
            silent = tuple(track for track in before.tracks if track.kind != "audio")
            before = dataclasses.replace(before, tracks=silent)
        if self.size is not None:
            before = dataclasses.replace(before, size=self.size, aspect=after.aspect)
        if self.rate is not None:
            before = dataclasses.replace(before, times=after.times, ends=after.ends)
        return differences(before, after)


def _at_size(info: VideoInfo, size: Size) -> VideoInfo:
    shape = info.sample_aspect_ratio * Fraction(info.width * size[1], info.height * size[0])
    return dataclasses.replace(
        info, width=size[0], height=size[1], sample_aspect_ratio=shape.limit_denominator(255)
    )


def _resized(paint: Callable[[Image, Look], Image], size: Size) -> Callable[[Image, Look], Image]:
    def paint_and_resize(image: Image, look: Look) -> Image:
        return resize(paint(image, look), size)

    return paint_and_resize
