"""The verbs that make and judge styles: learn, train, export, inspect, tune and evaluate."""

import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from training.brushwork import COATS, CUTTING
from training.recipe import Recipe, build_recipe, load_recipe, read_table

if TYPE_CHECKING:
    from engines import Style
    from training.evaluate import Material

FOLDER = click.Path(exists=True, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class Photos(click.ParamType):
    """A folder of photographs, or a torchvision dataset as torchvision:NAME:FOLDER."""

    name = "folder"

    def convert(
        self, value: str, parameter: click.Parameter | None, context: click.Context | None
    ) -> Path | str:
        if value.startswith("torchvision:"):
            return value
        return Path(FOLDER.convert(value, parameter, context))


def material_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say what a training learns from."""
    for option in (
        click.option(
            "--device",
            type=click.Choice(["auto", "cpu", "cuda"]),
            default="auto",
            help="What to train on (default: CUDA where there is one).",
        ),
        threads_option,
        weights_option,
        click.option(
            "--clips",
            type=FOLDER,
            help="Folder of videos, for recipes that learn motion from them and for the sheets.",
        ),
        click.option("--paintings", type=FOLDER, required=True, help="Folder of the recipe's paintings."),
        click.option(
            "--photos",
            type=Photos(),
            required=True,
            help="Folder of photographs to paint, or torchvision:NAME:FOLDER for a dataset.",
        ),
    ):
        command = option(command)
    return command


threads_option = click.option(
    "--threads", type=click.IntRange(1), help="CPU threads to train with (default: all cores)."
)

weights_option = click.option(
    "--weights",
    type=FOLDER,
    help="Folder of pretrained networks under torchvision's names, such as vgg19*.pth or .safetensors "
    "(default: torchvision downloads its own).",
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
@material_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder of this training (default: runs/NAME)."
)
@click.option("--resume", is_flag=True, help="Continue from the checkpoint in the training's folder.")
@click.option(
    "--from", "start_from", type=FILE, help="Start with the trunk and the styles of another checkpoint."
)
@click.option(
    "--workers",
    type=click.IntRange(0),
    help="Processes that draw batches ahead (default: up to eight for CUDA, none for the CPU).",
)
@click.option("--dry-run", is_flag=True, help="Print the resolved recipe and stop.")
def train(
    recipe: Path,
    overrides: tuple[str, ...],
    photos: Path | str,
    paintings: Path,
    clips: Path | None,
    weights: Path | None,
    threads: int | None,
    device: str,
    output: Path | None,
    resume: bool,
    start_from: Path | None,
    workers: int | None,
    dry_run: bool,
) -> None:
    """Train the generator of RECIPE, a TOML file.

    On several GPUs: torchrun --nproc-per-node GPUS -m training RECIPE ...
    """
    try:
        resolved = load_recipe(recipe, parse_overrides(overrides))
    except ValueError as error:
        raise _unusable(error) from error
    if dry_run:
        click.echo(json.dumps(dataclasses.asdict(resolved), indent=2))
        return
    import torch

    from training.stylization import Material
    from training.train import train as run_training

    if threads:
        torch.set_num_threads(threads)
    folder = output or Path("runs") / resolved.name
    try:
        checkpoint = run_training(
            resolved,
            Material(photos, paintings, clips, weights),
            run=folder,
            resume=resume,
            start_from=start_from,
            device=device,
            workers=workers,
            progress=_Progress(resolved),
        )
    except (ValueError, OSError, FloatingPointError) as error:
        raise _unusable(error) from error
    except KeyboardInterrupt as stopped:
        raise _with_hint(stopped, "--resume goes on") from None
    click.echo(f"{checkpoint}: trained; `fauve export {checkpoint} -o PACK` makes it a style pack")


def _unusable(error: BaseException) -> click.ClickException:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return click.ClickException(f"{error.filename}: {error.strerror}")
    return click.ClickException(str(error))


def _with_hint(stopped: KeyboardInterrupt, hint: str) -> KeyboardInterrupt:
    """`stopped` with a `hint` if it was between two steps; elsewhere there may be nothing to go on with."""
    return KeyboardInterrupt(f"{stopped}; {hint}") if stopped.args else stopped


class _Progress:
    """A line for each hundredth of the training, on standard error."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.first: tuple[int, float] | None = None

    def __call__(self, step: int, numbers: dict[str, float]) -> None:
        now = time.monotonic()
        # Before the first step is over, the material is read: that says nothing about the pace.
        first, began = self.first = self.first or (step, now)
        if step % max(1, self.recipe.steps // 100) and step != self.recipe.steps:
            return
        told = [f"{step}/{self.recipe.steps}"]
        if step > first:
            pace = (now - began) / (step - first)
            minutes = pace * (self.recipe.steps - step) / 60
            told += [f"{pace:.2f} s/step", f"{minutes:.0f} min left"]
        told += [f"{name} {value:.3f}" for name, value in numbers.items()]
        print("  ".join(told), file=sys.stderr)


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of the pack.")
@click.option("--preview", type=FILE, required=True, help="A photograph for the golden pair and the preview.")
@click.option("--back", is_flag=True, help="For a recipe with a cycle: export the way back to photographs.")
@click.option("--int8", type=FOLDER, help="Add an int8 model, calibrated on this folder of photographs.")
@click.option(
    "--trunk",
    type=click.Path(path_type=Path),
    help="Write the generator to this .safetensors file, too: a small one for `fauve train --from`.",
)
@click.option("-f", "--force", is_flag=True, help="Replace an existing pack, and an existing trunk.")
def export(
    checkpoint: Path,
    output: Path,
    preview: Path,
    back: bool,
    int8: Path | None,
    trunk: Path | None,
    force: bool,
) -> None:
    """Make a style pack of a training's CHECKPOINT."""
    if trunk is not None and trunk.suffix != ".safetensors":
        raise click.ClickException(f"{trunk}: the name of a trunk ends in .safetensors")
    if trunk is not None:
        _refuse_output(trunk.parent, (trunk.name,), force)
    from training.checkpoint import load_trunk, save_trunk
    from training.export import export_pack

    try:
        style = export_pack(checkpoint, output, preview=preview, back=back, int8=int8, force=force)
        if trunk is not None:
            trunk.parent.mkdir(parents=True, exist_ok=True)
            save_trunk(trunk, load_trunk(checkpoint))
    except (ValueError, OSError) as error:
        raise _unusable(error) from error
    near = f"; int8 is {style.card['int8_psnr']} dB from float32" if int8 else ""
    click.echo(f"{output}: {style.title} ({', '.join(style.styles)}){near}")


@click.command()
@click.argument("paintings", type=FOLDER, nargs=-1, required=True)
# By its whole path, because a bundled pack goes before a folder of its name.
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, resolve_path=True),
    required=True,
    help="Folder of the pack.",
)
@click.option("--photos", type=FOLDER, required=True, help="Folder of photographs to paint.")
@weights_option
@click.option("--clips", type=FOLDER, help="Folder of videos to measure the flicker on.")
@click.option("--title", help="Title of the painting (default: the name of its file).")
@click.option("--artist", default="unknown", show_default=True, help="Who painted it.")
@click.option("--year", type=int, default=0, show_default=True, help="When it was painted.")
@click.option("--rights", default="not stated", show_default=True, help="Rights to the painting.")
@click.option("--steps", type=click.IntRange(1), help="Training steps (default: the recipe's).")
@click.option(
    "--stroke",
    type=click.IntRange(64),
    help="Shorter side, in pixels, that the painting is scaled to; less makes finer strokes (default: the "
    "recipe's).",
)
@click.option(
    "--canvas",
    type=click.Choice(list(COATS)),
    default="strokes",
    show_default=True,
    help="What it paints by; it begins as the bundled styles that do.",
)
@click.option("--calm", is_flag=True, help="With fainter touches, which flicker less where something moves.")
@threads_option
@click.option(
    "-f", "--force", is_flag=True, help="Replace an existing pack: learn anew what was learned to its end."
)
def learn(
    paintings: tuple[Path, ...],
    output: Path,
    photos: Path,
    weights: Path | None,
    clips: Path | None,
    title: str | None,
    artist: str,
    year: int,
    rights: str,
    steps: int | None,
    stroke: int | None,
    canvas: str,
    calm: bool,
    threads: int | None,
    force: bool,
) -> None:
    """Make a style pack from PAINTINGS in one go: the first is imitated, the others show its kind.

    Starts from the trunk of the bundled styles, so that only what is new has to be learned. At the end the
    pack is evaluated, into its card and onto a sheet. After Ctrl-C, the same command goes on; where only the
    evaluation is missing, without --force.
    """
    from engines.errors import EngineError
    from engines.style import refuse_what_is_there

    if paintings[0].is_dir():
        raise click.ClickException(f"{paintings[0]}: is a folder; the first painting is the file to imitate")
    run = output.parent / f"{output.name}.training"
    try:
        recipe = quick_recipe(
            list(paintings),
            name=output.name,
            title=title,
            artist=artist,
            year=year,
            rights=rights,
            steps=steps,
            stroke=stroke,
            canvas=canvas,
            calm=calm,
        )
        style = None if force else _not_judged(output, run, recipe)
        if style is None:
            refuse_what_is_there(output, force)
    except ValueError as error:
        raise _unusable(error) from error
    import torch

    from training.evaluate import Material as Judged

    if threads:
        torch.set_num_threads(threads)
    try:
        style = style or _learned(recipe, photos, weights, run, output, force)
    except (ValueError, OSError, FloatingPointError) as error:
        raise _unusable(error) from error
    except KeyboardInterrupt as stopped:
        raise _with_hint(stopped, "the same command goes on") from None
    try:
        material = Judged(photos, Path("/"), clips, weights, recipe)
        _judge(str(output), material, run, threads=threads)
    except (ValueError, OSError, EngineError, KeyboardInterrupt) as error:
        why = _unusable(error).message or "stopped"
        again = "the same command without --force" if force else "the same command"
        click.echo(f"{output}: is made, not judged: {why}; {again} judges it", err=True)
    click.echo(f'{output}: {style.title}; try it: fauve run VIDEO -o painted.mp4 --style "{output}"')
    click.echo(f"{run}: sheets of how it went; delete it when you like the style")


def _not_judged(output: Path, run: Path, recipe: Recipe) -> "Style | None":
    """The pack `output`, if it was made of `recipe` in the folder `run` and not judged yet."""
    from engines import Style
    from engines.style import MANIFEST

    if not (run / "checkpoint.pt").exists() or not (output / MANIFEST).is_file():
        return None
    style = Style.load(output)
    return style if style.recipe == recipe.digest() and "evaluation" not in style.card else None


def _learned(
    recipe: Recipe, photos: Path, weights: Path | None, run: Path, output: Path, force: bool
) -> "Style":
    """Train in the folder `run`, or go on with what was stopped there, and export the pack.

    Args:
        force: begin anew where a training came to its end, or was another one.
    """
    from training.data import image_files, readable
    from training.export import export_pack
    from training.stylization import Material
    from training.train import train as run_training

    checkpoint = run / "checkpoint.pt"
    if force and not _was_stopped(checkpoint, recipe):
        checkpoint.unlink(missing_ok=True)
    run_training(
        recipe,
        Material(photos, Path("/"), weights=weights),
        run=run,
        resume=checkpoint.exists(),
        start_from=TRUNK,
        progress=_Progress(recipe),
    )
    preview, _ = next(readable(image_files([photos])))
    return export_pack(checkpoint, output, preview=preview, force=force)


def _was_stopped(checkpoint: Path, recipe: Recipe) -> bool:
    """Whether `checkpoint` is of a training by `recipe` that has not come to its end."""
    from training.checkpoint import load_checkpoint

    try:
        state = load_checkpoint(checkpoint)
    except ValueError:
        return False
    return bool(state.get("digest") == recipe.digest() and state["step"] < recipe.steps)


RECIPES = Path(__file__).parent / "recipes"

TRUNK = RECIPES / "live.safetensors"
"""The generator of the bundled styles, which others may begin with."""


CALM = {"temporal": 11000.0, "motion": 1.0, "tone": 1500.0}
"""What the recipe `quick` has for a style that flickers little, and does not go grey for it."""


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
    canvas: str = "strokes",
    calm: bool = False,
) -> Recipe:
    """The recipe `quick.toml` for paintings of one's own, the first of which is copied.

    Args:
        canvas: the coat that it paints by; the picture is cut along touches as large as a face.
        calm: with what `CALM` has.

    Raises:
        ValueError: one has a name that a pack cannot hold.
    """
    for each in (name, *map(str, paintings)):
        try:
            each.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{each}: this name is not UTF-8, as the text of a pack; rename it") from error
    first, *others = (str(path.resolve()) for path in paintings)
    style = {
        "name": name,
        "painting": first,
        "title": title or paintings[0].stem.replace("_", " "),
        "artist": artist,
        "year": year,
        "rights": rights,
        "reals": others,
        # Of several coats, so few steps make a mottle.
        "canvas": [canvas],
        "spared": {"strokes": 0.5, "dots": 0.75}.get(canvas, 0.9),
    }
    if canvas in CUTTING:
        style |= {"cut": canvas, "broad": 0.5}
    table = {**read_table(RECIPES / "quick.toml"), "name": name, "styles": [style]}
    table["title"] = style["title"]
    if calm:
        table |= CALM
    if steps:
        table["steps"] = steps
    if stroke:
        table["painting_size"] = stroke
    return build_recipe(table, "quick.toml")


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Any field of the recipe can be overridden: --crop 160 --batch 2.",
)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@material_options
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The best recipe, TOML.",
)
@click.option(
    "--study", type=click.Path(path_type=Path), help="SQLite file of the trials (default: OUTPUT.db)."
)
@click.option("--trials", type=click.IntRange(1), default=20, show_default=True, help="More trials to run.")
@click.option(
    "--trial-steps", type=click.IntRange(8), default=300, show_default=True, help="Steps of each trial."
)
@click.option(
    "--search", multiple=True, metavar="FIELD=LOW..HIGH", help="Field to search, instead of the usual ones."
)
@click.option("--from", "start_from", type=FILE, help="Start each trial with the trunk of a checkpoint.")
def tune(
    recipe: Path,
    overrides: tuple[str, ...],
    photos: Path | str,
    paintings: Path,
    clips: Path | None,
    weights: Path | None,
    threads: int | None,
    device: str,
    output: Path,
    study: Path | None,
    trials: int,
    trial_steps: int,
    search: tuple[str, ...],
    start_from: Path | None,
) -> None:
    """Search the weights and rates of RECIPE, a TOML file, by short trials.

    Stopped by Ctrl-C, the same command goes on with what the study knows.
    """
    import torch

    from training.stylization import Material
    from training.tuning import RANGES, write_recipe
    from training.tuning import tune as run_search

    if threads:
        torch.set_num_threads(threads)
    if output.resolve() == recipe.resolve():
        raise click.ClickException(f"{output} is the recipe that the search starts from; give another -o")
    study = study or output.with_suffix(".db")
    if output.is_file() and not study.exists():
        raise click.ClickException(
            f"{output} is there already, and no study {study} that it came from; give another -o"
        )
    try:
        resolved = load_recipe(recipe, parse_overrides(overrides))
        output.parent.mkdir(parents=True, exist_ok=True)
        tuned = run_search(
            resolved,
            Material(photos, paintings, clips, weights),
            study=study,
            trials=trials,
            steps=trial_steps,
            ranges=parse_ranges(search) or RANGES,
            start_from=start_from,
            device=device,
        )
        told = f"{tuned.finished} trials of {trial_steps} steps, {tuned.pruned} more stopped early"
        write_recipe(tuned.recipe, output, f"Found from {recipe.name} by {told}: {tuned.value:.4f}")
    except (ValueError, OSError) as error:
        raise _unusable(error) from error
    click.echo(f"{output}: the best of {told}, at {tuned.value:.4f}")


def parse_ranges(arguments: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """FIELD=LOW..HIGH as a mapping from field to bounds.

    Raises:
        ValueError: it is not of that form, or the bounds are not positive, rising and finite.
    """
    ranges = {}
    for argument in arguments:
        name, _, bounds = argument.partition("=")
        low, _, high = bounds.partition("..")
        try:
            ranges[name] = float(low), float(high)
        except ValueError:
            raise ValueError(f"--search {argument}: expected FIELD=LOW..HIGH, as style=5..100") from None
        if not 0 < ranges[name][0] < ranges[name][1] < math.inf:
            raise ValueError(f"--search {argument}: the bounds must be above 0, rise and be finite")
    return ranges


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--photos",
    type=Photos(),
    required=True,
    help="Folder of photographs to look at, or torchvision:NAME:FOLDER for a dataset.",
)
@click.option("--paintings", type=FOLDER, required=True, help="Folder of the recipe's paintings.")
@weights_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of the sheets.")
@click.option("-s", "--style", help="Which of the recipe's styles (default: the first).")
@click.option("-f", "--force", is_flag=True, help="Replace existing sheets in that folder.")
def inspect(
    checkpoint: Path,
    photos: Path | str,
    paintings: Path,
    weights: Path | None,
    output: Path,
    style: str | None,
    force: bool,
) -> None:
    """See inside a training's CHECKPOINT: three sheets.

    scores.png: where the discriminator takes pictures for paintings. features.png: what each layer counts as
    content and as style. fingerprint.png: what the generator paints over noise, in every style.
    """
    from training.inspection import SHEETS
    from training.inspection import inspect as draw

    _refuse_output(output, SHEETS, force)
    try:
        sheets = draw(checkpoint, photos, paintings, weights, output, style)
    except (ValueError, OSError) as error:
        raise _unusable(error) from error
    for path in sheets:
        click.echo(path)


@click.command()
@click.argument("pack")
@click.option(
    "--photos",
    type=Photos(),
    required=True,
    help="Folder of photographs, or torchvision:NAME:FOLDER for a dataset; those that training left out are "
    "painted.",
)
@click.option("--paintings", type=FOLDER, required=True, help="Folder of the recipe's paintings.")
@click.option(
    "--clips",
    type=FOLDER,
    help="Folder of videos to measure the flicker on, all of them: give ones that training did not see.",
)
@weights_option
@click.option(
    "--recipe",
    type=FILE,
    help="Recipe that says which painting belongs to which style (default: the bundled recipe that matches "
    "the pack's credits, else a subfolder for each style, else, for a single style, all paintings).",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder for sheet.png and report.json.")
@click.option(
    "--features",
    type=click.Choice(["squeezenet1_1", "vgg19"]),
    default="squeezenet1_1",
    show_default=True,
    help="Network that style and content are measured with.",
)
@click.option(
    "--pictures", type=click.IntRange(1), default=24, show_default=True, help="Photographs to paint."
)
@click.option(
    "--frames", type=click.IntRange(2), default=9, show_default=True, help="Frames of each clip to paint."
)
@click.option(
    "--engine",
    default="onnxruntime",
    show_default=True,
    help="Name of the engine, as `fauve doctor` lists them.",
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads (default: all cores).")
@click.option("--no-card", is_flag=True, help="Leave the pack's card as it is.")
@click.option("-f", "--force", is_flag=True, help="Replace an existing evaluation in that folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def evaluate(
    pack: str,
    photos: Path | str,
    paintings: Path,
    clips: Path | None,
    weights: Path | None,
    recipe: Path | None,
    output: Path | None,
    features: str,
    pictures: int,
    frames: int,
    engine: str,
    threads: int | None,
    no_card: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Judge the style PACK on photographs that its training left out, and on clips.

    Measures its flicker, the distances of style and content over strength, whether a classifier takes what
    it paints for the paintings, how noise and attacks throw it, and FID where its weights are at hand. The
    figures go into the pack's card, unless it is bundled or a .zip.
    """
    if engine.startswith("openvino") or engine == "auto":
        raise click.UsageError("OpenVINO and torch do not share a process; --engine onnxruntime does")
    if output is not None:
        _refuse_output(output, ("sheet.png", "report.json"), force)
    try:
        resolved = load_recipe(recipe) if recipe else None
    except ValueError as error:
        raise _unusable(error) from error
    import torch

    from training.evaluate import Material

    if threads:
        torch.set_num_threads(threads)
    material = Material(photos, paintings, clips, weights, resolved, features, pictures, frames)
    try:
        _judge(pack, material, output, engine=engine, threads=threads, quiet=as_json, card=not no_card)
    except (ValueError, OSError) as error:
        raise _unusable(error) from error


def _refuse_output(folder: Path, names: Sequence[str], force: bool) -> None:
    """See that files of these `names` can be written to `folder`, which need not be there, before the work.

    Raises:
        click.ClickException: one is there and `force` is not given, or nothing can be written there.
    """
    for path in (folder / name for name in names):
        if path.exists() and not force:
            raise click.ClickException(f"{path} is there already; give another folder or --force")
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise click.ClickException(f"{there} is a file, where a folder is needed; give another -o")
    if not os.access(there, os.W_OK | os.X_OK):
        raise click.ClickException(f"{there}: cannot be written to; give another -o")


def _judge(
    pack: str,
    material: "Material",
    output: Path | None,
    *,
    engine: str = "onnxruntime",
    threads: int | None = None,
    quiet: bool = False,
    card: bool = True,
) -> None:
    """Evaluate `pack`, print the summary, JSON if `quiet`, and write sheet and report into `output` and the
    figures into its card."""
    import engines
    from engines.atomic_write import atomic_write
    from engines.style import write_card
    from training.data import write_png
    from training.evaluate import evaluate as judge
    from training.evaluation_sheet import evaluation_sheet, summary

    def progress(measure: str) -> None:
        if not quiet:
            click.echo(f"measuring {measure.replace('_', ' ')}", err=True)

    with engines.load(engine, style=pack, threads=threads) as runtime:
        evaluation = judge(runtime, material, progress)
    # What took so long is told, also where it cannot be written.
    click.echo(json.dumps(evaluation.report) if quiet else summary(evaluation.report))
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        report = json.dumps(evaluation.report, indent=2) + "\n"
        atomic_write(output / "report.json", report.encode())
        write_png(output / "sheet.png", evaluation_sheet(evaluation))
    folder = Path(pack)
    if card and _is_of(runtime.style, folder) and os.access(folder, os.W_OK):
        write_card(folder, {**runtime.style.card, "evaluation": evaluation.report})
        click.echo(f"{folder}: the figures are in its card", err=True)
    elif card:
        click.echo(f"{pack}: its card stays as it is; a pack in a folder of yours gets the figures", err=True)


def _is_of(style: "Style", folder: Path) -> bool:
    """Whether `folder` holds the pack that `style` was read from: a bundled one goes before a folder of its
    name."""
    from engines import Style

    return (folder / "style.json").is_file() and Style.load(folder.resolve()).digest == style.digest
