"""What keeps the discriminator from learning the few paintings by heart."""

import torch
from torch import Tensor

from training.distributed import of_all, share, world

AUGMENTED = ((-0.1, 0.1), (0.8, 1.25), (0.85, 1.15), (-0.125, 0.125), (-0.125, 0.125), (0.0, 1.0), (0.0, 1.0))
"""Of light, saturation and contrast, of the shift, down and right, and of where the square is, in shares."""


def augment(image: Tensor, rng: torch.Generator) -> Tensor:
    """`image` [n, 3, h, w] with random colours, shift and a square cut out, each picture its own.

    Differentiable augmentation (Zhao et al. 2020, arXiv 2006.10738): done to the paintings and to what is
    painted alike, before the discriminator, so that neither gives itself away by it. Colours change by less
    than there: a discriminator that is blind to them cannot ask for a painting's palette.
    """
    n, _, height, width = image.shape
    drawn = [low + (high - low) * share(torch.rand(n * world(), generator=rng)) for low, high in AUGMENTED]
    # In one copy, and without waiting for it.
    each = torch.stack(drawn).to(image.device, non_blocking=True)
    light, saturation, contrast = each[:3, :, None, None, None]
    x = image + light
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * saturation
    middle = x.mean((1, 2, 3), keepdim=True)
    x = middle + (x - middle) * contrast

    rows, columns = (torch.arange(side, device=image.device) for side in (height, width))
    down, right = each[3] * height, each[4] * width
    source_rows = (rows + down.round()[:, None]).long().clamp(0, height - 1)
    source_columns = (columns + right.round()[:, None]).long().clamp(0, width - 1)
    pictures = torch.arange(n, device=image.device)[:, None, None]
    x = x.permute(0, 2, 3, 1)[pictures, source_rows[:, :, None], source_columns[:, None]].permute(0, 3, 1, 2)

    top, left = each[5] * height, each[6] * width
    away_down = (rows - top[:, None]).abs() >= height / 4
    away_right = (columns - left[:, None]).abs() >= width / 4
    return x * (away_down[:, :, None] | away_right[:, None])[:, None]


class History(torch.nn.Module):
    """Painted pictures kept to be shown to the discriminator again (Shrivastava et al. 2017, 1612.07828).

    It is part of a checkpoint, so that a resumed training shows the same ones; and the same one in every
    process of a training, of which only the first writes checkpoints.

    Args:
        capacity: how many are kept; 0 keeps none and gives back what comes.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.register_buffer("pictures", torch.zeros(0))
        self.register_buffer("styles", torch.zeros(0, dtype=torch.long))

    def exchange(self, pictures: Tensor, styles: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """`pictures` [n, 3, h, w] and their `styles` [n], half of them in exchange for older ones."""
        if not self.capacity:
            return pictures, styles
        if not len(self.styles):
            self.pictures, self.styles = pictures[:0].clone(), styles[:0].clone()
        # What a checkpoint held was read onto the CPU.
        self.pictures, self.styles = self.pictures.to(pictures.device), self.styles.to(styles.device)
        pictures, styles = of_all(pictures).clone(), of_all(styles).clone()
        for index in range(len(pictures)):
            if len(self.styles) < self.capacity:
                self.pictures = torch.cat([self.pictures, pictures[index, None]])
                self.styles = torch.cat([self.styles, styles[index, None]])
            elif torch.rand((), generator=rng) < 0.5:
                kept = int(torch.randint(self.capacity, (), generator=rng))
                for mine, theirs in ((self.pictures, pictures), (self.styles, styles)):
                    mine[kept], theirs[index] = theirs[index].clone(), mine[kept].clone()
        return share(pictures), share(styles)

    def load_state_dict(self, state, strict=True, assign=False):  # type: ignore[no-untyped-def]
        """As a module does, for however many pictures were kept."""
        self.pictures, self.styles = state["pictures"].clone(), state["styles"].clone()
        return super().load_state_dict(state, strict, assign)
