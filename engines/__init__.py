"""Image in, image out: style packs and the runtimes that paint with them. Knows nothing of video."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from engines.cuda import gpus
from engines.engine import Engine, Hint, Image
from engines.errors import (
    EngineBuildError,
    EngineError,
    EngineUnavailable,
    InferenceError,
    ParityError,
    StyleError,
)
from engines.hot_swap import Behind
from engines.look import Look
from engines.parity import agreement, verdict, version
from engines.style import Golden, Layout, Size, Style, ValueRange, bundled

__all__ = [
    "Engine",
    "EngineBuildError",
    "EngineError",
    "EngineUnavailable",
    "Golden",
    "Hint",
    "Image",
    "InferenceError",
    "Look",
    "ParityError",
    "Probe",
    "Size",
    "Style",
    "StyleError",
    "agreement",
    "bundled",
    "load",
    "load_style",
    "preferred",
    "probe",
]

log = logging.getLogger("fauve")

PREFERENCE = ("openvino", "onnxruntime")
"""What "auto" tries, in order: engines that are ready at once."""

ON_NVIDIA = ("tensorrt", "torch:cuda")
"""What "auto" tries before, where there is an NVIDIA GPU: fast engines that load slowly, the best first."""

NAMES = (
    "openvino",
    "openvino:gpu",
    "openvino:npu",
    "onnxruntime",
    "onnxruntime:cuda",
    "onnxruntime:coreml",
    "onnxruntime:dml",
    "tensorrt",
    "torch:cuda",
    "torch:cpu",
)
"""Every engine by name."""


def preferred() -> tuple[str, ...]:
    """What "auto" tries on this machine, in order."""
    return (*ON_NVIDIA, *PREFERENCE) if gpus() else PREFERENCE


def load_style(
    style: str | Path, *, layout: Layout | None = None, value_range: ValueRange | None = None
) -> Style:
    """A bundled style by its name, a pack's folder or .zip, or somebody else's .onnx stylizer.

    Args:
        layout: order of the axes of an .onnx model; found in its shapes if not given.
        value_range: range of the values of an .onnx model; found in its last layers if not given.

    Raises:
        StyleError: it cannot be used.
    """
    if not str(style).strip():
        raise StyleError("the style has no name; `fauve styles` lists those that there are")
    if Path(style).suffix.lower() == ".onnx":
        from engines.foreign import load_foreign

        return load_foreign(Path(style), layout=layout, value_range=value_range)
    if layout or value_range:
        raise StyleError(f"{style}: layout and range are for .onnx models; a style pack knows its own")
    return Style.load(style)


def load(
    name: str = "auto",
    *,
    style: Style | str | Path,
    precision: str = "auto",
    threads: int | None = None,
    hint: Hint = "latency",
    behind: bool = False,
    anew: bool = False,
    build: bool = True,
    stop: threading.Event | None = None,
) -> Engine:
    """The engine `name` with `style`, which paints what the reference paints.

    "auto" tries the engines in order of preference and logs which one runs and why others do not. An engine
    asked for by name is that one or an error. One that is too far from the reference (`engines.parity`) in
    the precision that it finds fastest paints in the next, at last in float32, and that is logged.

    Args:
        name: "auto", a runtime, or a runtime and its device or provider: "onnxruntime:cuda".
        precision: "auto", "float32", "bfloat16", "float16" or "int8".
        threads: CPU threads; None leaves it to the runtime.
        hint: "latency" finishes one picture as soon as possible; "throughput" paints as many as it can at
            once, in `Engine.streams` calls from different threads.
        behind: with "auto", begin with what is ready at once, and go over to what is faster when that has
            been loaded (`engines.hot_swap`).
        anew: compare with the reference even if that was done before.
        build: whether an engine that is asked for by name may take minutes to compile the style, at its first
            picture. "auto" takes it only if that was done before (`fauve engine build`), or behind another.
        stop: gives up what is built when it is set.

    Raises:
        StyleError: the style cannot be used.
        EngineUnavailable: no such engine here.
        EngineBuildError: the runtime refuses the model.
        ParityError: it paints something else than the reference, in the precision that was asked for.
    """
    if not isinstance(style, Style):
        style = load_style(style)

    def admitted(
        name: str, precision: str, build: bool, stop: threading.Event | None = stop, style: Style = style
    ) -> Engine:
        engine = _engine(name, build, stop)(style, precision, threads, hint)
        try:
            found = verdict(engine, anew=anew)
        except BaseException:
            engine.close()
            raise
        if found.agrees:
            return engine
        engine.close()
        reason = (
            f"{engine.name} in {engine.precision} paints something else than the reference of {style.name} "
            f"({found.difference})"
        )
        if precision != "auto" or engine.precision == "float32":
            raise ParityError(reason)
        # int8 and float16 have a model of their own: without it, the engine takes the next best.
        left = {each: file for each, file in style.models.items() if each != engine.precision}
        without = replace(style, models=left)
        engine = admitted(name, "auto" if left != style.models else "float32", build, stop, without)
        log.warning("%s; it paints in %s", reason, engine.precision)
        return engine

    if name != "auto":
        return admitted(name, precision, build)
    fast = ON_NVIDIA if gpus() else ()
    reasons = []
    for candidate in (*PREFERENCE, *fast) if behind else preferred():
        try:
            engine = admitted(candidate, precision, build=False)
        except EngineError as error:
            reasons.append(str(error))
            log.warning("engine %s does not run: %s", candidate, error)
            continue
        log.info("engine %s runs, %s on %s", engine.name, engine.precision, engine.device)
        if not behind or not fast or candidate in fast:
            return engine
        return Behind(
            engine, [(better, partial(admitted, better, precision, True)) for better in reversed(fast)]
        )
    raise EngineUnavailable("no engine runs here: " + "; ".join(reasons))


def _engine(
    name: str, build: bool, stop: threading.Event | None
) -> Callable[[Style, str, int | None, Hint], Engine]:
    runtime, _, device = name.partition(":")
    if runtime == "openvino":
        from engines.openvino import OpenVinoEngine

        return lambda style, precision, threads, hint: OpenVinoEngine(
            style, device or "cpu", precision=precision, threads=threads, hint=hint
        )
    if runtime == "onnxruntime":
        from engines.onnxruntime import OnnxRuntimeEngine

        return lambda style, precision, threads, hint: OnnxRuntimeEngine(
            style, device or "cpu", precision=precision, threads=threads, hint=hint
        )
    if runtime == "torch":
        from engines.torch import TorchEngine

        return lambda style, precision, threads, hint: TorchEngine(
            style, device, precision=precision, threads=threads, hint=hint
        )
    if runtime == "tensorrt" and not device:
        from engines.tensorrt import TensorRtEngine

        return lambda style, precision, threads, hint: TensorRtEngine(
            style, precision=precision, hint=hint, build=build, stop=stop
        )
    raise EngineUnavailable(f"no engine {name!r}; there is auto, {', '.join(NAMES)}")


@dataclass(frozen=True)
class Probe:
    """Whether an engine really runs on this machine."""

    name: str
    runs: bool
    """It painted what the reference does, within the tolerance of its precision."""
    device: str = ""
    precision: str = ""
    version: str = ""
    reason: str = ""
    """Why it does not run."""
    difference: str = ""
    """The largest one from the reference."""


def probe(name: str, style: Style, precision: str = "auto") -> Probe:
    """Load the engine `name`, and compare what it paints in `style` with the reference now."""
    try:
        with load(name, style=style, precision=precision, anew=True, build=False) as engine:
            return Probe(
                engine.name if name == "auto" else name,
                True,
                engine.device,
                engine.precision,
                version(engine.name),
                difference=verdict(engine).difference,
            )
    except EngineError as error:
        return Probe(name, False, version=version(name), reason=str(error))
