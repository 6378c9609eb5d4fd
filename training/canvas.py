"""The canvas that a network paints on: brushwork that stays where it is, and which way it lies."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from training import brushwork

OWN_COURSE = 0.3
"""How much the canvas has to say about which way touches lie, where edges that all run one way have 1."""

CANVAS_LEVEL = 1
"""Where the canvas's colours lie: at a quarter of the picture's size, where a value is as wide as a small
stroke. Its relief lies one level above."""

CANVAS_SIDE = 192
"""The canvas repeats after this many places (`training.brushwork`), a value of its colours each where touches
are not enlarged."""


class Canvas(nn.Module):
    """Brushwork for what is flat: it stays where it is whatever moves over it, or goes along as a whole.

    A picture's sky gives a network nothing to paint strokes on but noise, which trembles. Strokes laid on a
    canvas do not (`training.brushwork`): each style takes as much of each layer of its coats into each
    channel as it likes. Noise as an input makes textures (Ulyanov et al. 2016, arXiv 1603.03417), and
    injected into the levels, detail (Karras et al. 2019, arXiv 1812.04948). Of smooth noise a small network
    makes worms, which follow its contours; a stroke has to be there already, with edges and a colour of its
    own.

    The grain is part of a checkpoint: it is what the rest has learned to paint by.

    Args:
        grain: colours or relief of `brushwork.grain`, [layers, side, side].
        coats: those that each style may paint by.
        channels: of the level that it is added to.
        fine: its values, each way, to a value of colour.
    """

    grain: Tensor
    allowed: Tensor

    def __init__(
        self, grain: brushwork.Steps, coats: Sequence[Sequence[str]], channels: int, fine: int
    ) -> None:
        super().__init__()
        self.fine, self.step = fine, brushwork.step_of(grain)
        each = len(grain) // (len(brushwork.COATS) + len(brushwork.LYING))
        layers = np.repeat(list(brushwork.COATS), each)
        self.lying = each * len(brushwork.LYING)
        """How many layers, the first ones, are of touches that lie one way; as many, the last, of another."""
        allowed = torch.tensor([[float(name in own) for name in layers] for own in coats])
        self.register_buffer("allowed", allowed)
        self.register_buffer("grain", torch.from_numpy(grain)[None].clone())
        # From nothing it would not grow: it is of use only after the layers behind it have shaped it.
        self.share = nn.Parameter(0.25 * torch.randn(len(coats), channels, len(layers)))
        self.grid: Tensor | None = None
        """Where it has been carried to with the picture, [n, h, w, 2] as `flow.warp` takes it."""

    def forward(self, x: Tensor, weights: Tensor, corner: Tensor, ways: Tensor) -> Tensor:
        """What to add to `x` [n, c, h, w].

        Args:
            weights: [n or 1, styles], how much there is of each style.
            corner: row and column, of either sign, that lie on the picture's corner, int64 [2], in values of
                colour.
            ways: [n or 1, `brushwork.WAYS`, h, w], how much there is of the touches of each direction.
        """
        height, width = x.shape[-2:]
        side = self.grain.shape[-1]
        rows, columns = places(corner * self.fine, (height, width), side, x.device)
        others, lying = (
            layers.index_select(2, rows).index_select(3, columns).to(self.share.dtype)
            for layers in (self.grain[:, self.lying : -self.lying], self._every_way())
        )
        lying = (ways[:, :, None] * lying).sum(1)
        if self.grid is not None:
            others, lying = (self._along(each, self.grid) for each in (others, lying))
        own = (self.share * self.allowed[:, None]).flatten(1) * self.step
        share = (weights @ own).unflatten(1, self.share.shape[1:])
        laid = share[..., : self.lying] @ lying.flatten(2).to(share.dtype)
        laid = laid + share[..., self.lying :] @ others.flatten(2).to(share.dtype)
        return laid.unflatten(2, (height, width))

    def _every_way(self) -> Tensor:
        """The touches of each direction, [`brushwork.WAYS`, layers, side, side].

        Where rows are taken for columns, an angle becomes what it lacks of a quarter turn, and from right to
        left, of half a turn.
        """
        level, risen = self.grain[0, : self.lying], self.grain[0, -self.lying :]
        upright, steep = level.mT, risen.mT
        # Not by `flip`, which ONNX has as a slice that goes backwards, and few runtimes know.
        mirrored = torch.arange(self.grain.shape[-1] - 1, -1, -1, device=self.grain.device)
        falling, fallen = (each.index_select(-1, mirrored) for each in (steep, risen))
        return torch.stack([level, risen, steep, upright, falling, fallen])

    @staticmethod
    def _along(spread: Tensor, grid: Tensor) -> Tensor:
        places = F.interpolate(grid.permute(0, 3, 1, 2), spread.shape[2:], mode="area").permute(0, 2, 3, 1)
        spread = spread.float().expand(len(grid), -1, -1, -1)
        return F.grid_sample(spread, places, "bicubic", "reflection", align_corners=False)


class Course(nn.Module):
    """Which way touches lie: along what there is to see, and else as the canvas has it.

    Args:
        grain: the course of `brushwork.grain`.
        enlarged: as of that.
    """

    grain: Tensor
    value: Tensor
    ways: Tensor

    def __init__(self, grain: NDArray[np.int8], enlarged: int = 1) -> None:
        super().__init__()
        self.register_buffer("grain", torch.from_numpy(grain)[None].clone())
        # Which row or column each value of colour has; where ONNX divides whole numbers it asks for signs.
        coarse = brushwork.COARSE * enlarged
        value = torch.arange(coarse * grain.shape[-1]) // coarse
        self.register_buffer("value", value, persistent=False)
        angles = 2 * torch.pi * torch.arange(brushwork.WAYS) / brushwork.WAYS
        ways = torch.stack([angles.cos(), angles.sin()], 1)[..., None, None]
        self.register_buffer("ways", ways, persistent=False)

    def forward(self, size: Sequence[int], corner: Tensor, edges: Tensor | None) -> Tensor:
        """How much there is of the touches of each direction, [n or 1, `brushwork.WAYS`, h, w], 0 to 1.

        Two directions at most, one of them mostly: touches laid over one another lose their edges. The sum of
        the squares is 1, so that what is laid has the same contrast everywhere.

        Args:
            size: (h, w), in values of colour of the canvas.
            corner: as for the `Canvas`.
            edges: [n, 2, h, w], which way they run, as `Detail` tells it; None where nobody knows.
        """
        rows, columns = (
            self.value.index_select(0, each)
            for each in places(corner, size, len(self.value), self.grain.device)
        )
        course = self.grain.index_select(2, rows).index_select(3, columns).to(self.ways.dtype)
        course = course * (OWN_COURSE * brushwork.STEP)
        if edges is not None:
            course = course + edges
        # Twice the angle, of length 1.
        course = course * ((course * course).sum(1, keepdim=True) + 1e-4).rsqrt()
        beside = float(np.cos(2 * np.pi / brushwork.WAYS))
        near = F.relu(F.conv2d(course, self.ways) - beside)
        near = near * near
        return near * ((near * near).sum(1, keepdim=True) + 1e-4).rsqrt()


def places(corner: Tensor, size: Sequence[int], side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The rows and the columns of a canvas that repeats after `side` under a picture of `size`, (h, w)."""
    rows, columns = (
        (torch.arange(length, device=device) + first) % side
        for length, first in zip(size, corner, strict=True)
    )
    return rows, columns
