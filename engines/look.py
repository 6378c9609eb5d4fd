"""What the performer can turn while it runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Look:
    """How a frame is to be painted: a mix of styles, and how strongly.

    Weights go by the styles' names, so that they keep their meaning when another pack is swapped in.

    Raises:
        ValueError: a weight is negative or not finite, all are 0, or the strength is outside 0..1.
    """

    mix: Mapping[str, float] = field(default_factory=dict)
    """Weight of each style, any scale; empty means the pack's first style."""

    strength: float = 1.0
    """0 (the input) to 1 (the full style)."""

    moved: tuple[float, float] | None = None
    """How far the scene has moved in a video so far, right and down, in pixels of the picture that is
    painted; a style with a canvas takes that along. None where nothing moves, as in a photograph."""

    def __post_init__(self) -> None:
        for name, weight in self.mix.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"the weight of style {name!r} must be 0 or more, not {weight}")
        if self.mix and not sum(self.mix.values()) > 0:
            raise ValueError(f"all weights of the mix are 0: {', '.join(self.mix)}")
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength must be within 0 and 1, not {self.strength}")
        if self.moved is not None and not all(map(math.isfinite, self.moved)):
            raise ValueError(f"how far a scene has moved must be finite, not {self.moved}")
        object.__setattr__(self, "mix", MappingProxyType(dict(self.mix)))

    def __reduce__(self) -> tuple[type["Look"], tuple[dict[str, float], float, tuple[float, float] | None]]:
        # A mapping proxy cannot be sent to another process.
        return Look, (dict(self.mix), self.strength, self.moved)

    def carried(self, moved: tuple[float, float] | None) -> Self:
        """The same look of a scene that has moved that far."""
        return replace(self, moved=moved)

    def weights(self, styles: Sequence[str]) -> NDArray[np.float32]:
        """The mix as an array [len(styles)] in the order of `styles`, summing to 1.

        Raises:
            ValueError: the mix names a style that is not among `styles`.
        """
        unknown = [name for name in self.mix if name not in styles]
        if unknown:
            raise ValueError(f"no style {unknown[0]!r} in this pack; there is {', '.join(styles)}")
        weights = np.array([self.mix.get(name, 0.0) for name in styles], np.float64)
        if not self.mix:
            weights[0] = 1
        # By the largest first: the sum of weights of any scale may be more than a number can be.
        weights /= weights.max()
        normalised: NDArray[np.float32] = (weights / weights.sum()).astype(np.float32)
        return normalised
