"""What was found out about engines on this machine: facts in the user's cache, which are asked for once."""

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
    path = _path(kind, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(facts, indent=2).encode())
    except OSError as error:
        log.info("%s: cannot be remembered: %s", path, error)


def _path(kind: str, key: Sequence[object]) -> Path:
    digest = hashlib.sha256(json.dumps(list(key)).encode()).hexdigest()
    return user_cache_path("fauve", appauthor=False) / kind / f"{digest}.json"
