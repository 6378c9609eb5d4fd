"""The verbs that make styles: `fauve learn`, `fauve train` and `fauve export`."""

import dataclasses
import json
import sys
import time
import tomllib
from pathlib import Path

import click

from training.recipe import Recipe, build_recipe, load_recipe

FOLDER = click.Path(exists=True, path_type=Path)


vgg19_option = click.option(
    "--vgg19",
    type=FOLDER,
    help="VGG-19 up to conv3_1, safetensors, torchvision's names; torchvision's own if not given.",
)


def parse_overrides(arguments: tuple[str, ...]) -> dict[str, str]:
    """`--field value` pairs as a mapping from field to text.

    Raises:
        ValueError: a value without a field, or a field without a value.
    """
    overrides: dict[str, str] = {}
    remaining = list(arguments)
    while remaining:
        name = remaining.pop(0)
        if not name.startswith("--"):
            raise ValueError(f"expected --field value, not {name!r}")
        name, separator, value = name.removeprefix("--").partition("=")
        if not separator:
            if not remaining:
                raise ValueError(f"--{name} needs a value")
            value = remaining.pop(0)
        overrides[name.replace("-", "_")] = value
    return overrides


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Any field of the recipe can be overridden: --steps 500 --style 25.",
)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.option("--photos", type=FOLDER, required=True, help="Folder of photographs to paint.")
@click.option("--paintings", type=FOLDER, required=True, help="Folder that the recipe's paintings are in.")
@vgg19_option
@click.option("--run", "run_folder", type=click.Path(path_type=Path), help="Folder of this training.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in the run's folder.")
@click.option(
    "--from", "start_from", type=FOLDER, help="Begin with the trunk, and the styles, of another checkpoint."
)
@click.option("--threads", type=int, help="CPU threads to train with.")
@click.option("--dry-run", is_flag=True, help="Print the resolved recipe and stop.")
def train(
    recipe: Path,
    overrides: tuple[str, ...],
    photos: Path,
    paintings: Path,
    vgg19: Path | None,
    run_folder: Path | None,
    resume: bool,
    start_from: Path | None,
    threads: int | None,
    dry_run: bool,
) -> None:
    """Train the generator of RECIPE, a TOML file."""
    try:
        resolved = load_recipe(recipe, parse_overrides(overrides))
    except ValueError as error:
        raise _unusable(error) from error
    if dry_run:
        click.echo(json.dumps(dataclasses.asdict(resolved), indent=2))
        return
    import torch

    from training.train import train as run_training

    if threads:
        torch.set_num_threads(threads)
    folder = run_folder or Path("runs") / resolved.name
    try:
        checkpoint = run_training(
            resolved,
            photos=photos,
            paintings=paintings,
            vgg19=vgg19,
            run=folder,
            resume=resume,
            start_from=start_from,
            progress=_Progress(resolved),
        )
    except ValueError as error:
        raise _unusable(error) from error
    click.echo(f"{checkpoint}: trained; `fauve export {checkpoint} -o PACK` makes it a style pack")


def _unusable(error: ValueError) -> click.ClickException:
    return click.ClickException(str(error))


class _Progress:
    """A line for each hundredth of the training, on standard error."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.began = time.monotonic()
        self.first: int | None = None

    def __call__(self, step: int, numbers: dict[str, float]) -> None:
        if self.first is None:
            self.first = step - 1
        if step % max(1, self.recipe.steps // 100) and step != self.recipe.steps:
            return
        pace = (time.monotonic() - self.began) / (step - self.first)
        terms = "  ".join(f"{name} {value:.3f}" for name, value in numbers.items())
        minutes = pace * (self.recipe.steps - step) / 60
        print(
            f"{step}/{self.recipe.steps}  {pace:.2f} s/step  {minutes:.0f} min left  {terms}", file=sys.stderr
        )


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of the pack.")
@click.option(
    "--preview", type=FOLDER, required=True, help="A photograph for the golden pair and the preview."
)
@click.option("--int8", type=FOLDER, help="Photographs to calibrate on; adds an int8 model, for TensorRT.")
@click.option("--force", is_flag=True, help="Replace a pack that is there.")
def export(checkpoint: Path, output: Path, preview: Path, int8: Path | None, force: bool) -> None:
    """Make a style pack of a training's CHECKPOINT."""
    from training.export import export_pack

    try:
        style = export_pack(checkpoint, output, preview=preview, int8=int8, force=force)
    except ValueError as error:
        raise _unusable(error) from error
    near = f"; int8 is {style.card['int8_psnr']} dB from float32" if int8 else ""
    click.echo(f"{output}: {style.title} ({', '.join(style.styles)}){near}")


@click.command()
@click.argument("paintings", type=FOLDER, nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of the pack.")
@click.option("--photos", type=FOLDER, required=True, help="Folder of photographs to paint.")
@vgg19_option
@click.option("--title", help="Of the painting; its file's name if not given.")
@click.option("--artist", default="unknown", help="Who painted it.")
@click.option("--year", type=int, default=0, help="When it was painted.")
@click.option("--rights", default="not stated", show_default=True, help="To the painting.")
@click.option("--steps", type=click.IntRange(1), help="Instead of the recipe's.")
@click.option("--stroke", type=click.IntRange(64), help="Shorter side of the painting; less is coarser.")
@click.option("--threads", type=int, help="CPU threads to train with.")
@click.option("-f", "--force", is_flag=True, help="Replace a pack that is there, and begin anew.")
def learn(
    paintings: tuple[Path, ...],
    output: Path,
    photos: Path,
    vgg19: Path | None,
    title: str | None,
    artist: str,
    year: int,
    rights: str,
    steps: int | None,
    stroke: int | None,
    threads: int | None,
    force: bool,
) -> None:
    """Make a style pack from PAINTINGS in one go: the first one is copied, the others are of its kind.

    Begins with the trunk of the bundled styles, so that only what is new must be learned. Stopped by
    Ctrl-C, the same command goes on.
    """
    if output.exists() and not force:
        raise click.ClickException(f"{output} is there already; give another name or --force")
    recipe = quick_recipe(
        list(paintings),
        name=output.name,
        title=title,
        artist=artist,
        year=year,
        rights=rights,
        steps=steps,
        stroke=stroke,
    )
    import torch

    from training.data import image_files
    from training.export import export_pack
    from training.train import train as run_training

    if threads:
        torch.set_num_threads(threads)
    run = output.with_name(output.name + ".training")
    resume = (run / "checkpoint.pt").exists() and not force
    try:
        checkpoint = run_training(
            recipe,
            photos=photos,
            paintings=Path("/"),
            vgg19=vgg19,
            run=run,
            resume=resume,
            start_from=TRUNK,
            progress=_Progress(recipe),
        )
        style = export_pack(checkpoint, output, preview=image_files([photos])[0], force=force)
    except ValueError as error:
        raise _unusable(error) from error
    click.echo(f"{output}: {style.title}; try it: fauve run VIDEO -o painted.mp4 --style {output}")
    click.echo(f"{run}: sheets of how it went; delete it when you like the style")


RECIPES = Path(__file__).parent / "recipes"

TRUNK = RECIPES / "live.safetensors"
"""The generator of the bundled styles, which others may begin with."""


def quick_recipe(
    paintings: list[Path],
    *,
    name: str,
    title: str | None = None,
    artist: str = "unknown",
    year: int = 0,
    rights: str = "not stated",
    steps: int | None = None,
    stroke: int | None = None,
) -> Recipe:
    """The recipe `quick.toml` for paintings of one's own, the first of which is copied."""
    first, *others = (str(path.resolve()) for path in paintings)
    style = {
        "name": name,
        "painting": first,
        "title": title or paintings[0].stem.replace("_", " "),
        "artist": artist,
        "year": year,
        "rights": rights,
        "reals": others,
    }
    table = {**tomllib.loads((RECIPES / "quick.toml").read_text("utf-8")), "name": name, "styles": [style]}
    table["title"] = style["title"]
    if steps:
        table["steps"] = steps
    if stroke:
        table["painting_size"] = stroke
    return build_recipe(table, "quick.toml")
