"""ONNX Runtime: the portable engine, on the CPU or through one of its execution providers."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.cpu import cores, cpu_name
from engines.engine import Engine, Hint
from engines.errors import EngineBuildError, EngineUnavailable, InferenceError, first_line
from engines.style import Inputs, Style

# Its official builds send usage to Microsoft, and keep an identifier of the machine, unless told so before
# their import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

PROVIDERS = {
    "cpu": ("CPUExecutionProvider", "onnxruntime"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime for macOS"),
    "dml": ("DmlExecutionProvider", "onnxruntime-directml for Windows"),
}
"""Execution provider and the package that brings it, by the name users type."""

DISTRIBUTIONS = (
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-training",
)
"""Those that bring the module `onnxruntime`, beside the one of that name."""


class OnnxRuntimeEngine(Engine):
    """A style pack in ONNX Runtime.

    Args:
        provider: "cpu", "cuda", "coreml" or "dml". One that does not start is an error, and no way back to
            the CPU; single operators that it lacks are computed there all the same.
        precision: "auto" (float16 on a GPU if the pack has it), "float32", "float16" or "int8".
        threads: CPU threads; None leaves it to ONNX Runtime.
        hint: "throughput" paints a picture on each CPU core that it may use; a GPU has one stream.

    Raises:
        EngineUnavailable: ONNX Runtime or the provider is not here.
        EngineBuildError: it refuses the model.
    """

    def __init__(
        self,
        style: Style,
        provider: str = "cpu",
        *,
        precision: str = "auto",
        threads: int | None = None,
        hint: Hint = "latency",
    ) -> None:
        super().__init__(style)
        if provider not in PROVIDERS:
            raise EngineUnavailable(f"onnxruntime:{provider}: there is {', '.join(PROVIDERS)}")
        if precision not in ("auto", "float32", "float16", "int8"):
            raise EngineUnavailable(f"onnxruntime has no {precision}; there is float32, float16 and int8")
        try:
            # By name: of two distributions, the one that is removed takes files of the other along, and what
            # is left can be imported.
            from onnxruntime import InferenceSession, SessionOptions, get_available_providers
        except ImportError as error:
            missing = isinstance(error, ModuleNotFoundError)
            raise EngineUnavailable(
                f"ONNX Runtime is not installed{'' if missing else ' as a whole'} ({error}): "
                f"pip install {'' if missing else '--force-reinstall '}onnxruntime"
            ) from error
        wanted, package = PROVIDERS[provider]
        if wanted not in get_available_providers():
            raise EngineUnavailable(
                f"onnxruntime:{provider}: this ONNX Runtime has no {wanted}; it comes with {package}"
            )
        if precision == "auto":
            precision = "float16" if provider in ("cuda", "dml") and "float16" in style.models else "float32"
        options = SessionOptions()
        options.log_severity_level = 4  # of errors, what it raises tells the same
        if hint == "throughput" and provider == "cpu":
            # A thread for each picture needs no waiting for the others.
            self.streams = threads or cores()
            options.intra_op_num_threads = 1
        elif threads:
            options.intra_op_num_threads = threads
        # TF32 has ten bits of mantissa: float32 that is not would miss its tolerance.
        settings = {"use_tf32": "0"} if provider == "cuda" else {}
        try:
            # Its own way back to the CPU, also from a picture that fails, is said on stdout only, where a
            # video may go.
            session = InferenceSession(
                style.model(precision), options, providers=[(wanted, settings)], enable_fallback=0
            )
        except Exception as error:  # onnxruntime's exceptions share no base below Exception
            raise EngineBuildError(
                f"onnxruntime:{provider} refuses {style.name}: {first_line(error)}"
            ) from error
        if session.get_providers()[0] != wanted:
            raise EngineUnavailable(
                f"onnxruntime:{provider}: {wanted} could not start on this machine; are its driver and "
                f"libraries installed?"
            )
        self.name = "onnxruntime" if provider == "cpu" else f"onnxruntime:{provider}"
        self.device = cpu_name() if provider == "cpu" else wanted
        self.precision = precision
        self._session: Any = session

    def _infer(self, batch: NDArray[np.uint8], inputs: Inputs) -> NDArray[np.uint8]:
        try:
            outputs = self._session.run(["stylized"], {"image": batch, **inputs})
        except Exception as error:  # as above
            raise InferenceError(f"{self.name} failed on {self.style.name}: {first_line(error)}") from error
        stylized: NDArray[np.uint8] = outputs[0]
        return stylized

    def close(self) -> None:
        self._session = None
