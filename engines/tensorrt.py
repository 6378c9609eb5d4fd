"""TensorRT: NVIDIA's compiler. It takes a minute or more to build a plan for a style, and the plan is kept.

Written against the API of TensorRT 10.13 to 11, pycuda and CUDA's driver, and checked against their bindings.
Not tested on hardware.
"""

import atexit
import functools
import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.cuda import CAPTURING, gpus
from engines.engine import Engine, Hint
from engines.errors import EngineBuildError, EngineError, EngineUnavailable, InferenceError, first_line
from engines.plan_cache import LONGEST_SIDE, Plan, PlanCache, SizeRange, Target, area
from engines.style import Inputs, Size, Style
from engines.tensorrt_graph import without_bytes, working_memory

INSTALL = 'pip install "fauve[tensorrt]"'

if not gpus():
    raise EngineUnavailable(f"tensorrt: NVIDIA's driver finds no GPU here; with one, {INSTALL}")
try:
    import tensorrt as trt
    from cuda.bindings import driver
    from pycuda import driver as cuda
except (ImportError, OSError) as error:
    raise EngineUnavailable(f"TensorRT or what it needs is not installed ({error}): {INSTALL}") from error

log = logging.getLogger("fauve")

Tell = Callable[[float, float | None], None]
"""Is told how much of a build is done, 0..1, and how many seconds are left, if that can be said."""

SIZES_KEPT = 4
"""How many sizes keep their buffers: two while one size fades into another, and some to return to."""

WORKSPACE = 512 << 20
"""Bytes that a layer may use beside its inputs and outputs."""

BUILDER = 512 << 20
"""Bytes on the GPU that the builder and its kernels take, whatever is built; an estimate."""

LAYERS = 4
"""How many of the largest layers are held at once while one is timed: an estimate, on the safe side."""

RUNTIME = 256 << 20
"""Bytes on the GPU that TensorRT takes beside a plan to load it; an estimate."""

OPTIONS = f"optimisation level 3, workspace {WORKSPACE >> 20} MiB, no TF32, no auxiliary streams"

SAY_EVERY = 5.0
"""Seconds between two lines in the log about a build."""

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: a stream that does not wait for the default stream, which others may use."""


class Gpu:
    """The first GPU that CUDA shows, in its primary context, which torch and CUDA's runtime use as well."""

    def __init__(self) -> None:
        try:
            cuda.init()
            device = cuda.Device(0)
            self.name: str = device.name()
            self.compute_capability = "{}.{}".format(*device.compute_capability())
            # Kept for the life of the process, as the runtime does: others may hold memory in it.
            self._context = device.retain_primary_context()
            # Else pycuda's destructor would treat it as one of its own making, and complain.
            atexit.register(self._context.detach)
        except cuda.Error as error:
            raise EngineUnavailable(f"tensorrt: the GPU cannot be used: {first_line(error)}") from error

    @contextmanager
    def current(self, kind: type[EngineError], doing: str) -> Iterator[None]:
        """Make it the calling thread's for a while; CUDA's errors become `kind` and say `doing`."""
        self._context.push()
        try:
            yield
        except cuda.MemoryError as error:
            free, total = (amount / 2**30 for amount in cuda.mem_get_info())
            raise kind(
                f"tensorrt: the GPU's memory is full, {doing} ({free:.1f} of {total:.1f} GiB free): close "
                f"what else uses the GPU, or paint at a smaller size"
            ) from error
        except cuda.Error as error:
            raise kind(f"tensorrt: {doing}: {first_line(error)}") from error
        finally:
            cuda.Context.pop()


gpu = functools.cache(Gpu)
"""The GPU, asked for once in a process."""


class TensorRtEngine(Engine):
    """A style pack in TensorRT. Its plan is built at the first picture of a size that no plan covers.

    Args:
        precision: "auto" (float16 if the pack has it), or one of the pack's: "float32", "float16", "int8".
        hint: "throughput" has two pictures in flight, so that one is copied while the other is painted.
        build: whether a plan may be built at the first picture. If not, there must be one of this style that
            can be used; only for a size that it does not cover another is built, and that is said.
        cache: where the plans are; the user's own if not given.
        stop: ends a build when it is set.

    Raises:
        EngineUnavailable: TensorRT, the GPU, the precision or, if none is to be built, the plan is not here.
    """

    name = "tensorrt"
    lends = False

    def __init__(
        self,
        style: Style,
        *,
        precision: str = "auto",
        hint: Hint = "latency",
        build: bool = True,
        cache: PlanCache | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        super().__init__(style)
        self.precision = _precision(style, precision)
        self.streams = 2 if hint == "throughput" else 1
        self._gpu = gpu()
        self.device = self._gpu.name
        self._cache = cache or PlanCache()
        self._stop = stop
        self._build = build
        self._target = target(style, self.precision)
        self._messages = Messages()
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._runtime: Any = None
        self._plan: Plan | None = None
        self._compiled: Any = None
        self._idle: OrderedDict[Size, list[_Execution]] = OrderedDict()
        if not build and self._cache.find(self._target) is None:
            raise self._unbuilt("yet")

    def _unbuilt(self, what: str) -> EngineUnavailable:
        return EngineUnavailable(
            f"tensorrt: no plan of {self.style.name} in {self.precision} has been built for this GPU {what}; "
            f"`fauve engine build` does that"
        )

    def _infer(self, batch: NDArray[np.uint8], inputs: Inputs) -> NDArray[np.uint8]:
        painted = np.empty_like(batch)
        size = (batch.shape[2], batch.shape[1])
        with self._gpu.current(InferenceError, "painting {}x{}".format(*size)):
            execution = self._take(size, inputs)
            try:
                for image, result in zip(batch, painted, strict=True):
                    execution({"image": image, **inputs}, result)
            except BaseException:
                execution.close()
                raise
            self._give(size, execution)
        return painted

    def _take(self, size: Size, inputs: Inputs) -> "_Execution":
        with self._lock:
            if self._idle.get(size):
                return self._idle[size].pop()
        # Other sizes are painted meanwhile.
        with self._loading:
            if self._plan is None or size not in self._plan.sizes:
                if self._plan is not None:
                    log.warning(
                        "tensorrt: %dx%d is outside the plan in use, %s", size[0], size[1], self._plan.sizes
                    )
                self._plan, self._compiled = self._load(size)
            self._improve(self._plan, size)
            return _Execution(self._compiled, self._messages, size, inputs)

    def _give(self, size: Size, execution: "_Execution") -> None:
        with self._lock:
            self._idle.setdefault(size, []).append(execution)
            self._idle.move_to_end(size)
            while len(self._idle) > SIZES_KEPT:
                for unused in self._idle.popitem(last=False)[1]:
                    unused.close()

    def _load(self, size: Size) -> tuple[Plan, Any]:
        """A plan for `size` and what TensorRT makes of it: a kept one, or one that is built now."""
        useless, sizes = None, self._sizes(size)
        plan = self._cache.find(self._target, size)
        if plan is not None:
            useless, sizes = self._cache.read(plan), plan.sizes
            compiled = self._deserialized(useless)
            if compiled is not None:
                return plan, compiled
            if useless is not None and cuda.mem_get_info()[0] < RUNTIME + len(useless):
                raise cuda.MemoryError(self._messages.reason())  # a sound plan fails to load as well
            if not self._build:
                raise self._unbuilt(f"that can be used ({self._messages.reason()})")
            log.warning(
                "tensorrt: a kept plan cannot be used (%s); building it anew", self._messages.reason()
            )
        log.warning(
            "tensorrt: building a plan of %s around %dx%d in %s, once for this GPU; this takes a while",
            self.style.name,
            *sizes.best,
            self.precision,
        )
        plan = build(
            self.style,
            sizes,
            self.precision,
            tell=Said(),
            cache=self._cache,
            stop=self._stop,
            useless=useless,
        )
        compiled = self._deserialized(self._cache.read(plan))
        if compiled is None:
            raise EngineBuildError(
                f"tensorrt does not take its own plan of {self.style.name}: {self._messages.reason()}"
            )
        return plan, compiled

    def _improve(self, used: Plan, size: Size) -> None:
        """Go over to a kept plan that is better at `size` than the one that is `used`, if it can be."""
        better = self._cache.find(self._target, size)
        if better is not None and better.sizes.off(size) < used.sizes.off(size):
            compiled = self._deserialized(self._cache.read(better))
            if compiled is not None:
                self._plan, self._compiled = better, compiled

    def _sizes(self, size: Size) -> SizeRange:
        """What to build for when the graph is given `size`: a small one is a trial, as the golden one is."""
        style = self.style
        native = _range(style, (style.native_height * 16 // 9, style.native_height))
        if size in native and area(size) < area(native.best):
            return native
        # The graph's pictures have the room already.
        room = style.multiple - 1 if style.carried else 0
        return _range(style, (size[0] - room, size[1] - room))

    def _deserialized(self, content: bytes | None) -> Any:
        """What TensorRT makes of a plan's `content`; None if it does not take it, or if there is none."""
        self._messages.forget()
        if content is None:
            return None
        self._runtime = self._runtime or _made(trt.Runtime, self._messages)
        return self._runtime.deserialize_cuda_engine(content)

    def close(self) -> None:
        with self._loading, self._lock, self._gpu.current(InferenceError, "giving back its memory"):
            for execution in (execution for idle in self._idle.values() for execution in idle):
                execution.close()
            self._idle.clear()
            self._plan = self._compiled = self._runtime = None


class _Execution:
    """One picture in flight, at one size: an execution context with its memory, stream and CUDA graph.

    Made, called and closed in the GPU's context.
    """

    def __init__(self, compiled: Any, messages: "Messages", size: Size, inputs: Inputs) -> None:
        self._messages = messages
        self._stream: Any = cuda.Stream(NON_BLOCKING)
        self._done: Any = cuda.Event(cuda.event_flags.BLOCKING_SYNC | cuda.event_flags.DISABLE_TIMING)
        self._graph: _Graph | None = None
        self._ran = False
        self._context: Any = None
        self._host: dict[str, Any] = {}
        self._device: dict[str, Any] = {}
        messages.forget()
        try:
            self._prepare(compiled, (1, size[1], size[0], 3), inputs)
        except BaseException:
            self.close()
            raise

    def _prepare(self, compiled: Any, picture: tuple[int, ...], inputs: Inputs) -> None:
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._context = compiled.create_execution_context(strategy)
        self._must(self._context is not None)
        self._must(self._context.set_input_shape("image", picture))
        taken = {
            "image": (picture, np.uint8),
            **{name: (each.shape, each.dtype) for name, each in inputs.items()},
        }
        self._taken = tuple(taken)
        for name, (shape, dtype) in {**taken, "stylized": (picture, np.uint8)}.items():
            self._host[name] = cuda.pagelocked_empty(shape, dtype)
            self._device[name] = cuda.mem_alloc(self._host[name].nbytes)
            self._must(self._context.set_tensor_address(name, int(self._device[name])))
        # For this size, not for the largest of the plan.
        scratch = self._context.update_device_memory_size_for_shapes()
        self._device["scratch"] = cuda.mem_alloc(max(scratch, 1))
        self._context.set_device_memory(int(self._device["scratch"]), scratch)

    def __call__(self, inputs: Mapping[str, NDArray[Any]], painted: NDArray[np.uint8]) -> None:
        """Paint the "image" [h, w, 3] of `inputs` into `painted`."""
        for name, value in inputs.items():
            np.copyto(self._host[name], value)
        if self._graph is None:
            self._enqueue()
        else:
            self._graph.launch()
        self._done.record(self._stream)
        self._done.synchronize()
        np.copyto(painted, self._host["stylized"][0])
        if not self._ran:
            self._ran = True
            self._capture()

    def _enqueue(self) -> None:
        for name in self._taken:
            cuda.memcpy_htod_async(self._device[name], self._host[name], self._stream)
        self._must(self._context.execute_async_v3(self._stream.handle))
        cuda.memcpy_dtoh_async(self._host["stylized"], self._device["stylized"], self._stream)

    def _capture(self) -> None:
        """Make a CUDA graph of it, now that TensorRT has done what it does at the first run of a size."""
        try:
            self._graph = _Graph(self._stream, self._enqueue)
        except (RuntimeError, cuda.Error) as error:  # ours, or of the driver's bindings
            log.warning("tensorrt runs without a CUDA graph, a little slower: %s", first_line(error))

    def _must(self, done: bool) -> None:
        if not done:
            raise InferenceError(f"tensorrt failed: {self._messages.reason()}")

    def close(self) -> None:
        """Give back what it has, here and now: pycuda cannot where the GPU's context is not current."""
        if self._graph is not None:
            self._graph.close()
        self._context = self._graph = self._stream = self._done = None
        for memory in self._device.values():
            memory.free()
        for host in self._host.values():
            host.base.free()
        self._device.clear()
        self._host.clear()


class _Graph:
    """What was put on a stream, launched again in one call: CUDA graphs, which pycuda does not have."""

    def __init__(self, stream: Any, work: Callable[[], None]) -> None:
        self._stream = driver.CUstream(stream.handle)
        # Other threads may go on with their own work on the GPU meanwhile.
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        with CAPTURING:
            _succeeded(driver.cuStreamBeginCapture(self._stream, mode))
            try:
                work()
            finally:
                ended = driver.cuStreamEndCapture(self._stream)
        (graph,) = _succeeded(ended)
        try:
            (self._executable,) = _succeeded(driver.cuGraphInstantiate(graph, 0))
        finally:
            driver.cuGraphDestroy(graph)

    def launch(self) -> None:
        """Have the stream do it once more."""
        _succeeded(driver.cuGraphLaunch(self._executable, self._stream))

    def close(self) -> None:
        """Give it back."""
        driver.cuGraphExecDestroy(self._executable)


def _succeeded(result: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values that a call of CUDA's driver gave beside its error code."""
    code, *values = result
    if code != driver.CUresult.CUDA_SUCCESS:
        raise InferenceError(f"tensorrt: CUDA's driver says {code.name}")
    return tuple(values)


class Messages(trt.ILogger):  # type: ignore[misc]
    """TensorRT's log: errors are kept, so that one of ours can give their reason; the rest is for -v."""

    def __init__(self) -> None:
        super().__init__()
        self._errors: list[str] = []

    def log(self, severity: Any, msg: str) -> None:
        """Called by TensorRT, from any thread."""
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self._errors.append(msg)
        elif severity == trt.ILogger.Severity.WARNING:
            log.info("tensorrt: %s", first_line(msg))

    def reason(self) -> str:
        """The first error since the last `forget`: those that follow are its consequences."""
        return first_line("".join(self._errors[:1]))

    def forget(self) -> None:
        """Begin anew."""
        self._errors.clear()


class Progress(trt.IProgressMonitor):  # type: ignore[misc]
    """How far a build is, from the phases within phases that TensorRT reports.

    Called by TensorRT from threads of its own, which no exception may leave.
    """

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell = tell
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._phases: dict[str, tuple[str | None, int]] = {}
        self._steps: dict[str, int] = {}
        self._done = 0.0
        self.stopped: BaseException | None = None
        """Why the build is to end early, if it is."""

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """A phase of `num_steps` steps begins, within a step of another one."""
        with self._lock:
            self._phases[phase_name] = (parent_phase, num_steps)
            self._steps[phase_name] = 0

    def step_complete(self, phase_name: str, step: int) -> bool:
        """A step of a phase is done; gives whether to go on."""
        try:
            with self._lock:
                self._steps[phase_name] = step + 1
                # What went on within the step is part of it now.
                for name in [name for name, (parent, _) in self._phases.items() if parent == phase_name]:
                    self._forget(name)
                roots = [name for name, (parent, _) in self._phases.items() if parent not in self._phases]
                # A build may begin another phase when one is done; nobody wants to see it fall back.
                self._done = max([self._done, *(self._share(name) for name in roots)])
                passed = time.monotonic() - self._began
                self._tell(self._done, passed / self._done - passed if self._done else None)
        except BaseException as error:
            self.stopped = error
        return self.stopped is None

    def phase_finish(self, phase_name: str) -> None:
        """A phase is over, be it done or not."""
        with self._lock:
            self._forget(phase_name)

    def _forget(self, phase: str) -> None:
        self._phases.pop(phase, None)
        self._steps.pop(phase, None)

    def _share(self, phase: str) -> float:
        within = [self._share(name) for name, (parent, _) in self._phases.items() if parent == phase]
        return min(1.0, (self._steps[phase] + max(within, default=0.0)) / max(1, self._phases[phase][1]))


class Said:
    """Tells of a build by a line in the log now and then."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, done: float, left: float | None) -> None:
        if time.monotonic() - self._last >= SAY_EVERY:
            self._last = time.monotonic()
            remaining = "" if left is None else f", {left:.0f} s left"
            log.warning("tensorrt: %.0f %% of the plan built%s", 100 * done, remaining)


def target(style: Style, precision: str) -> Target:
    """What a plan of `style` in `precision` must be built for to run here."""
    return Target(
        # What is built, so that a plan lasts no longer than the way in which its graph was made.
        model=hashlib.sha256(without_bytes(style.model(precision))).hexdigest(),
        precision=precision,
        tensorrt=trt.__version__,
        gpu=gpu().name,
        compute_capability=gpu().compute_capability,
        options=OPTIONS,
    )


def build(
    style: Style,
    size: Size | SizeRange,
    precision: str = "auto",
    *,
    tell: Tell,
    cache: PlanCache | None = None,
    stop: threading.Event | None = None,
    useless: bytes | None = None,
) -> Plan:
    """Build the plan of `style` that is best at `size` (width, height) and keep it, if it is not there.

    Ctrl-C ends it, and so does `stop` when it is set.

    Args:
        size: of the pictures, or what the graph itself is to be given.
        useless: content of a kept plan that TensorRT does not take, and that this one is to replace.

    Raises:
        EngineUnavailable: the precision is not in the pack.
        EngineBuildError: TensorRT refuses the model, the GPU's memory is too small, the plan cannot be kept,
            or `stop` was set.
    """
    precision = _precision(style, precision)
    cache = cache or PlanCache()
    sizes = size if isinstance(size, SizeRange) else _range(style, size)
    large = style.size is None and sizes.largest > _range(style, (LONGEST_SIDE, 1)).largest
    model = without_bytes(style.model(precision))
    with cache.building():
        wanted = target(style, precision)
        for plan in cache.plans():
            kept = plan.target == wanted and plan.sizes == sizes
            if kept and cache.read(plan) not in (None, useless):
                return plan
        began = time.monotonic()
        progress = Progress(tell)

        def compiled() -> tuple[bytes, bytes]:
            with gpu().current(EngineBuildError, f"building {style.name}"):
                _must_fit(model, sizes, large)
                return _compile(model, style.name, sizes, cache.timings(wanted), progress)

        # In a thread of its own, so that Ctrl-C reaches this one, which waits in Python.
        with ThreadPoolExecutor(1, "build") as pool:
            future = pool.submit(compiled)
            try:
                while not wait([future], 0.2).done:
                    if stop is not None and stop.is_set():
                        raise EngineBuildError(f"tensorrt: the build of {style.name} was given up")
            except BaseException as error:
                progress.stopped = error
                raise
        content, timings = future.result()
        plan = Plan(wanted, sizes, style.name, round(time.monotonic() - began, 1))
        cache.write_timings(wanted, timings)
        cache.write(plan, content)
    return plan


def _precision(style: Style, precision: str) -> str:
    if precision == "auto":
        return "float16" if "float16" in style.models else "float32"
    if precision not in style.models:
        has = ", ".join(style.models)
        raise EngineUnavailable(f"tensorrt: {style.name} has no {precision} model; there is {has}")
    return precision


def _range(style: Style, size: Size) -> SizeRange:
    """What the graph of `style` is given for pictures up to `size`."""
    return SizeRange.only(style.size) if style.size else SizeRange.around(size, style.multiple, style.carried)


def _must_fit(model: bytes, sizes: SizeRange, large: bool) -> None:
    """Refuse a build that the GPU has too little memory for, before it takes minutes to fail.

    Args:
        large: it would need less for pictures up to `LONGEST_SIDE`.
    """
    free, _ = cuda.mem_get_info()
    needed = BUILDER + WORKSPACE + LAYERS * working_memory(model, sizes.largest)
    if needed <= free:
        return
    advice = f", or build for a smaller size: --size {LONGEST_SIDE}x{LONGEST_SIDE * 9 // 16}" if large else ""
    raise EngineBuildError(
        "tensorrt: building for pictures up to {}x{} needs about ".format(*sizes.largest)
        + f"{needed / 2**30:.1f} GiB of the GPU's memory, and {free / 2**30:.1f} are free: close what else "
        f"uses the GPU{advice}"
    )


def _compile(
    model: bytes, name: str, sizes: SizeRange, timings: bytes, progress: Progress
) -> tuple[bytes, bytes]:
    """The plan of `model`, and what TensorRT has measured for it and before."""
    messages = Messages()
    builder = _made(trt.Builder, messages)
    # Types are the graph's own: float16 is where the pack's float16 model has it.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, messages)
    if not parser.parse(model):
        raise EngineBuildError(f"tensorrt refuses {name}: {_parser_error(parser, messages)}")
    config = builder.create_builder_config()
    config.builder_optimization_level = 3
    config.max_aux_streams = 0
    # Ten bits of mantissa would miss the tolerance of float32.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
    config.progress_monitor = progress
    measured = config.create_timing_cache(timings)
    if measured is None or not config.set_timing_cache(measured, False):
        measured = config.create_timing_cache(b"")
        config.set_timing_cache(measured, False)
    profile = builder.create_optimization_profile()
    bounds = (sizes.smallest, sizes.best, sizes.largest)
    profile.set_shape("image", *((1, height, width, 3) for width, height in bounds))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if progress.stopped is not None:
        raise progress.stopped
    if plan is None:
        raise EngineBuildError(f"tensorrt cannot build {name}: {messages.reason()}")
    return bytes(plan), bytes(config.get_timing_cache().serialize())


def _made(kind: Any, messages: Messages) -> Any:
    """A builder or runtime of TensorRT."""
    try:
        return kind(messages)
    except TypeError as error:  # what the bindings make of a null pointer
        raise EngineUnavailable(f"tensorrt does not start: {messages.reason()}") from error


def _parser_error(parser: Any, messages: Messages) -> str:
    if not parser.num_errors:
        return messages.reason()
    error = parser.get_error(0)
    return f"{error.node_operator()} {error.node_name()!r}: {first_line(error.desc())}"
