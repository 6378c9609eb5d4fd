"""TensorRT, pycuda and CUDA's driver as `engines/tensorrt.py` sees them, on the CPU.

Work on a stream is done when somebody waits for it, not before; memory that was given back cannot be touched;
nothing works outside the context. A "plan" holds the ONNX model, which ONNX Runtime runs. What is public here
exists in the real ones under the same name and with the same parameters: `test_tensorrt.py` checks that.
`install_tensorrt` replaces TensorRT alone, over the real pycuda, driver and GPU.
"""

import ctypes
import importlib
import json
import sys
import threading
from types import ModuleType, SimpleNamespace

import numpy as np
import onnxruntime

import engines


class Machine:
    """The one GPU of a test, and what the test wants to know of it."""

    def __init__(self):
        self.free = 8 << 30
        self.total = 16 << 30
        self.live = {}
        """Allocations by address: device and page-locked memory."""
        self.contexts = threading.local()
        self.capturing = {}
        """Work that is recorded, by the handle of its stream."""
        self.streams = {}
        self.launched = 0
        """CUDA graphs."""
        self.executed = 0
        """Networks, put on a stream or into a graph."""
        self.built = []
        """(model, bounds of its profile, timings that it began with) of each build."""
        self.refuse = {}
        """What is to fail, and TensorRT's message about it."""
        self.phases = [("Building", None, 2), ("Timing", "Building", 4)]
        self.during_build = lambda: None

    def execution_context(self, engine):
        return IExecutionContext(engine)

    def current(self):
        if not getattr(self.contexts, "stack", None):
            raise LogicError("no CUDA context is current")

    def take(self, array):
        self.current()
        if array.nbytes > self.free:
            raise OutOfMemory("cuMemAlloc failed: out of memory")
        address = array.ctypes.data
        assert address not in self.live
        self.live[address] = array
        return address

    def give(self, address):
        self.current()
        del self.live[address]

    def at(self, address, nbytes):
        """Memory that is allocated, as bytes."""
        assert self.live[address].nbytes >= nbytes
        return (ctypes.c_uint8 * nbytes).from_address(address)

    def put(self, handle, work):
        self.current()
        queue = self.capturing.get(handle)
        (self.streams[handle]._pending if queue is None else queue).append(work)


class RealGpu(Machine):
    """A GPU that is there, with its own contexts, streams and memory."""

    def __init__(self, fills, scratch):
        super().__init__()
        self.fills = fills
        """How often a network fills its scratch memory before it begins, so that it takes its time."""
        self.scratch = scratch
        """Bytes of that."""

    def current(self):
        (context,) = _real("cuCtxGetCurrent")
        if not int(context):
            raise LogicError("no CUDA context is current")

    def execution_context(self, engine):
        return Enqueuing(engine)


def _real(function, *arguments):
    """What a function of the real driver gives."""
    code, *values = getattr(sys.modules["cuda.bindings.driver"], function)(*arguments)
    assert code.name == "CUDA_SUCCESS", f"{function}: {code.name}"
    return values


machine = Machine()


class Error(Exception):
    pass


class LogicError(Error):
    pass


class OutOfMemory(Error):
    pass


class Device:
    def __init__(self, number):
        assert number == 0

    def name(self):
        return "NVIDIA Test GPU"

    def compute_capability(self):
        return (9, 0)

    def retain_primary_context(self):
        return Context()

    @staticmethod
    def count():
        return 1


class Context:
    def push(self):
        machine.contexts.stack = [*getattr(machine.contexts, "stack", []), self]

    @staticmethod
    def pop():
        machine.contexts.stack.pop()

    def detach(self):
        pass


class Stream:
    def __init__(self, flags=0):
        assert flags == 1, "one that the default stream holds up"
        machine.current()
        self._pending = []
        machine.streams[self.handle] = self

    @property
    def handle(self):
        return id(self)

    def synchronize(self):
        machine.current()
        while self._pending:
            self._pending.pop(0)()


class Event:
    def __init__(self, flags=0):
        machine.current()
        self._stream = None

    def record(self, stream=None):
        assert stream.handle not in machine.capturing
        self._stream = stream

    def synchronize(self):
        self._stream.synchronize()


class DeviceAllocation:
    def __init__(self, nbytes):
        self._address = machine.take(np.full(nbytes, 0xA5, np.uint8))

    def __int__(self):
        return self._address

    def free(self):
        machine.give(self._address)


class PagelockedHostAllocation:
    """Is what `array.base` is."""

    def __init__(self, shape, dtype):
        self._memory = np.full(int(np.prod(shape)) * np.dtype(dtype).itemsize, 0x5A, np.uint8)
        self.__array_interface__ = self._memory.__array_interface__ | {
            "shape": shape,
            "typestr": np.dtype(dtype).str,
        }
        machine.take(self._memory)

    def free(self):
        machine.give(self._memory.ctypes.data)


def pagelocked_empty(shape, dtype, order="C", mem_flags=0):
    return np.asarray(PagelockedHostAllocation(shape, dtype))


def mem_get_info():
    machine.current()
    return machine.free, machine.total


def memcpy_htod_async(dest, src, stream=None):
    assert src.ctypes.data in machine.live, "only page-locked memory is copied without waiting"
    machine.put(stream.handle, lambda: _copy(int(dest), src.ctypes.data, src.nbytes))


def memcpy_dtoh_async(dest, src, stream=None):
    assert dest.ctypes.data in machine.live, "only page-locked memory is copied without waiting"
    machine.put(stream.handle, lambda: _copy(dest.ctypes.data, int(src), dest.nbytes))


def _copy(to, source, nbytes):
    machine.at(to, nbytes)[:] = machine.at(source, nbytes)[:]


class CUresult:
    CUDA_SUCCESS = SimpleNamespace(name="CUDA_SUCCESS")
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = SimpleNamespace(name="CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")


class CUstreamCaptureMode:
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1


class CUstream:
    def __init__(self, handle):
        self._handle = handle


def cuStreamBeginCapture(hStream, mode):  # noqa: N802, N803
    if "capture" in machine.refuse:
        return (CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,)
    assert not machine.streams[hStream._handle]._pending, "work from before would be lost"
    assert engines.cuda.CAPTURING.locked(), "another would wait for the device meanwhile"
    machine.capturing[hStream._handle] = []
    return (CUresult.CUDA_SUCCESS,)


def cuStreamEndCapture(hStream):  # noqa: N802, N803
    return CUresult.CUDA_SUCCESS, machine.capturing.pop(hStream._handle)


def cuGraphInstantiate(hGraph, flags):  # noqa: N802, N803
    machine.current()
    return CUresult.CUDA_SUCCESS, list(hGraph)


def cuGraphDestroy(hGraph):  # noqa: N802, N803
    hGraph.clear()
    return (CUresult.CUDA_SUCCESS,)


def cuGraphLaunch(hGraphExec, hStream):  # noqa: N802, N803
    machine.current()
    machine.launched += 1
    machine.streams[hStream._handle]._pending.extend(hGraphExec)
    return (CUresult.CUDA_SUCCESS,)


def cuGraphExecDestroy(hGraphExec):  # noqa: N802, N803
    machine.current()
    hGraphExec.clear()
    return (CUresult.CUDA_SUCCESS,)


class ILogger:
    class Severity:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self):
        pass


class IProgressMonitor:
    def __init__(self):
        pass


class NetworkDefinitionCreationFlag:
    STRONGLY_TYPED = 0


class BuilderFlag:
    TF32 = "TF32"


class MemoryPoolType:
    WORKSPACE = "WORKSPACE"


class ExecutionContextAllocationStrategy:
    USER_MANAGED = "USER_MANAGED"


class Builder:
    def __init__(self, logger):
        machine.current()
        if "builder" in machine.refuse:
            logger.log(ILogger.Severity.ERROR, machine.refuse["builder"])
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags=0):
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return INetworkDefinition()

    def create_builder_config(self):
        return IBuilderConfig()

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        machine.current()
        assert config._flags == set(), "TF32 is on unless it is cleared"
        for phase in machine.phases:
            config.progress_monitor.phase_start(*phase)
        (outer, _, outer_steps), (inner, _, inner_steps) = machine.phases
        for outer_step in range(outer_steps):
            for step in range(inner_steps):
                machine.during_build()
                if not config.progress_monitor.step_complete(inner, step):
                    return None
            if not config.progress_monitor.step_complete(outer, outer_step):
                return None
            config.progress_monitor.phase_finish(inner)
            if outer_step + 1 < outer_steps:
                config.progress_monitor.phase_start(*machine.phases[1])
        config.progress_monitor.phase_finish(outer)
        if "build" in machine.refuse:
            self._logger.log(ILogger.Severity.WARNING, "a warning before")
            self._logger.log(ILogger.Severity.ERROR, machine.refuse["build"])
            self._logger.log(ILogger.Severity.ERROR, "a consequence")
            return None
        (bounds,) = config._profiles
        machine.built.append((network._model, bounds, config._timings))
        config._timings += b"measured "
        return json.dumps({"bounds": bounds}).encode() + b"\n" + network._model


class INetworkDefinition:
    _model = b""


class OnnxParser:
    def __init__(self, network, logger):
        self._network = network

    @property
    def num_errors(self):
        return int("parse" in machine.refuse)

    def parse(self, model, path=None):
        self._network._model = model
        return "parse" not in machine.refuse

    def get_error(self, index):
        assert index == 0
        return ParserError()


class ParserError:
    def node_operator(self):
        return "Pad"

    def node_name(self):
        return "node_pad_3"

    def desc(self):
        return machine.refuse["parse"] + "\nand a second line"


class IBuilderConfig:
    builder_optimization_level = None
    max_aux_streams = None
    progress_monitor = None

    def __init__(self):
        self._flags = {BuilderFlag.TF32}
        self._profiles = []
        self._timings = b""

    def clear_flag(self, flag):
        self._flags.discard(flag)

    def set_memory_pool_limit(self, pool, pool_size):
        assert (pool, pool_size > 1 << 20) == (MemoryPoolType.WORKSPACE, True)

    def create_timing_cache(self, serialized_timing_cache):
        return ITimingCache(self, serialized_timing_cache)

    def set_timing_cache(self, cache, ignore_mismatch):
        if b"of another version" in cache._content:
            return False
        self._timings = cache._content
        return True

    def get_timing_cache(self):
        return ITimingCache(self, self._timings)

    def add_optimization_profile(self, profile):
        self._profiles.append(profile._bounds)
        return 0


class ITimingCache:
    def __init__(self, config, content):
        self._content = content

    def serialize(self):
        return self._content


class IOptimizationProfile:
    def set_shape(self, input, min, opt, max):
        assert input == "image"
        assert all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True))
        self._bounds = [min, opt, max]


class Runtime:
    def __init__(self, logger):
        machine.current()
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine):
        machine.current()
        if "deserialize" in machine.refuse:
            self._logger.log(ILogger.Severity.ERROR, machine.refuse["deserialize"])
            return None
        header, _, model = serialized_engine.partition(b"\n")
        try:
            return ICudaEngine(json.loads(header)["bounds"], model, self._logger)
        except ValueError:
            self._logger.log(ILogger.Severity.ERROR, "Serialization assertion stdVersionRead failed.")
            return None


class ICudaEngine:
    def __init__(self, bounds, model, logger):
        self._bounds = bounds
        self._logger = logger
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def create_execution_context(self, strategy):
        machine.current()
        assert strategy == ExecutionContextAllocationStrategy.USER_MANAGED
        return machine.execution_context(self)


class IExecutionContext:
    def __init__(self, engine):
        self._engine = engine
        self._shape = None
        self._addresses = {}

    def set_input_shape(self, name, shape):
        smallest, _, largest = self._engine._bounds
        if not all(low <= side <= high for low, side, high in zip(smallest, shape, largest, strict=True)):
            self._engine._logger.log(ILogger.Severity.ERROR, f"{shape} is outside the profile")
            return False
        self._shape = shape
        return True

    def update_device_memory_size_for_shapes(self):
        assert self._shape is not None
        return 4 * int(np.prod(self._shape))

    def set_device_memory(self, memory, size):
        machine.at(memory, size)

    def set_tensor_address(self, name, memory):
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle):
        if "execute" in machine.refuse:
            self._engine._logger.log(ILogger.Severity.ERROR, machine.refuse["execute"])
            return False
        machine.executed += 1
        machine.put(stream_handle, self._run)
        return True

    def _run(self):
        feeds = {}
        for value in self._engine._session.get_inputs():
            image = value.name == "image"
            shape = self._shape if image else tuple(value.shape)
            dtype = np.dtype(KINDS[value.type])
            memory = machine.at(self._addresses[value.name], int(np.prod(shape)) * dtype.itemsize)
            feeds[value.name] = np.frombuffer(memory, dtype).reshape(shape)
        (stylized,) = self._engine._session.run(["stylized"], feeds)
        machine.at(self._addresses["stylized"], stylized.nbytes)[:] = stylized.tobytes()


class Enqueuing(IExecutionContext):
    """Has the real GPU make `enqueued` of its inputs, slowly and by way of the scratch memory."""

    def update_device_memory_size_for_shapes(self):
        return max(machine.scratch, int(np.prod(self._shape)))

    def set_device_memory(self, memory, size):
        self._scratch = memory, size

    def execute_async_v3(self, stream_handle):
        machine.current()
        machine.executed += 1
        stream = sys.modules["cuda.bindings.driver"].CUstream(stream_handle)
        (scratch, size), at = self._scratch, self._addresses["stylized"]
        for _ in range(machine.fills):
            _real("cuMemsetD8Async", scratch, 0x5A, size, stream)
        _real("cuMemcpyDtoDAsync", scratch, self._addresses["image"], int(np.prod(self._shape)), stream)
        _real("cuMemcpyDtoDAsync", at, scratch, int(np.prod(self._shape)), stream)
        inputs = {each.name: each for each in self._engine._session.get_inputs()}
        for name in sorted(inputs.keys() - {"image"}):
            nbytes = int(np.prod(inputs[name].shape)) * np.dtype(KINDS[inputs[name].type]).itemsize
            _real("cuMemcpyDtoDAsync", at, self._addresses[name], nbytes, stream)
            at += nbytes
        return True


def enqueued(image, inputs):
    """What `Enqueuing` makes: the picture, that begins with the bytes of the look."""
    painted = image.copy()
    look = b"".join(inputs[name].tobytes() for name in sorted(inputs))
    painted.reshape(-1)[: len(look)] = np.frombuffer(look, np.uint8)
    return painted


KINDS = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(int64)": np.int64}
"""Of a graph's inputs, as ONNX Runtime calls them."""

TENSORRT = (
    ILogger,
    IProgressMonitor,
    NetworkDefinitionCreationFlag,
    BuilderFlag,
    MemoryPoolType,
    ExecutionContextAllocationStrategy,
    Builder,
    INetworkDefinition,
    OnnxParser,
    ParserError,
    IBuilderConfig,
    ITimingCache,
    IOptimizationProfile,
    Runtime,
    ICudaEngine,
    IExecutionContext,
)

PYCUDA = (Error, Device, Context, Stream, Event, DeviceAllocation, PagelockedHostAllocation)

PYCUDA_FUNCTIONS = (pagelocked_empty, mem_get_info, memcpy_htod_async, memcpy_dtoh_async)

DRIVER = (
    CUresult,
    CUstreamCaptureMode,
    CUstream,
    cuStreamBeginCapture,
    cuStreamEndCapture,
    cuGraphInstantiate,
    cuGraphDestroy,
    cuGraphLaunch,
    cuGraphExecDestroy,
)


def install(monkeypatch):
    """Have `engines/tensorrt.py` import these; gives the module and the machine, both new."""
    global machine
    machine = Machine()
    pycuda, pycuda_driver = (ModuleType(name) for name in ("pycuda", "pycuda.driver"))
    cuda, bindings, driver = (ModuleType(name) for name in ("cuda", "cuda.bindings", "cuda.bindings.driver"))
    _fill(driver, DRIVER)
    _fill(pycuda_driver, PYCUDA + PYCUDA_FUNCTIONS)
    pycuda_driver.MemoryError = OutOfMemory
    pycuda_driver.init = lambda: None
    pycuda_driver.mem_alloc = DeviceAllocation
    pycuda_driver.event_flags = SimpleNamespace(DEFAULT=0, BLOCKING_SYNC=1, DISABLE_TIMING=2)
    pycuda.driver, cuda.bindings, bindings.driver = pycuda_driver, bindings, driver
    for module in (pycuda, pycuda_driver, cuda, bindings, driver):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("engines.cuda.gpus", lambda: 1)
    monkeypatch.setattr(engines, "gpus", lambda: 1)
    return _anew(monkeypatch), machine


def install_tensorrt(monkeypatch, fills=100, scratch=32 << 20):
    """Have it import TensorRT from here, and the rest from where it is; gives the module and the GPU."""
    global machine
    machine = RealGpu(fills, scratch)
    return _anew(monkeypatch), machine


def _anew(monkeypatch):
    """The engine's module, imported over the TensorRT of this file."""
    tensorrt = ModuleType("tensorrt")
    tensorrt.__version__ = "11.4.0"
    _fill(tensorrt, TENSORRT)
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    monkeypatch.setattr(engines, "tensorrt", None, raising=False)
    # So that it is forgotten afterwards, and imported anew now.
    monkeypatch.setitem(sys.modules, "engines.tensorrt", ModuleType("engines.tensorrt"))
    del sys.modules["engines.tensorrt"]
    return importlib.import_module("engines.tensorrt")


def _fill(module, things):
    for thing in things:
        setattr(module, thing.__name__, thing)
