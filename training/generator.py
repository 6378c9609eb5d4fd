"""The generator that paints."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import brushwork
from training.canvas import CANVAS_LEVEL, CANVAS_SIDE, Canvas, Course
from training.layers import (
    ConvNorm,
    LinearUpsample,
    ResidualBlock,
    UpsampleConv,
    UpsampleToImage,
    binomial,
    inner,
    interpolating,
    twice,
)
from training.simplify import MARGIN, Cut, Simplify, SimplifyEnlarged


class Generator(nn.Module):
    """Paints one picture in any mix of its styles, at any strength.

    Space-to-depth by 2, then a level for each width, each at half the size of the one before, residual
    blocks at the lowest one, and up again; a `Canvas` lies under the second level. With skips from level to
    level it is a U-Net (Ronneberger et al. 2015, arXiv 1505.04597), without them the ResNet of Johnson et al.
    (2016, arXiv 1603.08155). What it sees, and adds its residual to, is the picture, perhaps simplified by a
    `Kuwahara` filter at half its size: detail finer than any brush would keep a photograph a photograph. The
    residual starts near zero, and strength 0 is the identity for ever.

    Args:
        styles: how many styles share the trunk.
        widths: channels of each level, from half the picture's size down.
        blocks: residual blocks at the lowest level.
        skips: add what a level held on the way down to what it holds on the way up.
        simplified: paint over the picture simplified, and not over all its detail.
        branches: each 3x3 convolution has a 1x1 one beside it, which is gone once it is exported.
        coats: of the canvas, those that each style may paint by; all if not given.
        spared: how much of each style's canvas gives way to `Detail`, 0..1; nothing if not given. This and
            what follows only where the picture is simplified.
        cuts: the coat of the canvas that each style cuts the picture along, "" for none; none if not given.
        broad: how much broader each style's patches are, as `Simplify` has it; nothing if not given.
        enlarged: 2 for pictures of twice the size, seen from twice as far: touches are as much larger, and
            as crisp (`brushwork.grain`), and patches (`SimplifyEnlarged`).
    """

    spared: Tensor

    def __init__(
        self,
        styles: int,
        widths: Sequence[int] = (16, 32, 64),
        blocks: int = 4,
        *,
        skips: bool = True,
        simplified: bool = True,
        branches: bool = False,
        coats: Sequence[Sequence[str]] | None = None,
        spared: Sequence[float] | None = None,
        cuts: Sequence[str] | None = None,
        broad: Sequence[float] | None = None,
        enlarged: int = 1,
    ) -> None:
        super().__init__()
        self.styles = styles
        self.skips = skips
        self.multiple = 2 ** len(widths)
        """Sides of a picture must be multiples of this, in pixels."""
        first, last = widths[0], widths[-1]
        self.enlarged = enlarged
        grain = brushwork.grain(CANVAS_SIDE, enlarged)
        self.simplify = None
        if simplified:
            kind = SimplifyEnlarged if enlarged > 1 else Simplify
            self.simplify = kind(grain.cuts, cuts or [""] * styles, broad or [0.0] * styles)
        self.upsample = LinearUpsample() if simplified else None
        coats = [tuple(brushwork.COATS)] * styles if coats is None else coats
        self.register_buffer("spared", torch.tensor([0.0] * styles if spared is None else [*spared]), False)
        self.canvases = nn.ModuleList(
            Canvas(layers, coats, channels, fine)
            for layers, channels, fine in zip(
                (grain.relief, grain.colours), widths, (brushwork.FINE, 1), strict=False
            )
        )
        self.course = Course(grain.course, enlarged)
        self._laid_for: Tensor | None = None
        """The `Detail` that touches are laid along in place of the picture's own."""
        self.corner = torch.zeros(2, dtype=torch.int64)
        """Row and column of the canvas that lie on the picture's corner; training moves them about."""
        self.encode = nn.ModuleList([ConvNorm(12, first, padding=0, styles=styles, branch=branches)])
        self.encode.extend(
            ConvNorm(high, low, stride=2, styles=styles, branch=branches) for high, low in pairwise(widths)
        )
        self.blocks = nn.ModuleList(ResidualBlock(last, styles, branches=branches) for _ in range(blocks))
        self.decode = nn.ModuleList(
            UpsampleConv(low, high, styles) for low, high in pairwise(reversed(widths))
        )
        self.to_image = UpsampleToImage(first)
        self._initialise()

    def _initialise(self) -> None:
        """He initialisation (He et al. 2015, arXiv 1502.01852), but for the last layer; every residual block
        begins as the identity (Goyal et al. 2017, arXiv 1706.02677).
        """
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, UpsampleConv)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, parameter in self.blocks.named_parameters():
            if name.endswith(("second.norm.weight", "second.branch.norm.weight")):
                nn.init.zeros_(parameter)
        nn.init.normal_(self.to_image.weight, std=1e-3)

    def levels(
        self,
        x: Tensor,
        detail: Tensor | None,
        weights: Tensor,
        covered: Tensor,
        corner: Tensor | None = None,
    ) -> list[Tensor]:
        """What each level holds on the way down, and after the residual blocks in place of the last one.

        Args:
            x: [n, 12, h/2 + 2, w/2 + 2], as `base` gives it.
            detail: [n, 3, h/4, w/4], as `base` gives it.
            weights: [n or 1, styles], mix times `eased` strength.
            covered: [n or 1, styles], mix times `laid` strength, by which the canvas's colours are there.
            corner: as for the `Canvas`; `self.corner` if not given.
        """
        held = []
        corner = self.corner if corner is None else corner
        followed = detail if self._laid_for is None else self._laid_for
        room = None
        if detail is not None:
            spared = weights @ self.spared.to(weights.dtype)
            room = 1 - spared[:, None, None, None] * detail[:, :1]
        for index, layer in enumerate(self.encode):
            x = F.relu(layer(x, weights))
            if index == 0:
                size = [side // 2**CANVAS_LEVEL for side in x.shape[-2:]]
                ways = self.course(size, corner, None if followed is None else followed[:, 1:])
            if index < len(self.canvases):
                at_level = index == CANVAS_LEVEL
                marks = self.canvases[index](
                    x, covered if at_level else weights, corner, ways if at_level else twice(ways)
                )
                if room is not None:
                    marks = marks * (room if at_level else twice(room))
                x = x + marks
            held.append(x)
        for block in self.blocks:
            x = block(x, weights)
        return [*held[:-1], binomial(x)]

    def to_residual(self, levels: Sequence[Tensor], weights: Tensor) -> Tensor:
        """What full strength adds to a picture of these `levels`, [n, 12, h/2, w/2] in the same order.

        `weights` as for `levels`.
        """
        x = levels[-1]
        for layer, skipped in zip(self.decode, reversed(levels[:-1]), strict=True):
            x = layer(x, weights)
            x = F.relu(x + skipped if self.skips else x)
        return self.to_image(x)

    def paint(self, image: Tensor, mix: Tensor, strength: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The painted `image` as `forward` gives it, and the levels on the way to it."""
        weights, covered = (mix * share(strength)[:, None] for share in (eased, laid))
        base, detail = self.base(image, covered)
        levels = self.levels(base, detail, weights, covered)
        residual = self.to_residual(levels, weights)
        painted = F.pixel_shuffle(inner(base) + residual, 2)
        return image + strength[:, None, None, None] * (painted - image), levels

    def base(self, image: Tensor, covered: Tensor) -> tuple[Tensor, Tensor | None]:
        """What there is of `image` to paint over: [n, 12, h/2 + 2, w/2 + 2], its 2x2 blocks of pixels in
        `pixel_unshuffle` order and a block more at each edge; and its `Detail`, if it is simplified.

        `covered` as for `levels`.
        """
        if self.simplify is None:
            return F.pixel_unshuffle(F.pad(image, (2,) * 4, mode="replicate"), 2), None
        # Variances are differences that bfloat16 would not leave much of.
        with torch.autocast(image.device.type, enabled=False):
            small = F.avg_pool2d(F.pad(image.float(), (2 * MARGIN,) * 4, mode="replicate"), 2)
            patches, detail = self.simplify(small - 0.5, covered.float(), self.corner)
            return self.upsample(patches) + 0.5, detail

    def features(self, image: Tensor) -> list[Tensor]:
        """What the trunk sees in `image` [n, 3, h, w], whatever the style: its levels at strength 0."""
        none = torch.zeros(1, self.styles, device=image.device)
        return self.levels(*self.base(image, none), none, none)

    def forward(self, image: Tensor, mix: Tensor, strength: Tensor) -> Tensor:
        """Paint `image`.

        Args:
            image: [n, 3, h, w], RGB in 0..1; h and w multiples of `multiple`.
            mix: [n, styles], weights that sum to 1.
            strength: [n], 0 (the input) to 1 (the full style).

        Returns:
            [n, 3, h, w], near 0..1 but not clamped, so that gradients do not die at the ends.
        """
        return self.paint(image, mix, strength)[0]

    def move_canvas(self, rng: torch.Generator) -> None:
        """Lay the picture's corner on another place of the canvas, so that none is learned by heart."""
        self.corner = torch.randint(CANVAS_SIDE * self.enlarged, (2,), generator=rng)

    @contextmanager
    def canvas_carried(self, grid: Tensor, image: Tensor) -> Iterator[None]:
        """Within, the canvas as it lies for `image` moves with it, along `grid` [n, h, w, 2] as `flow.warp`
        takes it.
        """
        _, self._laid_for = self.base(image, torch.zeros(1, self.styles, device=image.device))
        carried = [module for module in self.modules() if isinstance(module, Canvas | Cut)]
        for module in carried:
            module.grid = grid
        try:
            yield
        finally:
            self._laid_for = None
            for module in carried:
                module.grid = None

    def merge_branches(self) -> None:
        """Take the branches into the convolutions that they stand beside."""
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.merge_branch()

    def freeze_trunk(self) -> None:
        """Train nothing but the styles' scales and shifts from now on: what makes a style, in a few kB."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(of_styles(name))

    def start_from(self, state: Mapping[str, Tensor], trained: Sequence[str], styles: Sequence[str]) -> None:
        """Take over the trunk of another generator, and its styles by name.

        A generator that is wider, or has more blocks, begins with what the other one paints: channels and
        blocks that are new have no say yet (Chen et al. 2016, Net2Net, arXiv 1511.05641, but by zeros). One
        whose touches are enlarged keeps its own canvas.

        Args:
            state: the other generator's, of no more channels at any level and no more blocks. What coats
                each style may paint by stays this generator's.
            trained: names of the other generator's styles, in its order.
            styles: names of this generator's; those that the other one does not know begin as the mean of
                those of its own that paint by one of the same coats, or of all.

        Raises:
            ValueError: the other generator is wider or deeper, or has another number of levels or another
                version's canvas.
        """
        own = self.state_dict()
        # Styles that knew nothing of a layer leave it as it is.
        taken = {name: torch.zeros_like(value) for name, value in own.items() if ".affine." in name}
        taken |= {name: value for name, value in own.items() if name.startswith(("canvases.", "simplify."))}
        for name, value in own.items():
            if name not in state and name.startswith("blocks."):
                taken[name] = torch.zeros_like(value) if ".second.norm." in name else value
            if name not in state and ".branch." in name:
                taken[name] = torch.zeros_like(value) if ".norm.weight" in name else value
        coats, of_others = (each.get("canvases.0.allowed") for each in (own, state))
        if of_others is None or coats.shape[1:] != of_others.shape[1:]:
            raise ValueError("the checkpoint has another version's canvas; give one of this fauve")
        kin = _kin(coats, of_others)
        for name, value in state.items():
            if name.startswith("canvases.") and name.endswith(".allowed"):
                continue
            if of_styles(name):
                known = dict(zip(trained, value, strict=True))
                means = torch.tensordot(kin, value, 1)
                value = torch.stack([known.get(*each) for each in zip(styles, means, strict=True)])
            if name.endswith(".grain") and _is_enlarged(own.get(name), value):
                continue
            # A canvas of fewer coats would be taken for one with bare ones.
            grows = name in own and not name.endswith(".grain")
            taken[name] = _grown(value, own[name]) if grows else value
        shapes = {name: value.shape for name, value in own.items()}
        if {name: value.shape for name, value in taken.items()} != shapes:
            raise ValueError(
                "the checkpoint's generator is wider or deeper than the recipe's, or has another number of "
                "widths or another version's canvas"
            )
        self.load_state_dict(taken)

    def freeze_statistics(self) -> None:
        """Run on the stored batch-norm statistics from now on, as the exported network will."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def macs_per_pixel(self) -> float:
        """Multiply-accumulates per pixel of the picture, as exported."""
        total = 0.0
        for module, scale in self._scales():
            if module is self.encode[0].conv and self.simplify is not None:
                total += module.out_channels * 3 * 5 * 5 * scale  # made one with `upsample`
                total += self.upsample.weight.numel() * scale
            elif isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):  # branches are folded away
                total += module.weight.numel() * scale
            elif isinstance(module, UpsampleConv):
                total += interpolating(module.weight).numel() * scale / 4
            elif isinstance(module, UpsampleToImage):
                total += module.phase_weight().numel() * scale
        for level, canvas in enumerate(self.canvases):
            total += canvas.share[0].numel() * 4.0 ** -(level + 1)
        return total

    def _scales(self) -> list[tuple[nn.Module, float]]:
        """Each convolution with the area of its output relative to the picture's."""
        areas = [4.0 ** -(level + 1) for level in range(len(self.encode))]
        parts = [*zip(self.encode, areas, strict=True), (self.blocks, areas[-1]), (self.to_image, areas[0])]
        parts += zip(self.decode, reversed(areas[:-1]), strict=True)
        return [(module, area) for part, area in parts for module in part.modules()]


def eased(strength: Tensor) -> Tensor:
    """What of a style's scales, shifts and relief there is at `strength`: nearly all from a third on.

    Half of them would paint neither picture. With all of them, and most of the canvas's colours (`laid`),
    half strength is nearer to the style than a blend that keeps as much of the picture.
    """
    return laid(laid(laid(strength)))


def laid(strength: Tensor) -> Tensor:
    """What of the colours of its canvas there is at `strength`: three quarters at a half."""
    left = 1 - strength
    return 1 - left * left


def _kin(coats: Tensor, of_others: Tensor) -> Tensor:
    """How much each of other styles counts for what a style begins as, [styles, others], in shares.

    Args:
        coats, of_others: the coats that each style may paint by, as a `Canvas` has them.
    """
    kin = (coats @ of_others.T > 0).to(coats.dtype)
    kin[kin.sum(1) == 0] = 1
    return kin / kin.sum(1, keepdim=True)


def _is_enlarged(grain: Tensor | None, other: Tensor) -> bool:
    """Whether `grain` has the touches of `other`, but larger."""
    return grain is not None and grain.shape[:-2] == other.shape[:-2] and grain.shape[-1] > other.shape[-1]


def _grown(value: Tensor, own: Tensor) -> Tensor:
    """`value` in the corner of `own`, at least as large, with no weight on the inputs that are new."""
    if value.dim() != own.dim() or any(a > b for a, b in zip(value.shape, own.shape, strict=True)):
        return value
    grown = own.clone()
    if value.dim() == 4:
        grown[:, value.shape[1] :] = 0
    grown[tuple(map(slice, value.shape))] = value
    return grown


def of_styles(name: str) -> bool:
    """Whether the parameter of this name has a row for each style; all others are the trunk's."""
    return ".affine." in name or (name.startswith("canvases.") and name.endswith(".share"))
