"""OpenVINO: the engine of choice on CPUs, and the one for Intel's GPUs and NPUs."""

import contextlib
import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from functools import cache
from statistics import median
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from engines.engine import Engine, Hint
from engines.errors import EngineBuildError, EngineUnavailable, InferenceError
from engines.fact_cache import recall, remember, version_of
from engines.look import Look
from engines.style import Inputs, Size, Style

log = logging.getLogger("fauve")

# With it, every import of OpenVINO is told to Google, by a process forked beside threads, which may never
# end; and who has no home could not import it.
sys.modules.setdefault("openvino_telemetry", cast(Any, None))

PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
"""What OpenVINO calls those that it makes of a float32 model. An int8 model is one of its own."""

TRIED: Size = (640, 360)
"""(width, height) of the pictures by which int8 is compared with what OpenVINO finds fastest."""

TRIES = 6
"""Pictures painted in each; the quickest counts, as the least disturbed."""

DISTURBED = 1.5
"""Times the quickest that the middle one may take: else the machine has more to do, and what was found is not
remembered."""

WORTH = 0.95
"""Share of the time that int8 may need to be taken: it is a little further from the reference."""

COMPILED_SIZES = 4
"""How many sizes stay compiled at once. A graph of fixed size runs faster than a dynamic one."""

FADING_SIZES = 2
"""For how many sizes a thread keeps what it computes in: one may fade into another, picture by picture."""

_TYPES = threading.Lock()
"""OpenVINO makes a table of types when one is first asked for. Two threads that paint their first pictures at
the same time would each wait for the other there, one for the table and one for Python's global lock."""


@cache
def _core() -> Any:
    """OpenVINO's core, one for the whole process, which is never given back.

    On processors with large registers, as of AVX-512, a core gives the thread that makes it memory to take
    signals in, and frees that memory when it goes, in whatever thread: the next Ctrl-C would be a crash.
    """
    import openvino

    return openvino.Core()


class OpenVinoEngine(Engine):
    """A style pack in OpenVINO, compiled for each size that it is called with.

    Args:
        device: "cpu", "gpu" or "npu".
        precision: "float32", "bfloat16", "float16", "int8", or "auto": int8 where the pack has it and it is
            measured to be the fastest on this CPU, else what OpenVINO takes, bfloat16 where the CPU has it.
        threads: CPU threads; None uses all cores.
        hint: "throughput" paints as many pictures at once as OpenVINO finds best for the device.

    Raises:
        EngineUnavailable: OpenVINO, the device or the precision is not here.
        EngineBuildError: it refuses the model.
    """

    def __init__(
        self,
        style: Style,
        device: str = "cpu",
        *,
        precision: str = "auto",
        threads: int | None = None,
        hint: Hint = "latency",
    ) -> None:
        super().__init__(style)
        if precision not in ("auto", "int8", *PRECISIONS):
            raise EngineUnavailable(f"openvino has no {precision}; there is {', '.join(PRECISIONS)}, int8")
        if precision == "int8" and "int8" not in style.models:
            raise EngineUnavailable(f"{style.name} has no int8 model; there is {', '.join(style.models)}")
        try:
            # By name, because a folder that a removed OpenVINO has left can be imported, too.
            from openvino import Type
        except ImportError as error:
            # Ctrl-C during the import reaches us so.
            if isinstance(error.__cause__, KeyboardInterrupt):
                raise error.__cause__ from None
            raise EngineUnavailable(f"OpenVINO is not installed ({error}): pip install openvino") from error
        with _TYPES:
            Type.u8.to_dtype()
            self._core = _core()
        self._target = device.upper()
        # "GPU.1" and the like name one device of a kind.
        if self._target.partition(".")[0] not in {
            name.partition(".")[0] for name in self._core.available_devices
        }:
            has = ", ".join(f"openvino:{name.lower()}" for name in self._core.available_devices)
            raise EngineUnavailable(f"openvino:{device}: no such device here; there is {has or 'none'}")
        # Not pinned to cores: decoder and encoder threads run beside, and the slowest core decides.
        self._options: dict[str, Any] = {"PERFORMANCE_HINT": hint.upper()}
        if self._target == "CPU":
            self._options["ENABLE_CPU_PINNING"] = False
        if threads and self._target == "CPU":
            self._options["INFERENCE_NUM_THREADS"] = threads
        if precision in PRECISIONS:
            self._options["INFERENCE_PRECISION_HINT"] = PRECISIONS[precision]
        self._compiled: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._compiling = threading.Lock()
        self._local = threading.local()
        try:
            self.device = str(self._core.get_property(self._target, "FULL_DEVICE_NAME"))
        except RuntimeError as error:
            raise EngineUnavailable(f"openvino:{device}: {_last_line(error)}") from error
        self.name = "openvino" if self._target == "CPU" else f"openvino:{device}"
        self._int8 = precision == "int8"
        if precision == "auto" and self._target == "CPU" and "int8" in style.models:
            self._int8 = self._int8_pays()
        self.precision = ""
        self._find_out()
        if precision not in ("auto", self.precision):
            raise EngineUnavailable(f"{self.name}: {self.device} runs {self.precision}, not {precision}")

    def _find_out(self) -> None:
        """In which precision and how many streams the model runs: by compiling a small one, and remembered,
        since that takes a third of the time to the first picture.
        """
        key = [*self._key(), self._int8]
        known = recall("executed", key) or {}
        precision, streams = known.get("precision"), known.get("streams")
        if precision in (*PRECISIONS, "int8") and isinstance(streams, int):
            self.precision, self.streams = precision, streams
            return
        side = 8 * self.style.multiple
        self._model(self._shape((side, side)))
        remember("executed", key, {"precision": self.precision, "streams": self.streams})

    def _key(self) -> list[Any]:
        """What is found out hangs on that, and on nothing else."""
        limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
        versions = [version_of("fauve"), version_of("openvino")]
        return [*versions, self.device, limit, self._options, self.style.digest]

    def _request(self, shape: tuple[int, ...]) -> Any:
        """The calling thread's inference request for pictures of `shape` [n, h, w, 3]."""
        requests: OrderedDict[tuple[int, ...], Any] = self._local.__dict__.setdefault(
            "requests", OrderedDict()
        )
        if shape not in requests:
            model = self._model(shape)
            with self._making(shape):
                requests[shape] = model.create_infer_request()
            if len(requests) > FADING_SIZES:
                requests.popitem(last=False)
        return requests[shape]

    def _model(self, shape: tuple[int, ...]) -> Any:
        """The model compiled for `shape`, at its first use."""
        with self._compiling:
            if shape in self._compiled:
                self._compiled.move_to_end(shape)
                return self._compiled[shape]
            compiled = self._compile("int8" if self._int8 else "float32", shape)
            with self._making(shape):
                executed = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
                self.streams = self._streams(compiled)
            named = {short: name for name, short in PRECISIONS.items()}.get(executed, executed)
            self.precision = "int8" if self._int8 else named
            self._compiled[shape] = compiled
            if len(self._compiled) > COMPILED_SIZES:
                self._compiled.popitem(last=False)
            return compiled

    def _compile(self, model: str, shape: tuple[int, ...]) -> Any:
        """The pack's model of that precision, compiled for `shape`."""
        with self._making(shape):
            graph = self._core.read_model(self.style.model(model))
            graph.reshape({"image": shape})
            return self._core.compile_model(graph, self._target, self._options)

    @contextlib.contextmanager
    def _making(self, shape: tuple[int, ...]) -> Iterator[None]:
        """Say what OpenVINO refuses to make for pictures of `shape` as engines do."""
        try:
            yield
        except RuntimeError as error:
            size = f"{shape[2]}x{shape[1]}"
            raise EngineBuildError(
                f"{self.name} refuses {self.style.name} at {size}: {_last_line(error)}"
            ) from error

    def _shape(self, size: Size) -> tuple[int, ...]:
        """Of one picture of about `size`, or of the only size that the style takes."""
        width, height = self.style.size or (
            side // self.style.multiple * self.style.multiple for side in size
        )
        return (1, height, width, 3)

    def _int8_pays(self) -> bool:
        """Whether the int8 model is the faster one on this CPU: tried, and remembered unless disturbed."""
        key = self._key()
        known = recall("int8", key)
        if known is not None and isinstance(known.get("pays"), bool):
            return bool(known["pays"])
        shape = self._shape(TRIED)
        inputs = self.style.place((shape[2], shape[1]), Look(dict.fromkeys(self.style.styles, 1.0))).inputs
        picture = {"image": np.zeros(shape, np.uint8), **inputs}
        took: dict[str, list[float]] = {"float32": [], "int8": []}
        try:
            requests = {name: self._compile(name, shape).create_infer_request() for name in took}
            # In turn, so that what else the machine does befalls both.
            for _ in range(TRIES):
                for name, request in requests.items():
                    began = time.perf_counter()
                    request.infer(picture)
                    took[name].append(time.perf_counter() - began)
        except RuntimeError as error:
            log.warning(
                "%s does without the int8 model of %s: %s", self.name, self.style.name, _last_line(error)
            )
            return False
        quickest = {name: min(each) for name, each in took.items()}
        pays = quickest["int8"] < WORTH * quickest["float32"]
        said = {f"{name}_ms": round(1000 * each, 2) for name, each in quickest.items()}
        if all(median(each) <= DISTURBED * min(each) for each in took.values()):
            remember(
                "int8", key, {"pays": pays, **said, "size": "{}x{}".format(*TRIED), "device": self.device}
            )
        else:
            log.info("%s: int8 was tried while the machine had more to do: %s", self.name, said)
        return pays

    def _streams(self, compiled: Any) -> int:
        if self._options["PERFORMANCE_HINT"] == "LATENCY":
            return 1
        return int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    def _infer(self, batch: NDArray[np.uint8], inputs: Inputs) -> NDArray[np.uint8]:
        request = self._request(batch.shape)
        try:
            results = request.infer({"image": batch, **inputs}, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise InferenceError(f"{self.name} failed on {self.style.name}: {_last_line(error)}") from error
        stylized: NDArray[np.uint8] = results[0]
        return stylized

    def close(self) -> None:
        self._compiled.clear()
        self._local = threading.local()


def _last_line(error: Exception) -> str:
    """OpenVINO's exceptions begin with file names of its source and end with what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
