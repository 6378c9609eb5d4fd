"""Which files a run paints, and what the results are called."""

import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import SinkError, SourceError
from pipeline.sinks.container import FORMATS
from pipeline.sinks.images import writes_images
from pipeline.sources.demuxer import NUMBER, is_sequence, numbered

VIDEO_SUFFIXES = (
    *(
        ".3gp",
        ".apng",
        ".asf",
        ".avi",
        ".dv",
        ".flv",
        ".gif",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
    ),
    *(".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
"""What is taken for a video in a folder."""

PICTURE_SUFFIXES = (".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""What is taken for a picture in a folder without videos."""

ROOMIEST = ".mkv"
"""For videos whose own kind of file is not written: it holds most."""


def plan(videos: Sequence[Path], output: Path) -> list[tuple[Path, Path]]:
    """Pairs of a video and its result: one pair for a file, else results by the same names in a folder.

    Args:
        videos: files and folders; of a folder, the videos directly in it, or the pictures if there are none.
        output: a file's name for one file, a folder for more; made if missing.

    Raises:
        SourceError: a folder without videos, or one that may not be read.
        SinkError: a result would be the video itself, two would have one name, that of one picture would be
            that of numbered ones, or several are to go into one file, or the folder cannot be made.
    """
    for path in (*videos, output):
        try:
            path.is_dir()
        except OSError as error:  # such as a name that is too long
            raise SourceError(f"{path}: {error.strerror}") from error
    if len(videos) == 1 and not videos[0].is_dir() and not output.is_dir():
        refuse_itself(videos[0], output)
        return [(videos[0], output)]
    if str(output) == "-":
        raise SinkError("-: standard output takes one video; give a folder for several")
    if output.suffix.lower() in (*FORMATS, *PICTURE_SUFFIXES) and not output.is_dir():
        raise SinkError(f"{output}: several videos go into a folder, and this is the name of a file")
    pairs: dict[str, tuple[Path, Path]] = {}
    for video in _files(videos):
        kept = video.suffix.lower() in (*FORMATS, *PICTURE_SUFFIXES)
        suffix = video.suffix if kept else ROOMIEST
        result = output / (video.stem + suffix)
        if writes_images(result) and NUMBER.search(result.name) and not is_sequence(video):
            raise SinkError(
                f"{result}: would be numbered pictures, because of the % in its name; rename {video}"
            )
        # Disks there take names that differ in case alone for the same.
        name = str(result).casefold() if sys.platform in ("win32", "darwin") else str(result)
        if name in pairs:
            raise SinkError(f"{result}: would be the result of {pairs[name][0]} and of {video}; rename one")
        refuse_itself(video, result)
        pairs[name] = (video, result)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(
            f"{output}: several videos go into a folder, which cannot be made: {error.strerror}"
        ) from error
    return list(pairs.values())


def refuse_itself(video: Path, output: Path) -> None:
    """Keep what is painted from being overwritten by its painting.

    Args:
        video: a file, or the name of a sequence of pictures; so is `output`.

    Raises:
        SinkError: `output` is `video`, or some of its pictures are.
    """
    if output.exists() and video.exists() and output.samefile(video):
        raise SinkError(f"{output}: is the video itself; give another name or folder")
    if is_sequence(video) or is_sequence(output):
        # One folder may have many names, a picture but one in it.
        inputs, outputs = (
            set(numbered(path.resolve()).values()) if is_sequence(path) else {path.resolve()}
            for path in (video, output)
        )
        if inputs & outputs:
            raise SinkError(f"{output}: has pictures of {video} itself; give another name or folder")


def _files(videos: Sequence[Path]) -> list[Path]:
    files = []
    for path in videos:
        if not path.is_dir():
            files.append(path)
            continue
        try:
            visible = sorted(file for file in path.iterdir() if file.name[0] != "." and not file.is_dir())
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
        inside = [file for file in visible if file.suffix.lower() in VIDEO_SUFFIXES]
        inside = inside or [file for file in visible if file.suffix.lower() in PICTURE_SUFFIXES]
        if not inside:
            raise SourceError(f"{path}: a folder without videos or pictures in it")
        files += inside
    return files
