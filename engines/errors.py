"""What can go wrong between a picture and its painting.

StyleError (ValueError)          a style pack or model that cannot be used as it is
EngineError (RuntimeError)
├── EngineUnavailable            the runtime, its provider or its device is not here
├── EngineBuildError             the runtime is here, but refuses the model
├── ParityError                  it runs, but paints something else than the reference
└── InferenceError               it ran and failed, or gave something that is no picture
"""


class StyleError(ValueError):
    """A style pack or model that is missing, broken, altered or not understood."""


class EngineError(RuntimeError):
    """An engine cannot be had, or failed."""


class EngineUnavailable(EngineError):
    """The runtime, its provider or its device is not on this machine."""


class EngineBuildError(EngineError):
    """The runtime refuses the model."""


class ParityError(EngineError):
    """The engine paints something else than the reference."""


class InferenceError(EngineError):
    """The engine failed on a picture."""


def first_line(said: Exception | str) -> str:
    """The first line of an exception or text, for a message of one line: runtimes tell their stack below.

    Of an exception that says nothing, its kind.
    """
    lines = str(said).strip().splitlines()
    silent = "it gives no reason" if isinstance(said, str) else type(said).__name__
    return lines[0] if lines else silent
