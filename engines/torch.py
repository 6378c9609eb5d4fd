"""PyTorch: the fast engine on NVIDIA without TensorRT, and the reference on the CPU.

It runs the pack's ONNX graph, operator by operator (`engines.onnx_to_torch`), and not a second file made for
torch. A `model.pt2` would be read by `torch.export.load`, which unpickles its sample inputs and, where the
archive says so, its weights with `weights_only=False` (torch 2.13): a pack could run code. It would be as
large as the graph again, bound to the schema of the torch that wrote it, and could disagree with
`model.onnx`. So all packs that there are run here, and so do other people's graphs.

On CUDA each size has its work recorded as two CUDA graphs: one for what the look decides (the weights that it
scales), replayed when the look changes, and one for the picture. Copies go through pinned memory on the same
side stream, so that with several streams one picture's copies overlap with another's arithmetic.

In float16, pictures of `SMALLEST` pixels or more are painted by fused kernels, several times as fast: those
of `engines.convolution`, and what PyTorch's compiler makes of the arithmetic between. That takes seconds. For
throughput they are waited for, so that all pictures of a file are painted alike, in every process that paints
some: whether there are fused kernels is settled when the engine is loaded, and if they fail later, that is an
error. Else cuDNN and PyTorch's own kernels paint until the others are ready, or in their place.
"""

import logging
import queue
import threading
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from engines.cpu import cpu_name
from engines.cuda import CAPTURING, gpus
from engines.engine import Engine, Hint
from engines.errors import EngineBuildError, EngineUnavailable, InferenceError, first_line
from engines.look import Look
from engines.parity import agreement
from engines.style import Inputs, Style

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from engines.onnx_to_torch import Compiled, Program, Settled

log = logging.getLogger("fauve")

PRECISIONS = ("float32", "float16")

SIZES = 4
"""How many sizes stay prepared at once; on CUDA each holds its intermediate pictures."""

WARM_UP = 3
"""Runs before recording: cuDNN tries its algorithms out, and libraries allocate what they keep."""

STREAMS = 4
"""Pictures in flight on CUDA for the sake of throughput: some are copied while another is painted."""

SMALLEST = 200_000
"""Pixels of a picture from which it pays to compile for it."""

_idle: "defaultdict[torch.device, deque[torch.cuda.Stream]]" = defaultdict(deque)
"""CUDA streams that nobody has any more."""


class TorchEngine(Engine):
    """A style pack in PyTorch, prepared for each size that it is called with; may be called by any thread.

    Args:
        device: "cuda" or "cpu"; "" takes an NVIDIA GPU if there is one.
        precision: "auto" (float16 on CUDA if the pack has it), "float32" or "float16".
        threads: CPU threads, of torch in the whole process; None leaves it to torch.
        hint: "throughput" keeps `STREAMS` pictures in flight on CUDA, and paints the same in every process.

    Raises:
        EngineUnavailable: torch, the device or the precision is not here, or the graph has an operator that
            is not known here; names it.
        EngineBuildError: the graph is not sound.
    """

    lends = False

    def __init__(
        self,
        style: Style,
        device: str = "",
        *,
        precision: str = "auto",
        threads: int | None = None,
        hint: Hint = "latency",
    ) -> None:
        super().__init__(style)
        if device not in ("", "cpu", "cuda"):
            raise EngineUnavailable(f"torch:{device}: there is torch:cuda and torch:cpu")
        if precision not in ("auto", *PRECISIONS):
            raise EngineUnavailable(f"torch has no {precision}; there is {' and '.join(PRECISIONS)}")
        if device == "cuda" and not gpus():
            raise EngineUnavailable("torch:cuda: NVIDIA's driver finds no GPU here")
        try:
            import torch

            # Of a PyTorch that was removed, a folder may be left, which can be imported, too.
            from engines.onnx_to_torch import Program
        except (ImportError, OSError) as error:  # OSError where one of its libraries cannot be loaded
            raise EngineUnavailable(
                f'PyTorch is not installed ({error}): pip install "fauve[torch]"'
            ) from error
        if device == "cuda" and not torch.cuda.is_available():
            raise EngineUnavailable(
                f"torch:cuda: PyTorch {torch.__version__} does not reach the GPU; install it with CUDA, as "
                f"https://pytorch.org/get-started says, for a driver like yours"
            )
        cuda = device == "cuda" or (device == "" and gpus() > 0 and torch.cuda.is_available())
        if precision == "auto":
            precision = "float16" if cuda and "float16" in style.models else "float32"
        if threads and not cuda:
            torch.set_num_threads(threads)
        self.name = "torch:cuda" if cuda else "torch:cpu"
        self.torch_device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
        try:
            self._program = Program(style.model(precision), self.torch_device)
        except EngineUnavailable as error:
            raise EngineUnavailable(f"{error}, which {style.name} has: take --engine onnxruntime") from error
        except Exception as error:  # onnx's checker and torch share no base below Exception
            raise EngineBuildError(f"{self.name} refuses {style.name}: {first_line(error)}") from error
        self.device = torch.cuda.get_device_name(self.torch_device) if cuda else cpu_name()
        self.precision = precision
        self.streams = STREAMS if cuda and hint == "throughput" else 1
        self._waits = hint == "throughput"
        self._compiling, self._closed = threading.Lock(), threading.Event()
        self._painters: OrderedDict[tuple[int, ...], queue.LifoQueue[_Painter]] = OrderedDict()
        self._preparing, self._listing = threading.Lock(), threading.Lock()
        self._streams: deque[torch.cuda.Stream] = deque()
        self._fused = self._fusing(style.model(precision)) if cuda and precision == "float16" else None
        if cuda:
            self.kernels = "plain" if self._fused is None else "fused"

    @contextmanager
    def own_stream(self) -> Iterator[None]:
        """Have torch work on a CUDA stream that no other caller has, and wait for it at the end.

        What several threads do then goes on at the same time. On the CPU there is nothing to do.
        """
        if self.torch_device.type != "cuda":
            yield
            return
        import torch

        try:
            stream = self._streams.pop()
        except IndexError:
            stream = _stream_of(self, self.torch_device)
        try:
            # Of a stream, PyTorch would wait in a loop that takes a CPU core.
            done = cast("Any", torch.cuda.Event)(blocking=True)
            with torch.cuda.stream(stream):
                yield
            done.record(stream)
            done.synchronize()
        finally:
            self._streams.append(stream)

    def paint_on_device(self, image: "Tensor", look: Look) -> "Tensor":
        """Paint `image` uint8 [h, w, 3] that lies at `torch_device`, and leave the result there.

        What torch's current stream has yet to do is waited for by the device, not by the caller; and the
        result is ready for what the current stream does next. Otherwise as calling the engine.

        Raises:
            ValueError: a look that this pack does not know.
            InferenceError: the runtime failed.
        """
        height, width = image.shape[:2]
        place = self.style.place((width, height), look)
        for axis, (before, behind) in enumerate(((place.top, place.bottom), (place.left, place.right))):
            if before or behind:
                image = self._mirrored(image, axis, before, behind)
        with self._painter((1, *image.shape)) as painter:
            painted = painter.on_device(image[None], place.inputs)[0]
        return painted[place.top : place.top + height, place.left : place.left + width]

    @staticmethod
    def _mirrored(image: "Tensor", axis: int, before: int, behind: int) -> "Tensor":
        """`image` with lines mirrored on before its first and behind its last, repeatedly if it is tiny."""
        import torch

        side = image.shape[axis]
        lines = np.pad(np.arange(side), (before, behind), "reflect" if side > 1 else "edge")
        return image.index_select(axis, torch.from_numpy(lines).to(image.device))

    def _infer(self, batch: NDArray[np.uint8], inputs: Inputs) -> NDArray[np.uint8]:
        with self._painter(batch.shape) as painter:
            return painter(batch, inputs)

    @contextmanager
    def _painter(self, shape: tuple[int, ...]) -> "Iterator[_Painter]":
        """What paints pictures of `shape` [n, h, w, 3], for one caller."""
        painters = self._prepared(shape)
        painter = painters.get()
        try:
            yield painter
        except RuntimeError as error:
            raise InferenceError(f"{self.name} failed on {self.style.name}: {first_line(error)}") from error
        finally:
            painters.put(painter)

    def _prepared(self, shape: tuple[int, ...]) -> "queue.LifoQueue[_Painter]":
        """What paints pictures of `shape` [n, h, w, 3], made at its first use."""
        import torch

        if (known := self._known(shape)) is not None:
            return known
        # Whoever paints at another size goes on meanwhile. What is made in inference mode could not be
        # written to by callers that are not in it.
        with self._preparing, torch.inference_mode(False):
            if (known := self._known(shape)) is not None:
                return known
            inputs = self.style.place(
                (shape[2], shape[1]), Look(dict.fromkeys(self.style.styles, 1.0))
            ).inputs
            fuses = self._fused is not None and shape[1] * shape[2] >= SMALLEST
            painters = self._fusing_painters(shape, inputs) if fuses and self._waits else []
            made: queue.LifoQueue[_Painter] = queue.LifoQueue(self.streams)
            for painter in painters or self._plain_painters(shape, inputs):
                made.put(painter)
            if fuses and not self._waits:
                name = f"compile {shape[2]}x{shape[1]}"
                threading.Thread(
                    target=self._fuse, args=(made, shape, inputs), name=name, daemon=True
                ).start()
            with self._listing:
                if not self._closed.is_set():
                    self._painters[shape] = made
                if len(self._painters) > SIZES:
                    self._painters.popitem(last=False)
            return made

    def _fusing(self, model: bytes) -> "Program | None":
        """The program for fused kernels; None, and that is said, where there are none for this style."""
        import torch

        from engines.onnx_to_torch import Program

        try:
            program = Program(model, self.torch_device, fused=True)
            if self._waits:
                # That nothing can be compiled, as without a C compiler, is to be known before a film begins.
                with CAPTURING, torch.no_grad(), self.own_stream():
                    torch.compile(lambda x: x + 1)(torch.zeros(1, device=self.torch_device))
            return program
        except ImportError as error:
            reason = f"Triton is not installed ({error})"
        except Exception as error:  # of a graph that is not as its passes expect, or of the compiler
            reason = first_line(error)
        log.warning("%s paints without fused kernels: %s", self.name, reason)
        return None

    def _plain_painters(self, shape: tuple[int, ...], inputs: Inputs) -> "list[_Painter]":
        cuda = self.torch_device.type == "cuda"
        kind: Callable[..., _Painter] = partial(_OnCuda, alike=self._waits) if cuda else _OnCpu
        try:
            return [kind(self._program, shape, inputs, self.torch_device) for _ in range(self.streams)]
        except Exception as error:  # what an operator raises that was given something else than it knows
            size = f"{shape[2]}x{shape[1]}"
            raise EngineBuildError(
                f"{self.name} refuses {self.style.name} at {size}: {first_line(error)}"
            ) from error

    def _fusing_painters(self, shape: tuple[int, ...], inputs: Inputs) -> "list[_Painter]":
        """What paints pictures of `shape` by fused kernels, if these paint what the others do; else nothing,
        and that is said.

        Raises:
            EngineBuildError: they fail, and other processes of the same render may paint by them.
        """
        size, device = f"{shape[2]}x{shape[1]}", self.torch_device
        try:
            with self._compiling:
                if self._closed.is_set():
                    return []
                compiled = self._compiled(shape, inputs)
                painters: list[_Painter] = [
                    _OnCuda(compiled, shape, inputs, device, alike=self._waits) for _ in range(self.streams)
                ]
                frame = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
                expected = _OnCuda(self._program, shape, inputs, device)(frame, inputs)
            agrees, difference = agreement(painters[0](frame, inputs), expected, self.precision)
            if agrees:
                return painters
            reason = f"they paint something else ({difference})"
        except Exception as error:  # of a compiler, in a thread of its own
            reason = first_line(error)
        if self._waits:
            raise EngineBuildError(
                f"{self.name} cannot paint {self.style.name} at {size} by fused kernels: {reason}; "
                f"--precision float32 needs none"
            )
        if not self._closed.is_set():
            log.warning("%s paints %s without fused kernels: %s", self.name, size, reason)
        return []

    def _fuse(self, made: "queue.LifoQueue[_Painter]", shape: tuple[int, ...], inputs: Inputs) -> None:
        """Put painters that have fused kernels in the place of those that paint meanwhile."""
        painters = self._fusing_painters(shape, inputs)
        # Who paints has one of them, and gives it back.
        for _ in painters:
            made.get()
        for painter in painters:
            made.put(painter)

    def _compiled(self, shape: tuple[int, ...], inputs: Inputs) -> "Compiled":
        import torch

        from engines.onnx_to_torch import Compiled

        assert self._fused is not None
        # The compiler waits for the whole device when it measures which of its kernels are fastest.
        with CAPTURING, torch.no_grad(), self.own_stream():
            image = torch.zeros(shape, dtype=torch.uint8, device=self.torch_device)
            given = {name: torch.from_numpy(value).to(self.torch_device) for name, value in inputs.items()}
            return Compiled(self._fused.settle(image, given), image, given)

    def _known(self, shape: tuple[int, ...]) -> "queue.LifoQueue[_Painter] | None":
        with self._listing:
            if shape in self._painters:
                self._painters.move_to_end(shape)
            return self._painters.get(shape)

    def close(self) -> None:
        import torch

        self._closed.set()
        with self._listing:
            self._painters.clear()
        # Who compiles for seconds is not waited for: PyTorch itself empties its cache before memory runs out.
        if self.torch_device.type == "cuda" and CAPTURING.acquire(blocking=False):
            try:
                torch.cuda.empty_cache()
            finally:
                CAPTURING.release()


class _Painter(ABC):
    """The graph prepared for one shape of picture; one caller at a time."""

    def __init__(
        self, program: "Program | Compiled", shape: tuple[int, ...], inputs: Inputs, device: "torch.device"
    ) -> None:
        import torch

        self._torch: Any = torch
        self._image = torch.zeros(shape, dtype=torch.uint8, device=device)
        self._inputs = {name: torch.from_numpy(value).to(device) for name, value in inputs.items()}
        self._known: tuple[bytes, ...] | None = None
        self._look: dict[str, torch.Tensor] = {}

    def _settle(self, program: "Program | Compiled") -> "Settled | Compiled":
        from engines.onnx_to_torch import Compiled

        return program if isinstance(program, Compiled) else program.settle(self._image, self._inputs)

    @abstractmethod
    def __call__(self, batch: NDArray[np.uint8], inputs: Inputs) -> NDArray[np.uint8]:
        """Paint `batch`; the result is the caller's own."""

    @abstractmethod
    def on_device(self, batch: "Tensor", inputs: Inputs) -> "Tensor":
        """The same for pictures that lie on the device, and stay there."""

    def _changed(self, inputs: Inputs) -> bool:
        """Whether the look is another one than at the last call."""
        known, self._known = self._known, tuple(value.tobytes() for value in inputs.values())
        return known != self._known


class _OnCpu(_Painter):
    def __init__(
        self, program: "Program | Compiled", shape: tuple[int, ...], inputs: Inputs, device: "torch.device"
    ) -> None:
        super().__init__(program, shape, inputs, device)
        with self._torch.inference_mode():
            self._settled = self._settle(program)

    def __call__(self, batch: NDArray[np.uint8], inputs: Inputs) -> NDArray[np.uint8]:
        stylized = self.on_device(self._torch.from_numpy(_writable(batch)), inputs)
        painted: NDArray[np.uint8] = stylized.numpy()
        return painted

    def on_device(self, batch: "Tensor", inputs: Inputs) -> "Tensor":
        torch = self._torch
        with torch.inference_mode():
            if self._changed(inputs):
                look = {name: torch.from_numpy(value.copy()) for name, value in inputs.items()}
                self._look = self._settled.look(look)
            return self._settled.picture(batch, self._look).contiguous()


class _OnCuda(_Painter):
    """Replays CUDA graphs.

    Args:
        alike: take the algorithms that each process takes, and not those that are measured to be fastest.
    """

    def __init__(
        self,
        program: "Program | Compiled",
        shape: tuple[int, ...],
        inputs: Inputs,
        device: "torch.device",
        *,
        alike: bool = False,
    ) -> None:
        super().__init__(program, shape, inputs, device)
        torch = self._torch
        self._staged = torch.zeros(shape, dtype=torch.uint8, pin_memory=True)
        self._staged_inputs = {
            name: torch.zeros(each.shape, dtype=each.dtype, pin_memory=True)
            for name, each in self._inputs.items()
        }
        self._stream = _stream_of(self, device)
        # On other streams the weights were made, when the engine was, and now what is zeroed.
        self._stream.wait_stream(torch.cuda.default_stream(device))
        self._stream.wait_stream(torch.cuda.current_stream(device))
        # The one that is waited for with each picture leaves its CPU core to others.
        self._done, self._copied = torch.cuda.Event(blocking=True), torch.cuda.Event()
        self._copied.record(self._stream)
        # TF32 has ten bits of mantissa: float32 that is not would miss its tolerance.
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=not alike, deterministic=alike, allow_tf32=False
        )
        with CAPTURING, torch.no_grad(), exact:
            with torch.cuda.stream(self._stream):
                # Kept, because the graphs read what lies in it.
                self._settled = self._settle(program)
            self._look_graph, self._look = self._record(lambda: self._settled.look(self._inputs))
            self._graph, self._stylized = self._record(lambda: self._settled.picture(self._image, self._look))

    def _record(self, work: Callable[[], Any]) -> tuple[Any, Any]:
        """`work` as a CUDA graph, and what it gives, which lies at the same place each time."""
        torch = self._torch
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                work()
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on with their own work on the GPU meanwhile.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            given = work()
        # Recorded is not done: the picture's warm-up reads what the look's graph writes.
        with torch.cuda.stream(self._stream):
            graph.replay()
        return graph, given

    def __call__(self, batch: NDArray[np.uint8], inputs: Inputs) -> NDArray[np.uint8]:
        torch = self._torch
        with torch.no_grad(), torch.cuda.stream(self._stream):
            self._staged.copy_(torch.from_numpy(_writable(batch)))
            self._image.copy_(self._staged, non_blocking=True)
            self._replay(inputs)
            # Of torch's own cache of pinned memory: each result has a block that returns there with it.
            result = torch.empty(batch.shape, dtype=torch.uint8, pin_memory=True)
            result.copy_(self._stylized, non_blocking=True)
            self._done.record(self._stream)
        self._done.synchronize()
        painted: NDArray[np.uint8] = result.numpy()
        return painted

    def on_device(self, batch: "Tensor", inputs: Inputs) -> "Tensor":
        torch = self._torch
        current = torch.cuda.current_stream(batch.device)
        self._stream.wait_stream(current)
        with torch.no_grad(), torch.cuda.stream(self._stream):
            self._image.copy_(batch, non_blocking=True)
            self._replay(inputs)
            result = self._stylized.clone()
        # Each is of one stream's memory and used by the other.
        batch.record_stream(self._stream)
        result.record_stream(current)
        current.wait_stream(self._stream)
        return cast("Tensor", result)

    def _replay(self, inputs: Inputs) -> None:
        """Paint what lies in the image's place, on the current stream."""
        if self._changed(inputs):
            # The copy of the look before this one may still be on its way.
            self._copied.synchronize()
            for name, value in inputs.items():
                self._staged_inputs[name].copy_(self._torch.from_numpy(value))
                self._inputs[name].copy_(self._staged_inputs[name], non_blocking=True)
            self._copied.record(self._stream)
            self._look_graph.replay()
        self._graph.replay()


def _stream_of(owner: object, device: "torch.device") -> "torch.cuda.Stream":
    """A CUDA stream that is `owner`'s alone for as long as it lives.

    PyTorch has 32, gives them in turn whether or not somebody still has them, and keeps memory for each: so
    those that were left come first.
    """
    import torch

    try:
        stream = _idle[device].pop()
    except IndexError:
        stream = cast("Any", torch.cuda.Stream)(device)
    weakref.finalize(owner, _idle[device].append, stream)
    return stream


def _writable(batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`batch`, copied if it must not be written to: torch warns of such arrays, though nothing writes."""
    return batch if batch.flags.writeable else batch.copy()
