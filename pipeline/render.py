"""One video file painted into another, with everything that was asked for."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

from engines import Engine, Image, Look, Size
from engines.parity import version
from pipeline.errors import SinkError, SourceError
from pipeline.farm import LARGEST, PIECES, Farm
from pipeline.frame import Frame, VideoInfo
from pipeline.gpu_video import DevicePainter, DeviceSource
from pipeline.grey_window import Window
from pipeline.hdr import HLG, PQ
from pipeline.motion import Followed
from pipeline.nv12 import Planes
from pipeline.progress import VideoProgress
from pipeline.rate import ConstantRate
from pipeline.replay import Show, Staged
from pipeline.scaling import Detail, resample, size_for, stylizer
from pipeline.segments import Segment, after, missing
from pipeline.sinks import Sink
from pipeline.sinks.clock import WARM_UP, Clock
from pipeline.sinks.container import ANIMATIONS, DEFAULT_CODEC, Container, muxer_of, refuse_lost_aspect
from pipeline.sinks.encoders import ENCODERS, Encoding, choose
from pipeline.sinks.file import FileSink, put_in_place, refuse_existing
from pipeline.sinks.images import ImageSink, holds_alpha, images_done, writes_images
from pipeline.sinks.parts import Parts, PartSink, join
from pipeline.sinks.preview import PreviewPage, PreviewSink
from pipeline.sinks.tracks import held_by
from pipeline.sources import Source
from pipeline.sources.demuxer import is_sequence, numbered, open_input, picture_stream
from pipeline.sources.file import Decoder, FileSource
from pipeline.sources.index import read_index
from pipeline.stats import Stats
from pipeline.stream import run
from pipeline.temporal_filter import TemporalFilter, memory
from pipeline.verify import Contents, differences, read_contents
from pipeline.workers import Runtime, paint_in_processes

log = logging.getLogger("fauve")

MEASURED = 60
"""Frames that tell what is faster, once all is prepared."""

MOST_GIF = 100
"""Pictures a second in a .gif, which counts in hundredths of one."""

MARK = "fauve "
"""How the tag begins that tells what a painting was made with."""


Opened = tuple[FileSource, Source, Callable[[Image, Look], Image]]
"""The file, the frames of it to be painted, and what paints them."""


@dataclass(frozen=True)
class Painting:
    """How the frames of one video are painted."""

    video: Path
    look: Look | Show
    detail: Detail
    size: Size | None
    rate: Fraction | None
    background: tuple[int, int, int] | None
    """What a transparent video is laid over, where its alpha is not kept."""
    keep_hdr: bool
    score: bool
    window: Window | None
    decoder: Decoder
    follow: bool
    """The style's canvas goes along with what the camera films."""
    steady: float
    """Share of the frame before that is mixed into each one, along the motion."""

    def open(self, engine: Engine, segment: Segment, file: FileSource | None = None) -> Opened:
        """The frames of `segment`, to be painted by `engine`.

        Args:
            file: read from where it is, in place of opening the video once more.

        Raises:
            SourceError: as `FileSource`.
        """
        if file is not None:
            source = rated(file, self.rate)
        else:
            file, source = segment.open(self.video, self.rate, self.decoder)
        try:
            self.prepare(file)
            paint = painter(engine, file.info, self.detail, self.size)
        except BaseException:
            file.close()
            raise
        if self.follow:
            source = Followed(source, segment.motion)
        if isinstance(self.look, Show):
            source = Staged(source, self.look, self._before)
        return file, source, paint

    def _before(self, time: Fraction) -> Frame | None:
        """The last frame before that time of the video."""
        file, frames = Segment().open(self.video, self.rate)
        with frames:
            self.prepare(file)
            last = None
            for item in Followed(frames) if self.follow else frames:
                if isinstance(item, Frame):
                    if item.time >= time:
                        break
                    last = item
            return last

    def write(
        self,
        opened: Opened,
        segment: Segment,
        engine: Engine,
        sinks: Sequence[Sink],
        stats: Stats,
        progress: Callable[[Stats], None] | None,
    ) -> None:
        """Paint the frames of `opened`, which are those of `segment`, into `sinks`, and close it.

        Raises:
            SourceError, SinkError, EngineError: as `pipeline.stream.run`.
        """
        file, source, paint = opened
        size = size_for(engine.style, (file.info.width, file.info.height), self.detail)
        with source:
            run(
                source,
                paint,
                sinks,
                look_at=looks(self.look),
                streams=engine.streams,
                then=TemporalFilter(self.steady, size) if self.steady else None,
                start=segment.start,
                progress=progress,
                stats=stats,
                scored=any_look if self.score else None,
            )
        stats.damaged += file.damaged
        stats.cut_short |= file.cut_short

    def located(self, segments: Sequence[Segment], progress: Callable[[int], None]) -> list[Segment]:
        """`segments`, each with where the camera has got to before it, if the canvas goes along with that.

        Args:
            progress: is told of each frame how many came before it.

        Raises:
            SourceError: the video cannot be read.
        """
        if not self.follow or all(segment.start is None for segment in segments):
            return list(segments)
        log.info("%s: reading the video up to where painting starts, to follow its camera", self.video)
        file, source = Segment().open(self.video, self.rate, self.decoder)
        found: list[Segment] = []
        left = deque(segments)
        with source:
            self.prepare(file)
            followed = Followed(source)
            motion = followed.motion
            frames = (item for item in followed if isinstance(item, Frame))
            for number, item in enumerate(frames):
                progress(number)
                while left and (left[0].first is None or item.pts >= left[0].first):
                    found.append(dataclasses.replace(left.popleft(), motion=motion))
                if not left:
                    break
                motion = followed.motion
        return [*found, *left]

    def first(self, count: int, progress: Callable[[int], None]) -> list[int]:
        """Pts of the first `count` frames, counted by decoding: not every packet gives a picture.

        Args:
            progress: is told of each frame how many came before it.

        Raises:
            SourceError: the video cannot be read.
        """
        _, source = Segment().open(self.video, self.rate, self.decoder)
        found: list[int] = []
        with source:
            for item in islice((item for item in source if isinstance(item, Frame)), count):
                progress(len(found))
                found.append(item.pts)
        return found

    def prepare(self, file: FileSource) -> None:
        """Have `file` give the pictures as they are to be painted."""
        if self.background is not None:
            file.flatten(self.background)
        if self.keep_hdr:
            file.keep_hdr()
        file.see(self.window)


@dataclass(frozen=True)
class PartPainting(Painting):
    """How the frames of one video become the parts of another; can be sent to another process."""

    parts: Parts
    encoding: Encoding
    on_device: bool = False
    """The GPU decodes, paints and encodes without copies of the frames; `kept_on_device` says where."""

    def paint(
        self,
        engine: Engine,
        segment: Segment,
        stats: Stats,
        progress: Callable[[Stats], None] | None,
        others: Sequence[Sink] = (),
    ) -> None:
        """Paint the frames of `segment` into parts, and into `others`.

        Raises:
            SourceError, SinkError, EngineError: as `pipeline.stream.run`; finished parts stay.
        """
        opened = self._on_device(engine, segment) if self.on_device else self.open(engine, segment)
        sink = PartSink(self.parts, sized(opened[1].info, self.size), self.encoding)
        self.write(opened, segment, engine, [sink, *others], stats, progress)

    def _on_device(self, engine: Engine, segment: Segment) -> Opened:
        file = DeviceSource(self.video, start=segment.after, end=segment.end, entry=segment.entry)
        size = (file.info.width, file.info.height)
        paint: Any = DevicePainter(engine, size, file.info.colour, self.detail)
        grey = partial(Planes.grey, colour=file.info.colour)
        source = Followed(file, segment.motion, grey) if self.follow else file
        return file, source, paint

    def kept_on_device(self, engine: Engine, shown: bool) -> "PartPainting":
        """The same, with the frames on the GPU all the way, where that can be and is faster; else says why.

        Args:
            shown: somebody sees the pictures meanwhile.
        """
        reason = self._leaves_device(engine, shown)
        if reason is None:
            try:
                stays, leaves = (
                    self._measured(opened(engine, Segment())) for opened in (self._on_device, self.open)
                )
                if stays <= leaves:
                    return dataclasses.replace(self, on_device=True)
                reason = f"that is faster here ({leaves:.2f} s against {stays:.2f} s)"
            except SourceError as error:
                reason = str(error).removeprefix(f"{self.video}: ")
        log.warning("%s: its frames are copied from the GPU and back: %s", self.video, reason)
        return self

    def _leaves_device(self, engine: Engine, shown: bool) -> str | None:
        """What is asked for that cannot be done there; None if all can."""
        asked = {
            f"--engine {engine.name}": engine.name != "torch:cuda",
            "the preview page": shown,
            "--score": self.score,
            "--steady": self.steady > 0,
            "a show": isinstance(self.look, Show),
            "--fps or --size": self.rate is not None or self.size is not None,
            "--hdr keep": self.keep_hdr,
            "--background or --window": self.background is not None or self.window is not None,
            f"{self.encoding.encoder.name} of {self.encoding.pixels}": not (
                self.encoding.encoder.nvidia or self.encoding.pixels == "yuv420p"
            ),
        }
        return next((f"{name} works on copies" for name, holds in asked.items() if holds), None)

    def _measured(self, opened: Opened) -> float:
        """Seconds that the first frames take once it runs, encoded as all will be."""
        _, source, paint = opened
        with source:
            clock = Clock(self.encoding, sized(source.info, self.size))
            run(Beginning(source), paint, [clock], look_at=looks(self.look))
        return clock.seconds


@dataclass(frozen=True)
class Render:
    """How videos are to be painted and written."""

    engine: Engine
    look: Look | Show
    detail: Detail = 1.0
    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    size: Size | None = None
    """(width, height) of the output; the source's if not given. Another shape changes that of the pixels."""
    rate: Fraction | None = None
    """Frames per second of the output; each frame at its own time if not given."""
    background: tuple[int, int, int] = (0, 0, 0)
    """What a transparent video is laid over, where the output cannot be transparent."""
    audio: bool = True
    force: bool = False
    """Replace files that are there, and begin anew where an earlier run left parts."""
    resume: bool = False
    """Go on where an earlier run was stopped."""
    workers: int = 1
    """Processes that paint one video."""
    pixels: str | None = None
    """FFmpeg's name of the output's pixel format; what suits picture and codec if not given."""
    keep_hdr: bool = False
    """Lift what is painted of an HDR video back to its range."""
    decoder: Decoder = "cpu"
    farm: Farm | None = None
    """Paints instead of this machine."""
    page: PreviewPage | None = None
    """Shows the pictures while they are painted; not with several workers."""
    score: bool = False
    """Tell how still the painting holds."""
    window: Window | None = None
    """What of a grey picture in many bits is seen; nearly all if not given."""
    follow: bool = True
    """Take the style's canvas along with what the camera films."""
    steady: float = 0.0
    """Share of the frame before that is mixed into each one, along the motion; up to 0.9."""

    def __call__(
        self, video: Path, output: Path, progress: Callable[[VideoInfo], VideoProgress]
    ) -> dict[str, Any]:
        """Paint `video` into `output` and return what happened.

        Args:
            progress: makes the progress to show for such a video.

        Raises:
            SourceError, SinkError, EngineError: as `pipeline.stream.run`; nothing is left under the name of
                `output`, but the finished parts of a long render stay beside it.
        """
        with FileSource(video, audio=self.audio, picture_rate=self.rate, decoder=self.decoder) as file:
            if writes_images(output):
                if self.pixels is not None:
                    raise SinkError(f"{output}: pictures have no --pixel-format to choose; leave it out")
                if self.keep_hdr:
                    raise SinkError(f"{output}: pictures hold no high dynamic range; leave out --hdr keep")
                # Nobody looks at what a photograph says of them, as scanners have it.
                if self.size is None and not writes_images(video):
                    refuse_lost_aspect(output, f"a {output.suffix} picture", file.info)
            if self.keep_hdr:
                file.keep_hdr()
            file.see(self.window)
            render = self
            if isinstance(self.look, Show):
                # Videos that are painted at the same time share the show, and begin at times of their own.
                show = copy(self.look)
                show.begins = file.begins
                render = dataclasses.replace(self, look=show)
            if self.page is not None:
                self.page.begin(video.name, file.info.frames)
            muxer = None if writes_images(output) else muxer_of(output)
            codec = None if muxer is None else self._codec(file, muxer)
            painting = render.painting(video, self._flatten(file, output, codec))
            # The alpha of VP9 travels beside its packets, and parts hold packets only.
            beside = file.info.alpha and codec == "vp9"
            undivided = beside or muxer in ANIMATIONS or "-" in (str(video), str(output))
            with progress(rated(file, self.rate).info) as shown:
                if muxer is None:
                    stats = render._write_images(painting, file, output, shown)
                elif undivided:
                    stats = render._stream(painting, file, output, shown)
                else:
                    stats = render._render(painting, file, output, shown)
        return {
            "video": str(video),
            "output": str(output),
            "frames": stats.before + stats.encoded,
            "seconds": round(stats.seconds, 2),
            "fps": round(stats.fps, 1),
            "pack": self.engine.style.name,
            **self._painted(),
            "engine": self.engine.name,
            "precision": self.engine.precision,
            "damaged_packets": stats.damaged,
            "cut_short": stats.cut_short,
            **({} if stats.flicker is None else {"flicker": stats.flicker.report()}),
        }

    def _painted(self) -> dict[str, Any]:
        """The share of each style and their strength; nothing of a show, in which they change."""
        if isinstance(self.look, Show):
            return {}
        styles = self.engine.style.styles
        shares = zip(styles, self.look.weights(styles).tolist(), strict=True)
        return {
            "mix": {name: round(share, 4) for name, share in shares if share},
            "strength": self.look.strength,
        }

    def _flatten(self, file: FileSource, output: Path, codec: str | None) -> tuple[int, int, int] | None:
        """Lay a transparent video over the background, if its output cannot be transparent, and say so.

        Args:
            codec: None where each picture is a file.

        Returns:
            the background, or None if the video is not laid over it.
        """
        held = holds_alpha(output) if codec is None else transparent(codec, muxer_of(output))
        if held or not file.info.alpha:
            return None
        others = [".png", ".tif"] if codec is None else _transparent_codecs(muxer_of(output))
        log.warning(
            "%s: cannot be transparent, and is laid over %s; %s can be",
            *(output, "#{:02x}{:02x}{:02x}".format(*self.background), " and ".join(others)),
        )
        file.flatten(self.background)
        return self.background

    def _write_images(
        self, painting: Painting, file: FileSource, output: Path, shown: VideoProgress
    ) -> Stats:
        """Paint pictures, going on behind those that an earlier run has finished."""
        if self.workers > 1 or self.farm is not None:
            raise SinkError(f"{output}: pictures are written by one worker")
        video = painting.video
        piped = str(video) == "-"
        if piped and self.resume:
            raise SinkError(f"{output}: what comes from standard input cannot be resumed")
        journal = self._journal(video, None)
        done = images_done(output, journal) if self.resume else 0
        segment = Segment()
        if done:
            times = painting.first(done + 1, shown.look_through)
            if len(times) <= done:
                return Stats(before=done)
            left = [after(times[:done], self.rate, memory(self.steady))]
            (segment,) = painting.located(left, shown.look_through)
        sink, stats = ImageSink(output, journal, done=done, force=self.force), Stats(before=done)
        opened = painting.open(self.engine, segment, file if piped else None)
        try:
            painting.write(opened, segment, self.engine, [sink, *self._preview()], stats, shown.show)
        except BaseException as error:
            written = stats.before + stats.encoded
            if is_sequence(output) and written:
                log.warning("%s: %d pictures are done; --resume goes on from there", output, written)
                if isinstance(error, KeyboardInterrupt):
                    raise KeyboardInterrupt("stopped") from None
            raise
        return stats

    def _stream(self, painting: Painting, file: FileSource, output: Path, shown: VideoProgress) -> Stats:
        """Paint what is written in one go, such as a pipe: nothing to resume or to divide."""
        if self.resume or self.workers > 1 or self.farm is not None:
            raise SinkError(
                f"{output}: is written in one go, and can be neither resumed nor painted by several workers"
            )
        rate = self.rate or file.info.rate
        if muxer_of(output) == "gif" and rate > MOST_GIF:
            raise SinkError(
                f"{output}: a .gif shows {MOST_GIF} pictures a second at most, not {float(rate):g}; give "
                f"--fps {MOST_GIF // 2}"
            )
        codec = self._codec(file, muxer_of(output))
        segment, stats = Segment(), Stats()
        opened = painting.open(self.engine, segment, file)
        sink = FileSink(
            *(output, sized(opened[1].info, self.size)),
            codec=codec,
            crf=self.crf,
            preset=self.preset,
            pixels=self.pixels,
            force=self.force,
            mark=self._mark(file, codec, painting.background),
        )
        try:
            painting.write(opened, segment, self.engine, [sink, *self._preview()], stats, shown.show)
        except BaseException:
            # Ctrl-C may come before the threads that would abort it.
            sink.abort()
            raise
        return stats

    def _render(self, painting: Painting, file: FileSource, output: Path, shown: VideoProgress) -> Stats:
        """Paint parts, and join them with the other tracks of the video."""
        info, muxer = sized(rated(file, self.rate).info, self.size), muxer_of(output)
        codec = self._codec(file, muxer)
        encoding = choose(codec, info, muxer=muxer, crf=self.crf, preset=self.preset, pixels=self.pixels)
        refuse_existing(output, self.force)
        parts = Parts(output)
        parts.begin(self._journal(painting.video, encoding), resume=self.resume, force=self.force)
        divided = PartPainting(**vars(painting), parts=parts, encoding=encoding)
        try:
            if self.decoder == "cuda":
                divided = divided.kept_on_device(self.engine, self.page is not None)
            mark = self._mark(file, codec, painting.background)
            container = Container(output, parts.joined, info, encoding, mark)
            try:
                stats = self._paint(divided, file.info.time_base, shown)
                finished = list(parts)
                kept, painted = sum(len(part.packets) for part in finished), stats.before + stats.encoded
                if kept != painted:
                    raise SinkError(
                        f"{output}: {painted} frames were painted, and only {kept} could be written"
                    )
                join(finished, container, file.packets(), info)
                stats.cut_short |= file.cut_short
                container.close()
            except BaseException:
                container.abort()
                raise
            put_in_place(parts.joined, output, self.force)
        except BaseException:
            done = sum(len(part.packets) for part in parts)
            if done:
                parts.end()
                options = "--resume --force" if output.exists() else "--resume"
                log.warning("%s: %d frames are done; %s goes on from there", output, done, options)
            else:
                parts.remove()
            raise
        parts.remove()
        return stats

    def _paint(self, painting: PartPainting, time_base: Fraction, shown: VideoProgress) -> Stats:
        """Paint what `painting` has no parts of."""
        done = list(painting.parts)
        stats = Stats(before=sum(len(part.packets) for part in done))
        segments = [Segment()]
        places = self.workers if self.farm is None else self.farm.places
        if done or places > 1 or self.farm is not None:
            index = read_index(painting.video, self.rate)
            pieces, largest = (places, None) if self.farm is None else (PIECES * places, LARGEST)
            lead = memory(self.steady)
            if index is not None:
                segments = missing(done, index, time_base, self.rate, pieces, largest=largest, lead=lead)
            else:
                written = sorted(pts for part in done for pts, *_ in part.packets)
                segments = [after(written, self.rate, lead)]
                if places > 1 or self.farm is not None:
                    log.warning(
                        "%s: does not tell when its frames are shown, so that one worker paints it",
                        painting.video,
                    )
        segments = painting.located(segments, shown.look_through)
        if self.farm is not None:
            runtime = Runtime(self.engine.style, self.engine.name, self.engine.precision, self.farm.threads)
            self.farm.check(runtime)
            self.farm.paint(painting, segments, runtime, stats, shown.show)
        elif self.workers > 1 and len(segments) > 1:
            workers = min(self.workers, len(segments))
            threads = max(1, (os.cpu_count() or 1) // workers)
            runtime = Runtime(
                self.engine.style, self.engine.name, self.engine.precision, threads, self.engine.kernels
            )
            paint_in_processes(painting.paint, segments, runtime, stats, shown.show, workers)
        else:
            for segment in segments:
                painting.paint(self.engine, segment, stats, shown.show, self._preview())
        return stats

    @property
    def _follows(self) -> bool:
        return self.follow and self.engine.style.carried

    def painting(self, video: Path, background: tuple[int, int, int] | None) -> Painting:
        """How the frames of `video` are painted, laid over `background` if they are to lose their alpha."""
        return Painting(
            *(video, self.look, self.detail, self.size, self.rate, background),
            *(self.keep_hdr, self.score, self.window, self.decoder, self._follows, self.steady),
        )

    def _codec(self, file: FileSource, muxer: str) -> str:
        """What is asked for, or what suits the container and the range; few players show HDR in H.264."""
        usual = "h265" if file.info.colour.transfer in (PQ, HLG) else "h264"
        return self.codec or DEFAULT_CODEC.get(muxer, usual)

    def _preview(self) -> Sequence[Sink]:
        return [] if self.page is None else [PreviewSink(self.page)]

    def _journal(self, video: Path, encoding: Encoding | None) -> dict[str, Any]:
        """All that the pictures of a render depend on, for whoever goes on with it.

        Args:
            encoding: None where each picture is a file.
        """
        engine, style = self.engine, self.engine.style
        return {
            "fauve": metadata.version("fauve"),
            "video": _identity(video),
            "style": [style.name, style.digest],
            "engine": [engine.name, version(engine.name), engine.precision, engine.device],
            "kernels": engine.kernels,
            "look": self.look.facts
            if isinstance(self.look, Show)
            else [dict(self.look.mix), self.look.strength],
            "detail": self.detail,
            "follow": self._follows,
            "steady": self.steady,
            "background": list(self.background),
            "hdr": self.keep_hdr,
            "window": None if self.window is None else dataclasses.astuple(self.window),
            "decoder": self.decoder,
            "size": self.size,
            "rate": None if self.rate is None else str(self.rate),
            "encoder": None if encoding is None else encoding.facts(),
        }

    def _mark(self, file: FileSource, codec: str, background: tuple[int, int, int] | None) -> str:
        """What tells paintings of `file` in this style, look and quality from all others."""
        facts: list[Any] = [
            self.engine.style.digest,
            self.look.facts if isinstance(self.look, Show) else self._painted(),
            *(self.detail, self._follows, background, file.info.colour.transfer),
            None if self.window is None else dataclasses.astuple(self.window),
            *(codec, ENCODERS[codec].settings(codec, self.crf, self.preset), self.pixels),
            *([self.steady] if self.steady else []),
        ]
        return MARK + hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def alike(self, video: Path, output: Path) -> bool | None:
        """Whether `output` is in the style, look and quality that are asked for; None where it does not tell.

        Raises:
            SourceError: `video` cannot be read.
        """
        mark = _mark_of(output)
        if mark is None:
            return None
        with FileSource(video, tracks=False, picture_rate=self.rate) as file:
            if self.keep_hdr:
                file.keep_hdr()
            muxer = muxer_of(output)
            codec = self._codec(file, muxer)
            flat = file.info.alpha and not transparent(codec, muxer)
            return mark == self._mark(file, codec, self.background if flat else None)

    def differences(self, video: Path, output: Path, between: Callable[[], None] | None = None) -> list[str]:
        """What `output` lacks of the promise about `video`, as `fauve verify` finds it.

        A size or rate that was asked for is no difference; of another rate, the frames are only counted.

        Args:
            between: called now and then; what it raises comes out.

        Raises:
            SourceError: one of them cannot be read.
        """
        before, after = read_contents(video, self.rate, between), read_contents(output, between=between)
        if not self.audio:
            silent = tuple(track for track in before.tracks if track.kind != "audio")
            before = dataclasses.replace(before, tracks=silent)
        if self.size is not None:
            before = dataclasses.replace(before, size=self.size, aspect=after.aspect)
        found = []
        if self.rate is not None:
            count, counts = len(after.times), _frames_at(before, self.rate)
            fewer = after.merges and count < counts[0]
            if not fewer and min(abs(count - expected) for expected in counts) > 1:
                found.append(f"frames: {counts[0]} at {float(self.rate):g} fps, {count} in the output")
            before = dataclasses.replace(before, times=after.times, ends=after.ends)
        encoder = None if self.codec is None else ENCODERS.get(self.codec)
        if encoder is not None and encoder.codec != after.codec and not after.bare:
            found.append(f"codec: {encoder.codec} is asked for, the output is in {after.codec}")
        return found + differences(before, after)


def transparent(codec: str, muxer: str) -> bool:
    """Whether pictures of `codec`, a key of `ENCODERS`, can be transparent in files of FFmpeg's `muxer`."""
    # Only Matroska has a place for the alpha of VP9, which travels beside its packets.
    placed = codec != "vp9" or muxer in ("matroska", "webm")
    return placed and codec in ENCODERS and ENCODERS[codec].alpha_pixels is not None


def _transparent_codecs(muxer: str) -> list[str]:
    """The options for what can be transparent in files of FFmpeg's `muxer`; other files, if nothing can."""
    codecs = held_by(muxer) - ANIMATIONS
    names = [name for name, each in ENCODERS.items() if each.codec in codecs and transparent(name, muxer)]
    return [f"--codec {name}" for name in names] or [".mov", ".mkv"]


def _mark_of(output: Path) -> str | None:
    """What `output` was painted with, as `Render` has marked it; None if it is not."""
    with contextlib.suppress(SourceError), open_input(output) as container:
        tags = getattr(picture_stream(container), "metadata", {})
        told: str = next((text for key, text in tags.items() if key.lower() == "encoder"), "")
        return told if told.startswith(MARK) else None
    return None


def _frames_at(contents: Contents, rate: Fraction) -> list[int]:
    """How many frames it has at that rate, by each of the times that it may end at."""
    start = contents.times[0] or Fraction(0)
    return [max(1, round(end * rate) - round(start * rate)) for end in contents.ends] or [len(contents.times)]


def _identity(video: Path) -> list[Any]:
    """What tells one video from another, as JSON can hold it; standard input looks like any other."""
    if str(video) == "-":
        return ["-"]
    files = list(numbered(video).values()) if is_sequence(video) else [video]
    states = [file.stat() for file in files]
    size, newest = sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)
    return [str(video.resolve()), len(files), size, newest]


def rated(file: FileSource, rate: Fraction | None) -> Source:
    """The frames of `file` at `rate`, or at their own times."""
    return file if rate is None else ConstantRate(file, rate)


def looks(look: Look | Show) -> Callable[[Fraction], Look]:
    """The look at each time of a video."""
    return look.look_at if isinstance(look, Show) else lambda time: look


def any_look(look: Look) -> bool:
    """All frames of a file count for its flicker score."""
    return True


class Beginning(Source):
    """The first frames of a source, as many as tell how fast all will be."""

    def __init__(self, source: Source) -> None:
        self._source, self.info = source, source.info

    def __iter__(self) -> Iterator[Frame]:
        yield from islice((item for item in self._source if isinstance(item, Frame)), WARM_UP + MEASURED)

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def sized(info: VideoInfo, size: Size | None) -> VideoInfo:
    """What a sink is told of frames that are written at `size`; another shape changes that of the pixels."""
    if size is None:
        return info
    shape = info.sample_aspect_ratio * Fraction(info.width * size[1], info.height * size[0])
    return dataclasses.replace(
        info, width=size[0], height=size[1], sample_aspect_ratio=shape.limit_denominator(255)
    )


def painter(
    engine: Engine, info: VideoInfo, detail: Detail, size: Size | None
) -> Callable[[Image, Look], Image]:
    """What paints the frames of `info`, at `size` or their own."""
    paint = stylizer(engine, (info.width, info.height), detail)
    if size is None:
        return paint
    return lambda image, look: resample(paint(image, look), size)
