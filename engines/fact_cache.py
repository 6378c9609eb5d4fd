"""What was found out about engines on this machine: facts in the user's cache, which are asked for once."""

import errno
import hashlib
import json
import logging
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from engines.atomic_write import atomic_write

log = logging.getLogger("fauve")


def version_of(package: str) -> str:
    """The installed version of a distribution; empty if there is none by that name."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def recall(kind: str, key: Sequence[object]) -> dict[str, Any] | None:
    """The facts of `kind` that were remembered for `key`, None if there are none that can be read."""
    try:
        facts = json.loads(_path(kind, key).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def remember(kind: str, key: Sequence[object], facts: dict[str, Any]) -> None:
    """Write `facts`, whole or not at all: others may look for them at the same time. It may fail."""
    try:
        path = _path(kind, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(facts, indent=2).encode())
    except OSError as error:
        log.info("what was found of %s cannot be remembered: %s", kind, error)


def _path(kind: str, key: Sequence[object]) -> Path:
    digest = hashlib.sha256(json.dumps(list(key)).encode()).hexdigest()
    return cache_folder(kind) / f"{digest}.json"


def cache_folder(kind: str) -> Path:
    """Where files of `kind` lie in the user's cache; it need not be there yet.

    Raises:
        FileNotFoundError: the user has no home.
    """
    try:
        return user_cache_path("fauve", appauthor=False) / kind
    except RuntimeError as error:  # as of a container's user whom the system does not know
        raise FileNotFoundError(errno.ENOENT, "no home to keep it in; set HOME", "~") from error
