"""One render on many machines, by Ray: each paints stretches of the video, and what dies is done again."""

import dataclasses
import json
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from engines import Engine
from engines.cpu import instruction_sets
from engines.fact_cache import version_of
from engines.parity import version
from pipeline.errors import SinkError
from pipeline.segments import Segment
from pipeline.sinks.parts import Parts
from pipeline.stats import Stats
from pipeline.stream import TICK
from pipeline.workers import Runtime

log = logging.getLogger("fauve")

RETRIES = 10
"""How often a stretch is begun again when the machine under it dies."""

PIECES = 4
"""Stretches for each place that paints: enough that none waits long for the last one."""

LARGEST = 4
"""Parts in a stretch at most, since each comes back through memory."""

Said = tuple[list[tuple[str, bytes, bytes]], Stats, list[str]]
"""Parts (name, list of packets, packets), counters and warnings of a stretch."""


class Farm:
    """A Ray cluster, found or started on this machine.

    The video must be readable under the same path on every machine, and fauve installed there; what they
    paint comes back to this one.

    Args:
        address: of the cluster, "HOST:PORT"; None takes the one that runs here, or starts one.
        threads: CPU threads of each place that paints.
        mixed: take machines whose pictures may differ.

    Raises:
        SinkError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(
        self, address: str | None = None, *, threads: int | None = None, mixed: bool = False
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise SinkError(f'Ray is not installed ({error}): pip install "fauve[farm]"') from error
        self._ray: Any = ray
        self._mixed = mixed
        if address is not None:
            _answers(address)
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            ray.init(address=address or "auto", **quiet)
        except ConnectionError:
            ray.init(include_dashboard=False, **quiet)
        cores = [int(node["Resources"].get("CPU", 0)) for node in self._nodes()]
        self.threads = threads or max(1, min(2, *cores))
        self.places = sum(each // self.threads for each in cores)
        if not self.places:
            raise SinkError(f"no machine of the cluster has {self.threads} free cores; take fewer --threads")

    def _nodes(self) -> list[dict[str, Any]]:
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        return [node for node in alive if node["Resources"].get("CPU", 0) >= 1]

    def check(self, runtime: Runtime) -> None:
        """Make sure that all machines paint the same pictures.

        Raises:
            SinkError: their engine, precision, instruction sets or versions differ.
            EngineError: the engine does not run on one of them.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ask = self._ray.remote(num_cpus=0)(_facts)
        asked = {}
        for node in self._nodes():
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})"] = ask.options(
                scheduling_strategy=here
            ).remote(runtime)
        facts = dict(zip(asked, self._get(list(asked.values())), strict=True))
        if len(set(facts.values())) > 1 and not self._mixed:
            told = "; ".join(f"{name}: {each}" for name, each in facts.items())
            raise SinkError(f"the machines paint different pictures, --mixed takes them all the same: {told}")

    def paint(
        self,
        painting: Any,
        segments: Sequence[Segment],
        runtime: Runtime,
        stats: Stats,
        progress: Callable[[Stats], None],
    ) -> None:
        """Paint `segments` somewhere, and put their parts where `painting` has its own.

        Raises:
            SourceError, SinkError, EngineError: the first that a machine met; the others are stopped.
        """
        work = self._ray.remote(num_cpus=runtime.threads, max_retries=RETRIES)(_work)
        painting = dataclasses.replace(painting, video=painting.video.resolve())
        left = [work.remote(painting, segment, runtime) for segment in segments]
        try:
            while left:
                done, left = self._ray.wait(left, timeout=TICK)
                for said in self._get(done):
                    _take(painting.parts, stats, *said)
                progress(stats)
        finally:
            for task in left:
                self._ray.cancel(task, force=True)

    def _get(self, tasks: list[Any]) -> list[Any]:
        try:
            found: list[Any] = self._ray.get(tasks)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            raise SinkError(f"the cluster failed: {str(error).splitlines()[0]}") from error
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ray.shutdown()


def _answers(address: str) -> None:
    """Make sure that something listens at `address`; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise SinkError(f"{address}: no Ray cluster answers there, which is HOST:PORT: {error}") from error


_loaded: dict[tuple[Any, ...], Engine] = {}
"""The engine of a process that paints, which outlives a stretch."""


def _load(runtime: Runtime) -> Engine:
    key = (runtime.style.digest, runtime.name, runtime.precision, runtime.threads)
    if key not in _loaded:
        for engine in _loaded.values():
            engine.close()
        _loaded.clear()
        _loaded[key] = runtime.load()
    return _loaded[key]


def _facts(runtime: Runtime) -> str:
    """What the pictures of a machine depend on."""
    with runtime.load() as engine:
        sets = " ".join(instruction_sets())
        if limit := os.environ.get("ONEDNN_MAX_CPU_ISA"):
            sets += f" limited to {limit}"
        paints = " ".join(filter(None, [engine.name, version(engine.name), engine.precision, engine.kernels]))
        return f"{paints}, fauve {version_of('fauve')}, {sets}"


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _work(painting: Any, segment: Segment, runtime: Runtime) -> Said:
    """Paint a stretch on this machine and return its parts."""
    heard, stats = _Heard(), Stats()
    log.addHandler(heard)
    try:
        with tempfile.TemporaryDirectory(prefix="fauve-") as folder:
            parts = Parts(Path(folder) / painting.parts.output.name)
            parts.folder.mkdir()
            dataclasses.replace(painting, parts=parts).paint(_load(runtime), segment, stats, None)
            made = [
                (path.stem, path.read_bytes(), path.with_suffix(".packets").read_bytes())
                for path in parts.folder.glob("*.json")
            ]
    finally:
        log.removeHandler(heard)
    return made, stats, heard.messages


def _take(
    parts: Parts, stats: Stats, made: list[tuple[str, bytes, bytes]], painted: Stats, warnings: list[str]
) -> None:
    for name, listed, packets in made:
        parts.add(name, packets, json.loads(listed))
    stats.encoded += painted.encoded
    stats.damaged += painted.damaged
    stats.cut_short |= painted.cut_short
    stats.add_flicker(painted)
    for message in warnings:
        log.warning(message)
