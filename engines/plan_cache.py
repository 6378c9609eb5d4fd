"""Plans: what TensorRT has compiled, kept for the next time.

A plan is two files in the user's cache folder (`fauve engine list` shows it):

    <digest>.plan    TensorRT's own format; runs on the GPU and the version that it was built for, only
    <digest>.json    what it is good for, and how it was made: a `Plan`, to be read by people, too
    <digest>.timing  in place of a plan: what TensorRT has measured, which makes further builds faster
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from engines.atomic_write import atomic_write
from engines.errors import EngineBuildError
from engines.fact_cache import cache_folder
from engines.style import Size

log = logging.getLogger("fauve")

LOCK = "building.lock"

SMALLEST_SIDE = 64
"""Pixels; every plan reaches down to this, and further if it is built for less."""

LONGEST_SIDE = 1280
"""Pixels; every plan reaches at least this far, so that one serves all sizes of everyday."""


@dataclass(frozen=True)
class SizeRange:
    """The sizes (width, height) that a plan paints; it is fastest at `best`."""

    smallest: Size
    best: Size
    largest: Size

    @classmethod
    def around(cls, size: Size, multiple: int, carried: bool = False) -> "SizeRange":
        """Everything up to the longer side of `size`, lying or standing, in steps of `multiple`.

        Args:
            carried: with the room that a picture of a scene that moves has (`Style.place`).
        """
        room = multiple - 1 if carried else 0
        width, height = (_up(side + room, multiple) for side in size)
        least = min(_up(side, multiple) for side in (*size, SMALLEST_SIDE))
        most = max(width, height, _up(LONGEST_SIDE + room, multiple))
        return cls((least, least), (width, height), (most, most))

    @classmethod
    def only(cls, size: Size) -> "SizeRange":
        """One size, for a graph that takes no other."""
        return cls(size, size, size)

    def off(self, size: Size) -> int:
        """How far `size` is from the best one, in pixels of their areas."""
        return abs(area(self.best) - area(size))

    def __contains__(self, size: object) -> bool:
        if not isinstance(size, tuple):
            return False
        bounds = zip(self.smallest, size, self.largest, strict=True)
        return all(low <= side <= high for low, side, high in bounds)

    def __str__(self) -> str:
        return "{}x{} to {}x{}".format(*self.smallest, *self.largest)


def area(size: Size) -> int:
    """The pixels of a picture of `size` (width, height)."""
    return size[0] * size[1]


def _up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


@dataclass(frozen=True)
class Target:
    """What a plan depends on, its sizes aside: where any of it differs, another plan is needed."""

    model: str
    """The sha256 of the ONNX model."""
    precision: str
    tensorrt: str
    gpu: str
    compute_capability: str
    options: str
    """How the builder was told to build."""


@dataclass(frozen=True)
class Plan:
    """A compiled style."""

    target: Target
    sizes: SizeRange
    style: str
    """Its name; the model decides."""
    seconds: float
    """What it took to build."""

    @property
    def digest(self) -> str:
        """The plan's name: what it is built from and for."""
        parts = {"target": asdict(self.target), "sizes": asdict(self.sizes)}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class PlanCache:
    """The plans of this user, in `folder`, which several processes may use at the same time.

    Raises:
        EngineBuildError: no folder is given, and the user has none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        with _refusing(folder or Path("~")):
            self.folder = folder or cache_folder("plans")

    def plans(self) -> list[Plan]:
        """All plans, by style and size; what is no plan's description is passed over."""
        found = [plan for path in self.folder.glob("*.json") if (plan := _read(path)) is not None]
        return sorted(found, key=lambda plan: (plan.style, plan.target.precision, plan.sizes.best))

    def find(self, target: Target, size: Size | None = None) -> Plan | None:
        """The plan for `target` that paints `size` and is best near to it; any if no size is given."""
        plans = [plan for plan in self.plans() if plan.target == target]
        if size is None:
            return plans[0] if plans else None
        return min(
            (plan for plan in plans if size in plan.sizes),
            key=lambda plan: plan.sizes.off(size),
            default=None,
        )

    def read(self, plan: Plan) -> bytes | None:
        """TensorRT's part of `plan`; None if somebody has removed it."""
        return _contents(self.folder / f"{plan.digest}.plan")

    def write(self, plan: Plan, content: bytes) -> None:
        """Keep `plan`; others see all of it or nothing.

        Raises:
            EngineBuildError: it cannot be written.
        """
        self._replace(f"{plan.digest}.plan", content)
        text = json.dumps(asdict(plan), indent=2) + "\n"
        self._replace(f"{plan.digest}.json", text.encode())

    def size(self, plan: Plan) -> int:
        """Bytes of `plan` on the disk."""
        content = self.folder / f"{plan.digest}.plan"
        return content.stat().st_size if content.exists() else 0

    def timings(self, target: Target) -> bytes:
        """What TensorRT has measured for such targets; nothing at first."""
        return _contents(self.folder / _timing(target)) or b""

    def write_timings(self, target: Target, content: bytes) -> None:
        """Keep what TensorRT has measured."""
        self._replace(_timing(target), content)

    def clean(self) -> int:
        """Remove every file, also what a build that died has left; returns the bytes that they took.

        Folders are none of the cache's.

        Raises:
            EngineBuildError: something cannot be removed.
        """
        freed = 0
        if not self.folder.is_dir():
            return freed
        with self.building(), _refusing(self.folder):
            for path in self.folder.glob("*"):
                if path.name != LOCK and not path.is_dir():
                    freed += path.lstat().st_size
                    path.unlink()
        return freed

    @contextmanager
    def building(self) -> Iterator[None]:
        """One process builds at a time; what it has built may serve those who waited.

        Raises:
            EngineBuildError: nothing can be written there.
        """
        with _refusing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.warning("another process is building a TensorRT plan; waiting for it")
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _replace(self, name: str, content: bytes) -> None:
        with _refusing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_write(self.folder / name, content)


@contextmanager
def _refusing(folder: Path) -> Iterator[None]:
    """Say in one line that plans cannot be kept."""
    try:
        yield
    except OSError as error:
        raise EngineBuildError(f"tensorrt: {folder}: plans cannot be kept there: {error.strerror}") from error


def _timing(target: Target) -> str:
    """Timings hold for a version and a GPU, whatever is built."""
    machine = f"{target.tensorrt} {target.gpu} {target.compute_capability}"
    return f"{hashlib.sha256(machine.encode()).hexdigest()[:16]}.timing"


def _contents(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _read(path: Path) -> Plan | None:
    try:
        entry: dict[str, Any] = json.loads(path.read_bytes())
        sizes = {name: (int(width), int(height)) for name, (width, height) in entry.pop("sizes").items()}
        plan = Plan(Target(**entry.pop("target")), SizeRange(**sizes), **entry)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return plan if plan.digest == path.stem else None
