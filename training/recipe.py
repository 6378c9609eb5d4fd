"""A recipe: everything that decides how a style pack is trained, in one TOML file."""

import dataclasses
import hashlib
import json
import math
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from training.brushwork import COATS, CUTTING


@dataclass(frozen=True)
class StyleRecipe:
    """One style: the painting that it copies and the paintings that the discriminator takes for real."""

    name: str
    """What users type."""
    painting: str
    """The file whose Gram matrices are the style, below the folder of paintings."""
    title: str
    artist: str
    year: int
    reals: tuple[str, ...] = ()
    """Files or folders of the same movement for the discriminator; none means the painting alone."""
    painting_size: int = 0
    """Shorter side of this painting, in pixels; 0 is the recipe's `painting_size`."""
    weight: float = 1.0
    """Factor on the recipe's `style` for this style."""
    rights: str = "public domain"
    """Of the painting."""
    canvas: tuple[str, ...] = ("dots", "strokes", "facets")
    """Coats of the canvas (`training.brushwork`) that it may paint by; without one, what is flat gets flat
    colours."""
    spared: float = 0.0
    """How much of its canvas gives way to what there is to see, 0..1, so that a face stays a face; needs
    `simplified`."""
    cut: str = ""
    """The coat of broad touches (`training.brushwork.CUTTING`) along which a picture is cut, where there is
    little to see, so that it is made of them; "" for none. Needs `simplified`."""
    broad: float = 0.0
    """How much broader the patches are that it paints over, 0..1; needs `simplified`."""
    movement: bool = False
    """Copy the mean of the statistics of `painting` and `reals`, and not those of the one alone."""
    learn: bool = True
    """Train it; if not, it stays what it is in the trunk that the training begins with."""

    def __post_init__(self) -> None:
        _check_choice("canvas", self.canvas, tuple(COATS))
        _check_choice("cut", (self.cut,), ("", *CUTTING))
        _check_numbers(self)
        for name in ("spared", "broad"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} is from 0 to 1, not {getattr(self, name)}")
        if self.painting_size < 0:
            raise ValueError(f"painting_size is 0, or a number of pixels, not {self.painting_size}")


@dataclass(frozen=True)
class Recipe:
    """How to train a pack.

    Adam's defaults are those of Radford et al. 2015 (arXiv 1511.06434): 2e-4, betas 0.5 and 0.999.
    """

    name: str
    """The pack's name."""
    title: str
    styles: tuple[StyleRecipe, ...]
    license: str = "Apache-2.0"
    """Of the pack."""

    seed: int = 0
    steps: int = 2200
    batch: int = 3
    crop: int = 224
    """Side of a training crop, in pixels, a multiple of the generator's."""
    photo_size: int = 288
    """Shorter side of the photographs that crops are cut from, in pixels."""
    painting_size: int = 512
    """Shorter side of the painting, in pixels: what sets the size of the strokes."""
    native_height: int = 480
    """Height of the picture at which the strokes look as they should, in pixels."""
    enlarged: int = 1
    """1, or 2 to paint crisper: pictures are painted at twice the size that they are judged at, and touches
    are as much larger in pixels; `native_height` is that of the larger picture."""
    exposure: float = 0.15
    """Random exposure of the photographs, as a share."""

    generator: str = "unet"
    """"unet", or "resnet" without its skips."""
    widths: tuple[int, ...] = (16, 32, 64)
    """Channels at 1/2, 1/4, 1/8 ... of the picture's size."""
    blocks: int = 4
    """Residual blocks at the lowest level."""
    branches: bool = False
    """Give each 3x3 convolution a 1x1 one beside it, which is folded into it at export: it learns more so."""
    simplified: bool = True
    """Paint over a picture of flat patches in middling light, without detail finer than a brush, and not over
    all there is."""
    trunk: bool = True
    """Train the trunk that all styles share; without it, only the styles' scales and shifts."""
    discriminator: str = "patch"
    """"patch", or "dense" for small pictures."""
    discriminator_scales: int = 1
    """Sizes of the picture, each half of the one before, that patches are judged at."""

    optimiser: str = "adam"
    """"adam", or "sgd", whose momentum is the first of `betas`."""
    learning_rate: float = 2e-4
    style_learning_rate: float = 1.0
    """Factor on it for the styles' scales and shifts, each of which only some of the pictures train."""
    discriminator_learning_rate: float = 2e-4
    betas: tuple[float, ...] = (0.5, 0.999)
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises; it falls by a cosine after that."""
    clip_gradient: float = 5.0
    freeze_statistics: float = 0.55
    """Share of the steps after which batch normalisation runs on its stored statistics."""
    average_decay: float = 0.995
    """Decay of the exponential moving average of the weights, which is what gets exported."""

    distances: tuple[int, ...] = (1, 2)
    """What a pretrained network looks at the pictures from, nearest first, each a factor that they are made
    smaller by: from far away it sees forms where it saw strokes. Content counts from the last one only."""
    content: float = 1.0
    content_features: tuple[str, ...] = ("vgg19",)
    """Whose middle layers tell what is in a picture: "vgg19", "squeezenet1_1", "discriminator"."""
    style: float = 15.0
    style_features: tuple[str, ...] = ("vgg19",)
    """Whose middle layers tell how it is painted: as for content, or "generator"."""
    style_statistic: str = "gram"
    """What of them is compared: "gram" matrices, or "moments", the mean and deviation of each channel."""
    guided: bool = False
    """Compare what is calm in a photograph with what is calm in the painting, and what is busy with what is
    busy: a wall becomes a painted wall, and is not covered with all that the painting has."""
    adversarial: float = 0.2
    """Weight of the discriminator's scores."""
    adversarial_loss: str = "hinge"
    """"hinge", "least_squares" or "minimax"."""
    smoothness: float = 0.0
    grid: float = 0.0
    """Weight of how unevenly fine detail falls on the generator's blocks."""
    colour: float = 0.0
    """Weight of the distance of the mean and deviation of each colour to the painting's."""
    tone: float = 0.0
    """Weight of how far light and dark have left their places."""
    in_range: float = 1.0
    full_strength: float = 0.6
    """Share of the pictures painted at full strength; the others draw theirs from 0..1."""
    cycle: float = 0.0
    """Weight of the way to a painting and back, by a second generator; 0 trains one direction only."""
    identity: float = 0.0
    """With `cycle`: weight of leaving a painting as it is."""

    temporal: float = 20.0
    """Weight of the change along the flow between two frames."""
    temporal_loss: str = "flow"
    """"flow", or "frame_difference", which needs none."""
    temporal_features: float = 0.0
    """Weight of the same change at the generator's lowest level."""
    still: float = 0.0
    """Weight of how much more the painting of a still scene trembles than the scene does by sensor noise."""
    noise: float = 0.02
    """Sensor noise between two made-up frames, and in a still scene, greatest deviation on 0..1."""
    shading: float = 0.0
    """Faint light and shade in a still scene beside its sensor noise, greatest deviation on 0..1: a network
    enlarges them to worms where a wall gives it nothing else to paint."""
    brightness: float = 0.0
    """Change of brightness between two made-up frames, as a share; the painting may follow it."""
    motion: float = 40.0
    """How far two made-up frames are shifted at most, in pixels along each axis, and turned and zoomed in
    proportion: so far that what was near an edge is no longer, or as little as things move from one frame of
    a video to the next, for which `temporal` has to weigh the more."""
    turned: float = 0.0
    """Above 0, the second frame of every other step is the first one turned, canvas and all, and this is the
    weight of what is not painted as before, turned: what a network draws along its own rows and columns."""
    clip_share: float = 0.0
    """Share of the steps whose two frames come from real clips, with estimated flow."""
    flow: str = "dis"
    """What estimates it: "dis" of OpenCV, or torchvision's "raft_small"."""

    r1: float = 0.0
    """Weight of the discriminator's gradient at real paintings."""
    augment: bool = False
    """The discriminator sees paintings and painted pictures with random changes, the same kind to both."""
    history: int = 0
    """Painted pictures that are kept to be shown to the discriminator again."""

    autocast: str = "auto"
    """"bf16", "fp16" or "off"; "auto" takes bf16 where the device computes in it, or else fp16 with CUDA and
    none on a CPU."""
    sheet_every: int = 200
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            _check_choice(name, getattr(self, name), known)
        _check_numbers(self)
        for name in ("learning_rate", "clip_gradient"):
            if not getattr(self, name):
                raise ValueError(f"{name} is above 0: with 0, nothing is learned")
        if self.temporal and self.temporal_loss == "frame_difference" and self.clip_share < 1:
            raise ValueError('temporal_loss = "frame_difference" is for real clips alone: clip_share = 1')
        if not any(style.learn for style in self.styles):
            raise ValueError("not one of the styles is to be learned")
        if self.trunk and not all(style.learn for style in self.styles):
            raise ValueError("a style that is not learned stays the same only with trunk = false")
        for name, least in AT_LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is at least {least}, not {getattr(self, name)}")
        for style in self.styles:
            if (style.spared or style.cut or style.broad) and not self.simplified:
                raise ValueError(f"style {style.name!r}: spared, cut and broad need simplified = true")
        if self.enlarged not in (1, 2):
            raise ValueError(f"enlarged is 1 or 2, not {self.enlarged}")
        if self.enlarged > 1 and self.cycle:
            raise ValueError("with a cycle, pictures are not enlarged: enlarged = 1")
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise ValueError(
                f"widths are channels, one number for each of two levels or more, not {list(self.widths)}"
            )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are two numbers from 0 to below 1, not {self.betas}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is from 0 to below 2**32, not {self.seed}")
        if not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay is from 0 to below 1, not {self.average_decay}")
        names = [style.name for style in self.styles]
        if len(set(names)) < len(names):
            raise ValueError(f"two styles have the same name among {', '.join(names)}")
        if "" in names:
            raise ValueError("the name of a style is empty")
        if not self.distances or min(self.distances) < 1 or list(self.distances) != sorted(self.distances):
            raise ValueError(f"distances are whole numbers from 1 up, nearest first, not {self.distances}")
        multiple = 2 ** len(self.widths)
        if self.crop % multiple:
            raise ValueError(
                f"crop is a multiple of {multiple} with {len(self.widths)} widths, not {self.crop}"
            )
        if self.tone and self.crop < AREA:
            raise ValueError(f"tone needs a crop of at least {AREA}, not {self.crop}")
        if self.clip_share and self.photo_size < self.crop:
            raise ValueError(
                f"with clips, photo_size is at least the crop, {self.crop}, not {self.photo_size}"
            )
        patch = 8 * 2 ** (self.discriminator_scales - 1)
        if self.discriminator == "patch" and self.crop < patch:
            raise ValueError(
                f"{self.discriminator_scales} discriminator_scales need a crop of at least {patch}, "
                f"not {self.crop}"
            )
        self._check_features(multiple)

    def _check_features(self, multiple: int) -> None:
        """Whether there are networks to compare by, and all that they are shown is large enough for them."""
        for name in ("content", "style"):
            if getattr(self, name) > 0 and not getattr(self, f"{name}_features"):
                raise ValueError(f"{name}_features names no network; give one, or {name} = 0")
        farthest = max(self.distances)
        painting_size = min(style.painting_size or self.painting_size for style in self.styles)
        for name in [name for name in LEAST_SIDE if name in self.content_features + self.style_features]:
            least = LEAST_SIDE[name] * farthest
            # A crop is looked at from an offset of up to one block.
            if self.crop < least + multiple:
                raise ValueError(
                    f"{name} at a distance of {farthest} needs a crop of at least {least + multiple}, "
                    f"not {self.crop}"
                )
            if painting_size < least:
                raise ValueError(
                    f"{name} at a distance of {farthest} needs a painting_size of at least {least}, "
                    f"not {painting_size}"
                )

    @property
    def discriminates(self) -> bool:
        """Whether anything needs a discriminator."""
        judges = "discriminator" in self.style_features and self.style > 0
        return (
            self.adversarial > 0 or judges or ("discriminator" in self.content_features and self.content > 0)
        )

    def changed(self) -> dict[str, Any]:
        """What differs from the defaults, as a TOML table: `build_recipe` makes the same recipe of it."""
        table = _changed(self)
        table["styles"] = [_changed(style) for style in self.styles]
        return table

    def digest(self, without: Collection[str] = ()) -> str:
        """A sha256 of what differs from the defaults: names this recipe, in a pack and in a checkpoint.

        Args:
            without: fields that do not count.
        """
        table = {name: value for name, value in self.changed().items() if name not in without}
        return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


EXTENDS = "extends"
"""In a recipe's file, the name of another beside it that says what this one does not."""

LEAST_SIDE = {"vgg19": 9, "squeezenet1_1": 17}
"""Sides in pixels of the smallest pictures that the pretrained networks can see."""

AREA = 16
"""Side in pixels of the squares whose light and dark `tone` compares."""

AT_LEAST = {
    "steps": 1,
    "batch": 1,
    "crop": 1,
    "photo_size": 1,
    "painting_size": 1,
    "native_height": 1,
    "blocks": 0,
    "discriminator_scales": 1,
    "history": 0,
    "sheet_every": 1,
    "checkpoint_every": 1,
}

CHOICES = {
    "generator": ("unet", "resnet"),
    "discriminator": ("patch", "dense"),
    "optimiser": ("adam", "sgd"),
    "content_features": ("vgg19", "squeezenet1_1", "discriminator"),
    "style_features": ("vgg19", "squeezenet1_1", "discriminator", "generator"),
    "style_statistic": ("gram", "moments"),
    "adversarial_loss": ("hinge", "least_squares", "minimax"),
    "temporal_loss": ("flow", "frame_difference"),
    "flow": ("dis", "raft_small"),
    "autocast": ("auto", "bf16", "fp16", "off"),
}


def _check_choice(name: str, value: str | tuple[str, ...], known: tuple[str, ...]) -> None:
    wrong = [each for each in (value if isinstance(value, tuple) else (value,)) if each not in known]
    if wrong:
        choices = ", ".join(each or "nothing" for each in known)
        raise ValueError(f"{name} is one of {choices}, not {wrong[0]!r}")


def _check_numbers(entry: "Recipe | StyleRecipe") -> None:
    for field in dataclasses.fields(entry):
        value = getattr(entry, field.name)
        if field.type is float and not 0 <= value < math.inf:
            raise ValueError(f"{field.name} is a number from 0 up, not {value}")


def _changed(entry: "Recipe | StyleRecipe") -> dict[str, Any]:
    fields = dataclasses.fields(entry)
    return {
        field.name: getattr(entry, field.name)
        for field in fields
        if getattr(entry, field.name) != field.default
    }


def load_recipe(path: Path, overrides: Mapping[str, str] | None = None) -> Recipe:
    """Read a recipe and apply `overrides`, field name to text.

    Raises:
        ValueError: as `read_table`, or an unknown field or a value of the wrong type.
    """
    table = read_table(path)
    for name, text in (overrides or {}).items():
        table[name] = _parse(text)
    return build_recipe(table, str(path))


def read_table(path: Path) -> dict[str, Any]:
    """The table in the file of a recipe; what it `extends` (another file, beside it) is what it does not say.

    Its `styles` may then be names, of those that it takes over.

    Raises:
        ValueError: no such file, broken TOML, or one that extends no recipe or one that extends another, or
            takes over a style that is not there.
    """
    table = _toml(path)
    if EXTENDS not in table:
        return table
    base = path.parent / _of_type(str, table.pop(EXTENDS), f"{path}: {EXTENDS}")
    below = _toml(base)
    if EXTENDS in below:
        raise ValueError(f"{path}: extends {base}, which extends another; extend that one")
    known = {style.name: style for style in build_recipe(below, str(base)).styles}  # told of that file
    names = table.get("styles", [])
    if names and all(isinstance(name, str) for name in names):
        missing = [name for name in names if name not in known]
        if missing:
            raise ValueError(f"{path}: {base} has no style {missing[0]!r}; there are {', '.join(known)}")
        table["styles"] = [entry for entry in below["styles"] if entry["name"] in names]
    return {**below, **table}


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such recipe") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a TOML file: {error}") from error


def build_recipe(table: Mapping[str, Any], where: str) -> Recipe:
    """The recipe of a table such as `dataclasses.asdict` gives, which came from `where`.

    Raises:
        ValueError: an unknown field or a value of the wrong type.
    """
    entries = table.get("styles", [])
    if not isinstance(entries, list | tuple) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{where}: styles are [[styles]] tables, not {entries!r}")
    styles = tuple(_build(StyleRecipe, entry, where) for entry in entries)
    if not styles:
        raise ValueError(f"{where}: a recipe needs at least one [[styles]] table")
    return _build(Recipe, {**table, "styles": styles}, where)


def stored_recipe(text: str, where: str) -> Recipe:
    """The recipe that a checkpoint, `where`, holds as JSON.

    Raises:
        ValueError: as `build_recipe`, or it is no JSON.
    """
    try:
        table = json.loads(text)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: not a checkpoint of a training: its recipe cannot be read") from error
    return build_recipe(table, where)


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _build(kind: type[Any], table: Mapping[str, Any], where: str) -> Any:
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name not in fields:
            raise ValueError(f"{where}: unknown field {name!r}; there are {', '.join(fields)}")
        values[name] = _of_type(fields[name].type, value, f"{where}: {name}")
    missing = [name for name, entry in fields.items() if name not in values and _required(entry)]
    if missing:
        raise ValueError(f"{where}: {', '.join(missing)} missing")
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _of_type(kind: Any, value: Any, what: str) -> Any:
    """`value`, as TOML and JSON have it, as a `kind`: a list becomes a tuple, and a whole number a float."""
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{what} is a list, not {value!r}")
        return tuple(_of_type(get_args(kind)[0], each, what) for each in value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{what} is a {kind.__name__}, not {value!r}")
    return value


def _required(entry: "dataclasses.Field[Any]") -> bool:
    return entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
