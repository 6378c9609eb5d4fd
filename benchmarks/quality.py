"""What the parts of training are worth, and how good the bundled styles are: short trainings, judged alike.

    python -m benchmarks.quality --photos PHOTOS --paintings PAINTINGS --clips UNSEEN --training-clips CLIPS

Trains the recipe `pointillism` from nothing, in fewer steps: as it is, without its losses for stillness, with
others in their place, without its discriminator, and bare of its canvas and flat patches. Learns some of the
bundled styles anew as `fauve learn --calm` does, each with losses for stillness and without. A training takes
some ten minutes on a CPU core; what is finished in `--runs` is not done again. Judges those and the bundled
packs on photographs and clips that no training saw.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch

import engines
from benchmarks.machine import write_results
from engines import Style
from engines.style import bundled
from training.cli import RECIPES, TRUNK, quick_recipe
from training.data import held_out, image_files
from training.evaluate import Material as Judged
from training.evaluate import evaluate
from training.export import export_pack
from training.recipe import Recipe, load_recipe
from training.stylization import Material
from training.train import train

STEPS = 800

# Not 0: the second frame goes through batch normalisation all the same, so that nothing else differs.
NO_TEMPORAL = {"temporal": 1e-6, "still": 1e-6}

FAR = {"temporal": 500.0, "motion": 40.0}

BARE: dict[str, Any] = {"styles": {"canvas": (), "spared": 0.0}, "simplified": False}

VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "no-temporal": NO_TEMPORAL,
    # Nor does it learn that what is turned is painted turned, so that no loss compares two paintings.
    "no-consistency": {**NO_TEMPORAL, "turned": 0.0},
    "no-adversarial": {"adversarial": 0.0},
    # In clips things move further than `motion` has them, so that it weighs less.
    "frame-difference": {**FAR, "temporal_loss": "frame_difference", "clip_share": 1.0},
    "reconet": {**FAR, "temporal_features": 0.02, "clip_share": 0.5},
    # Whose marks are all the network's own.
    "bare": BARE,
    "bare-no-temporal": {**BARE, **NO_TEMPORAL},
}
"""What each training changes in the recipe `pointillism`, and in its `styles`."""

LEARNED = ("orphism", "fauvism", "expressionism", "blue-rider")
"""Bundled styles that are learned once more as by `fauve learn --calm`, by the first coat of their canvas."""

PAIRS = {"pointillism": ("full", "no-temporal")} | {name: (name, f"{name}-no-temporal") for name in LEARNED}
"""Trainings with the losses for stillness and without, by the style that they learn."""

BARS = {
    "flicker": "of each pair, excess warping error with losses for stillness at most half of that without",
    "style": "at a style distance within 10 %",
    "contrast": "and the same contrast, within 10 %",
    "noise_gain": "noise gain of a still scene at most 1",
    "classifier": "half of the painted crops or more are taken for the style, a tenth of raw ones or less",
    "strength": "style distance falls with strength; at 0.5 nearer to the style than a blend",
}


def variant(name: str, paintings: Path) -> Recipe:
    """The recipe of a training, whose paintings are in the folder `paintings`."""
    bundled_name = name.removesuffix("-no-temporal")
    if bundled_name in LEARNED:
        live = load_recipe(RECIPES / "live.toml")
        style = next(style for style in live.styles if style.name == bundled_name)
        images = [paintings / image for image in (style.painting, *style.reals)]
        # By another name, so that it does not begin as what it is there.
        recipe = quick_recipe(images, name="learned", title=style.title, canvas=style.canvas[0], calm=True)
        return recipe if name == bundled_name else dataclasses.replace(recipe, **NO_TEMPORAL)
    recipe = load_recipe(RECIPES / "pointillism.toml")
    changes = {"steps": STEPS, "sheet_every": STEPS // 2, **VARIANTS[name]}
    if "styles" in changes:
        own = changes["styles"]
        changes["styles"] = tuple(dataclasses.replace(style, **own) for style in recipe.styles)
    return dataclasses.replace(recipe, **changes)


def judged(pack: Style | str | Path, material: Judged) -> dict[str, Any]:
    """What `fauve evaluate` finds of each style of `pack`, in short."""
    with engines.load("onnxruntime", style=pack) as engine:
        report = evaluate(engine, material, lambda measure: None).report
    for name, row in report["styles"].items():
        print(f"{report['pack']} {name}: {row['flicker']}, style {row['style_distance']}", flush=True)
    return {"styles": report["styles"], "classifier": report.get("classifier")}


def bars(trained: dict[str, Any], packs: dict[str, Any]) -> dict[str, Any]:
    """Each of `BARS` with its figures, and whether it is met."""
    ratios = {name: compared(*(trained[each] for each in pair)) for name, pair in PAIRS.items()}
    styles = {
        f"{pack}/{name}": row for pack, report in packs.items() for name, row in report["styles"].items()
    }
    known = {name: row for name, row in styles.items() if row["paintings"] >= 3}
    taken = {name: row["classifier"] for name, row in known.items()}
    met = {
        "flicker": {name: ratio["flicker"] <= 0.5 for name, ratio in ratios.items()},
        **{
            measure: {name: abs(ratio[measure] - 1) <= 0.1 for name, ratio in ratios.items()}
            for measure in ("style", "contrast")
        },
        "noise_gain": {name: row["noise_gain"] <= 1 for name, row in styles.items()},
        "classifier": {
            name: row["painted"] >= 0.5 and row["photographs"] <= 0.1 for name, row in taken.items()
        },
        "strength": {
            name: row["strength"]["monotonic"] and row["strength"]["nearer_than_blend"]
            for name, row in styles.items()
        },
    }
    return {"ratios": ratios, "met": met, "bars": BARS}


def compared(*reports: dict[str, Any]) -> dict[str, float]:
    """What one training of a style comes out at, relative to another one."""
    one, another = (row for report in reports for row in report["styles"].values())
    return {
        "flicker": round(one["flicker"]["score"] / another["flicker"]["score"], 3),
        "style": round(one["style_distance"] / another["style_distance"], 3),
        "contrast": round(one["flicker"]["contrast"] / another["flicker"]["contrast"], 3),
    }


def table(report: dict[str, Any]) -> str:
    """The trainings and the bundled styles as Markdown."""
    rows = [
        "| | flicker | noise gain | style | content | taken for the style | photographs taken for it "
        "| unseen paintings recognised |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    reports = {**report["trained"], **report["packs"]}
    for pack, found in reports.items():
        for name, row in found["styles"].items():
            taken = row["classifier"]
            figures = [
                f"{row['flicker']['score']:.3f}",
                f"{row['noise_gain']:.2f}",
                f"{row['style_distance']:.2f}",
                f"{row['content_distance']:.2f}",
                f"{taken['painted']:.0%}",
                f"{taken['photographs']:.0%}",
                "" if taken["unseen"] is None else f"{taken['unseen']:.0%}",
            ]
            title = pack if pack in report["trained"] else f"`{pack}`, {name}"
            rows.append(f"| {title} | {' | '.join(figures)} |")
    return "\n".join(rows)


def main() -> None:
    """Train, judge, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    compared_trainings = [name for pair in PAIRS.values() for name in pair]
    for name in ("photos", "paintings", "clips"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--training-clips", type=Path, required=True, help="of other scenes than --clips")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/quality"))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument(
        "--variants",
        default=",".join(dict.fromkeys([*VARIANTS, *compared_trainings])),
        help="trainings; those that are compared at least: " + ", ".join(compared_trainings),
    )
    parser.add_argument("--pictures", type=int, default=24, help="photographs to paint")
    arguments = parser.parse_args()
    variants = arguments.variants.split(",")
    if unknown := sorted({*variants} - {*VARIANTS, *compared_trainings}):
        parser.error(
            f"--variants: no {', '.join(unknown)}; there are {', '.join(VARIANTS)}, and the compared"
        )
    if missing := sorted({*compared_trainings} - {*variants}):
        parser.error(f"--variants: {', '.join(missing)} must be among them, which are compared")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    material = Material(arguments.photos, arguments.paintings, arguments.training_clips, arguments.weights)
    unseen = Judged(
        *(arguments.photos, arguments.paintings, arguments.clips, arguments.weights),
        pictures=arguments.pictures,
    )
    preview = next(path for path in image_files([arguments.photos]) if held_out(path))
    trained = {}
    for name in variants:
        recipe, run = variant(name, arguments.paintings), arguments.runs / name
        begun = (run / "checkpoint.pt").exists()
        start = None if name in VARIANTS or begun else TRUNK
        checkpoint = train(recipe, material, run=run, resume=begun, start_from=start)
        pack = export_pack(checkpoint, run / "pack", preview=preview, force=True)
        trained[name] = judged(pack, dataclasses.replace(unseen, recipe=recipe))
    packs = {name: judged(name, unseen) for name in bundled()}
    report = {
        "steps": STEPS,
        "photographs": arguments.pictures,
        **bars(trained, packs),
        "trained": trained,
        "packs": packs,
    }
    print(report["ratios"], report["met"])
    print(write_results("quality", report))


if __name__ == "__main__":
    main()
