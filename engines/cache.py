"""Where fauve keeps on this machine what it can make again."""

import os
import sys
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """The folder `FAUVE_CACHE` names, or one where the system keeps caches; it may not be there yet."""
    if named := os.environ.get("FAUVE_CACHE"):
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "fauve" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fauve"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fauve"


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all, making its folder.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
