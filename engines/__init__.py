"""Image in, image out: style packs and the runtimes that paint with them. Knows nothing of video."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from engines.cuda import gpus
from engines.engine import Engine, Hint, Image
from engines.errors import EngineBuildError, EngineError, EngineUnavailable, InferenceError, StyleError
from engines.look import Look
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
    "Probe",
    "Size",
    "Style",
    "StyleError",
    "bundled",
    "load",
    "load_style",
    "preferred",
    "probe",
]

log = logging.getLogger("fauve")

PREFERENCE = ("openvino", "onnxruntime")
"""What "auto" tries, in order."""

ON_NVIDIA = ("tensorrt",)
"""What "auto" tries before, where there is an NVIDIA GPU."""

NAMES = (
    "openvino",
    "openvino:gpu",
    "openvino:npu",
    "onnxruntime",
    "onnxruntime:cuda",
    "onnxruntime:coreml",
    "onnxruntime:dml",
    "tensorrt",
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
    build: bool = True,
) -> Engine:
    """The engine `name` with `style`.

    "auto" tries the engines in order of preference and logs which one runs and why others do not. An engine
    asked for by name is that one or an error.

    Args:
        name: "auto", a runtime, or a runtime and its device or provider: "onnxruntime:cuda".
        precision: "auto", "float32", "bfloat16", "float16" or "int8".
        threads: CPU threads; None leaves it to the runtime.
        hint: "latency" finishes one picture as soon as possible; "throughput" paints as many as it can at
            once, in `Engine.streams` calls from different threads.
        build: whether an engine that is asked for by name may take minutes to compile the style, at its first
            picture. "auto" takes it only if that was done before (`fauve engine build`).

    Raises:
        StyleError: the style cannot be used.
        EngineUnavailable: no such engine here.
        EngineBuildError: the runtime refuses the model.
    """
    if not isinstance(style, Style):
        style = load_style(style)
    if name != "auto":
        return _engine(name, build)(style, precision, threads, hint)
    reasons = []
    for candidate in preferred():
        try:
            engine = _engine(candidate, build=False)(style, precision, threads, hint)
        except EngineError as error:
            reasons.append(str(error))
            log.warning("engine %s does not run: %s", candidate, error)
        else:
            log.info("engine %s runs, %s on %s", engine.name, engine.precision, engine.device)
            return engine
    raise EngineUnavailable("no engine runs here: " + "; ".join(reasons))


def _engine(name: str, build: bool) -> Callable[[Style, str, int | None, Hint], Engine]:
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
    if runtime == "tensorrt" and not device:
        from engines.tensorrt import TensorRtEngine

        return lambda style, precision, threads, hint: TensorRtEngine(
            style, precision=precision, hint=hint, build=build
        )
    raise EngineUnavailable(f"no engine {name!r}; there is auto, {', '.join(NAMES)}")


@dataclass(frozen=True)
class Probe:
    """Whether an engine really runs on this machine."""

    name: str
    runs: bool
    """It painted a style's golden picture, within the tolerance of its precision."""
    device: str = ""
    precision: str = ""
    version: str = ""
    reason: str = ""
    """Why it does not run."""


def probe(name: str, style: Style) -> Probe:
    """Load the engine `name`, paint the golden picture of `style` with it and compare."""
    runtime = name.partition(":")[0]
    try:
        version = metadata.version(runtime)
    except metadata.PackageNotFoundError:
        version = ""
    golden = style.golden()
    if golden is None:
        return Probe(
            name, False, version=version, reason=f"{style.name} has no golden picture to compare with"
        )
    try:
        with load(name, style=style, build=False) as engine:
            painted = engine(golden.image, golden.look)
            agrees, difference = agreement(painted, golden.stylized, engine.precision)
            reason = "" if agrees else f"paints something else than the reference ({difference})"
            return Probe(name, agrees, engine.device, engine.precision, version, reason)
    except EngineError as error:
        return Probe(name, False, version=version, reason=str(error))


LARGEST_DIFFERENCE = 2
"""Grey levels that float32 engines may differ by: they sum in another order, and some values round apart."""

LOWEST_PSNR = 40.0
"""dB that a 16-bit engine must reach: eight bits of mantissa through a dozen layers, invisible."""

LOWEST_INT8_PSNR = 30.0
"""dB that int8 must reach: a fine grain."""


def agreement(painted: Image, reference: Image, precision: str) -> tuple[bool, str]:
    """Whether `painted` agrees with `reference` as `precision` allows, and the difference in words."""
    import numpy as np

    difference = painted.astype(np.int16) - reference
    if precision == "float32":
        largest = int(np.abs(difference).max())
        return largest <= LARGEST_DIFFERENCE, f"{largest} grey levels"
    error = float(np.mean(np.square(difference, dtype=np.float64)))
    psnr = float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))
    return psnr >= (LOWEST_INT8_PSNR if precision == "int8" else LOWEST_PSNR), f"PSNR {psnr:.1f} dB"
