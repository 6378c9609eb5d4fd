"""Whether an engine paints what the reference paints: asked at its first load, and remembered.

Compared are the pack's golden pair, and built-in frames that photographs seldom hold, painted in every style
of the pack by ONNX Runtime in float32 on the CPU, which every installation has.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.engine import Engine, Image
from engines.errors import EngineError
from engines.fact_cache import recall, remember, version_of
from engines.look import Look
from engines.onnxruntime import DISTRIBUTIONS, OnnxRuntimeEngine
from engines.style import Size

log = logging.getLogger("fauve")

LARGEST_DIFFERENCE = 2
"""Grey levels that float32 engines may differ by: they sum in another order, and some values round apart."""

LOWEST_PSNR = 40.0
"""dB that engines of less than 32 bits must reach: eight bits of mantissa in a dozen layers, invisible."""

EDITION = 5
"""Of the frames and limits; another one asks again."""

FRAMES = (160, 120)
"""(width, height) of the built-in frames, where there is no golden picture to go by."""


@dataclass(frozen=True)
class Verdict:
    """How far an engine is from the reference."""

    agrees: bool
    difference: str
    """The largest one found, in words."""
    complete: bool = True
    """Whether the reference painted everything; if not, it is asked again the next time."""


def verdict(engine: Engine, *, anew: bool = False) -> Verdict:
    """The verdict on `engine`, remembered for its model, version, device and precision.

    Args:
        anew: compare even if there is one.

    Raises:
        EngineError: the engine fails on a picture that the reference can paint.
    """
    key = _key(engine)
    known = None if anew else recall("parity", key)
    if known is not None and {"agrees", "difference"} <= known.keys():
        return Verdict(bool(known["agrees"]), str(known["difference"]))
    found = compare(engine)
    if found.complete:
        remember(
            "parity",
            key,
            {
                "agrees": found.agrees,
                "difference": found.difference,
                "engine": f"{engine.name} {version(engine.name)}, {engine.precision} on {engine.device}",
                "style": engine.style.name,
            },
        )
    return found


def compare(engine: Engine) -> Verdict:
    """Paint the golden picture and the built-in frames with `engine` and the reference.

    Where the reference itself cannot paint, only the golden pair counts; without one, that it paints.

    Raises:
        EngineError: the engine fails on a picture that the reference can paint, or on all.
    """
    style, golden = engine.style, engine.style.golden()
    size = style.size or (FRAMES if golden is None else golden.image.shape[1::-1])
    differences, complete = [], True
    if golden is not None:
        painted = engine(golden.image, golden.look)
        differences.append(difference(painted, golden.stylized, engine.precision))
    if (engine.name, engine.precision) != ("onnxruntime", "float32"):
        try:
            with OnnxRuntimeEngine(style, precision="float32") as reference:
                expected = [
                    (frame, look, reference(frame, look)) for frame, look in trials(style.styles, size)
                ]
        except EngineError as error:
            log.info("%s is not compared with the reference: %s", engine.name, error)
            expected, complete = [], False
        for frame, look, right in expected:
            differences.append(difference(engine(frame, look), right, engine.precision))
    if not differences:
        # Whether it paints at all.
        engine(*next(trials(style.styles, size)))
        return Verdict(True, "nothing to compare with", complete)
    worst = max(differences)
    return Verdict(worst <= _limit(engine.precision), _words(worst, engine.precision), complete)


def trials(styles: Sequence[str], size: Size) -> Iterator[tuple[Image, Look]]:
    """The built-in frames in a pack's styles in turn, each at least once, and one in all at half strength,
    of a scene that has moved."""
    frames = built_in(size)
    for index in range(max(len(frames), len(styles))):
        name = styles[index % len(styles)]
        yield frames[index % len(frames)], Look({name: 1.0})
    yield frames[0], Look(dict.fromkeys(styles, 1.0), 0.5, moved=(-37.0, 21.0))


def built_in(size: Size) -> list[Image]:
    """Frames with what photographs seldom hold: ramps, flat blocks, noise, grain in the dark, lines."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    rng = np.random.default_rng(0)
    across, down = x * 255 / max(1, width - 1), y * 255 / max(1, height - 1)
    blocks = rng.integers(0, 256, (6, 8, 3))
    lines = np.where((x // 3 + y // 5) % 2, 255, 0)
    made = [
        np.stack([across, down, 255 - across], -1),
        blocks[y * 6 // height, x * 8 // width],
        rng.integers(0, 256, (height, width, 3)),
        np.clip(rng.normal(30, 8, (height, width, 3)), 0, 255),
        np.repeat(lines[..., None], 3, -1),
    ]
    return [frame.astype(np.uint8) for frame in made]


def agreement(painted: Image, reference: Image, precision: str) -> tuple[bool, str]:
    """Whether `painted` agrees with `reference` as `precision` allows, and the difference in words."""
    found = difference(painted, reference, precision)
    return found <= _limit(precision), _words(found, precision)


def difference(painted: NDArray[np.uint8], reference: NDArray[np.uint8], precision: str) -> float:
    """How far apart two pictures are: in grey levels for float32, else the negative PSNR in dB."""
    apart = painted.astype(np.int16) - reference
    if precision == "float32":
        return float(np.abs(apart).max())
    error = float(np.mean(np.square(apart, dtype=np.float64)))
    return float("-inf") if error == 0 else -10 * float(np.log10(255**2 / error))


def _limit(precision: str) -> float:
    return LARGEST_DIFFERENCE if precision == "float32" else -LOWEST_PSNR


def _words(difference: float, precision: str) -> str:
    return f"{difference:.0f} grey levels" if precision == "float32" else f"PSNR {-difference:.1f} dB"


def version(name: str) -> str:
    """The installed version of the runtime of the engine `name`; empty if there is none by that name.

    Of one that several distributions bring or complete, the versions of those that are installed.
    """
    runtime = name.partition(":")[0]
    others = {"onnxruntime": DISTRIBUTIONS, "torch:cuda": ("triton", "triton-windows")}
    found = {
        each: version_of(each) for each in (runtime, *others.get(name if name in others else runtime, ()))
    }
    return ", ".join(v if each == runtime else f"{each} {v}" for each, v in found.items() if v)


def _key(engine: Engine) -> list[object]:
    """All that the pictures of `engine` depend on, and what they are compared with."""
    files = {
        name: hashlib.sha256(content).hexdigest()
        for name, content in sorted(engine.style.files.items())
        if name != "preview.jpg"
    }
    versions = [version_of("fauve"), version(engine.name), version("onnxruntime")]
    return [EDITION, *versions, engine.name, engine.device, engine.precision, files]
