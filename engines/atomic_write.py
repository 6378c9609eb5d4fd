"""Files that are there whole or not at all."""

import os
import threading
from pathlib import Path


def atomic_write(path: Path, content: bytes | memoryview) -> None:
    """Write a file that is whole for whoever reads it meanwhile, and after a power cut.

    Windows replaces no file that somebody has open: it cannot be written then.

    Raises:
        OSError: it cannot be written; names it, and what was there before still is.
    """
    # Beside it, since a file is renamed at once within one file system only.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise
