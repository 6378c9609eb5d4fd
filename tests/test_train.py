"""The loop on made-up pictures and random VGG weights: whether it learns, resumes and stops as it says."""

import dataclasses
import io
import json
import re
import shutil
import signal
import struct
import subprocess
import sys
import types
import zlib
from typing import ClassVar

import click
import cv2
import numpy as np
import optuna
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engines import EngineUnavailable, Style
from pipeline.cli import fauve as command
from pipeline.grey_window import Window
from tests.packs import tiny_pack
from tests.test_cli import assert_one_line, fauve
from tests.videos import make_video
from training import cli
from training.checkpoint import load_checkpoint, load_trunk, save_checkpoint, save_trunk
from training.cli import quick_recipe
from training.cycle import CycleTraining
from training.data import (
    Clips,
    Pictures,
    clip_frames,
    dataset_images,
    held_out,
    held_out_first,
    image_files,
    read_image,
    resize_shorter,
    write_png,
)
from training.device import autocast_of
from training.export import export_pack
from training.flow import DisFlow, identity_grid, turned_pair, warp, with_shading
from training.generator import Generator, of_styles
from training.inspection import HEIGHT, LABEL, inspect, score_sheet
from training.losses import gram
from training.recipe import Recipe, StyleRecipe, load_recipe, stored_recipe
from training.stylization import Material, StyleTraining, generator_of, schedule
from training.targets import Targets
from training.train import sheet_pictures, train
from training.tuning import Tuned, held_out_value, judged_photos, tune, write_recipe

VGG_SHAPES = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128)}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Folders of photographs and paintings, and a VGG-19 file with random weights."""
    folder = tmp_path_factory.mktemp("material")
    rng = np.random.default_rng(0)
    for name, count in (("photos", 24), ("paintings", 2)):
        (folder / name).mkdir()
        for index in range(count):
            noise = rng.integers(0, 256, (9, 12, 3), np.uint8)
            image = cv2.resize(noise, (96, 72), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / name / f"{index}.png"), image)
    generator = torch.Generator().manual_seed(0)
    state = {}
    for layer, (outputs, inputs) in VGG_SHAPES.items():
        scale = (2 / (inputs * 9)) ** 0.5
        state[f"features.{layer}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) * scale
        state[f"features.{layer}.bias"] = torch.zeros(outputs)
    save_file(state, folder / "vgg19.safetensors")
    state = {
        "features.0.weight": torch.randn(64, 3, 3, 3, generator=generator),
        "features.0.bias": torch.zeros(64),
    }
    inputs = 64
    for fire, outputs in zip(
        (3, 4, 6, 7, 9, 10, 11, 12), (64, 64, 128, 128, 192, 192, 256, 256), strict=True
    ):
        for part, shape in {
            "squeeze": (16, inputs, 1, 1),
            "expand1x1": (outputs, 16, 1, 1),
            "expand3x3": (outputs, 16, 3, 3),
        }.items():
            state[f"features.{fire}.{part}.weight"] = torch.randn(shape, generator=generator) * 0.2
            state[f"features.{fire}.{part}.bias"] = torch.zeros(shape[0])
        inputs = 2 * outputs
    save_file(state, folder / "squeezenet1_1.safetensors")
    (folder / "clips").mkdir()
    make_video(folder / "clips" / "clip.mp4", frames=8)
    return Material(folder / "photos", folder / "paintings", folder / "clips", folder)


RECIPE = Recipe(
    name="test",
    title="Test",
    styles=(StyleRecipe("test", "0.png", "A Test", "Nobody", 1900, reals=("1.png",)),),
    steps=6,
    batch=2,
    crop=48,
    photo_size=64,
    painting_size=64,
    widths=(8, 8, 8),
    blocks=1,
    learning_rate=2e-3,
    autocast="off",
    sheet_every=3,
    checkpoint_every=2,
)


def test_every_named_loss_is_logged_and_the_sheets_are_written(material, tmp_path):
    seen = []
    recipe = dataclasses.replace(
        RECIPE,
        smoothness=0.1,
        grid=0.1,
        colour=0.1,
        tone=0.1,
        temporal_features=1.0,
        clip_share=0.5,
        brightness=0.2,
        still=0.1,
    )
    checkpoint = train(recipe, material, run=tmp_path, progress=lambda step, numbers: seen.append(step))
    assert seen == [1, 2, 3, 4, 5, 6]
    lines = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    names = {"content", "style", "in_range", "smoothness", "grid", "colour", "adversarial", "temporal"}
    names |= {"tone", "temporal_features", "still", "discriminator"}
    assert all(names | {"step", "seconds"} == set(line) for line in lines)
    sheets = [f"{kind}-{step:05d}.png" for kind in ("clip", "sheet") for step in (3, 6)]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == sheets
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(board.Tags()["scalars"]) == {f"loss/{name}" for name in names}
    logged = [event.value for event in board.Scalars("loss/style")]
    assert logged == pytest.approx([line["style"] for line in lines])
    assert load_checkpoint(checkpoint)["step"] == 6


VARIANTS = {
    "the article's own features": {
        "style_features": ("discriminator", "generator"),
        "content_features": ("discriminator",),
        "style_statistic": "moments",
        "adversarial_loss": "minimax",
        "crop": 32,
        "discriminator": "dense",
    },
    "squeezenet": {
        "style_features": ("squeezenet1_1", "discriminator"),
        "content_features": ("squeezenet1_1",),
        "adversarial_loss": "least_squares",
        "generator": "resnet",
        "widths": (8, 12),
        "optimiser": "sgd",
        "learning_rate": 1e-3,
    },
    "every regularisation": {
        "discriminator_scales": 2,
        "crop": 64,
        "r1": 1.0,
        "augment": True,
        "history": 3,
        "temporal_loss": "frame_difference",
        "clip_share": 1.0,
    },
    "both directions": {"cycle": 5.0, "identity": 1.0, "history": 3},
    "half precision": {"autocast": "bf16"},
    "guided": {"guided": True, "style_features": ("vgg19", "discriminator")},
}


def test_a_style_is_asked_for_as_far_as_the_strength_goes(material):
    training = StyleTraining(dataclasses.replace(RECIPE, batch=3), material, torch.device("cpu"))
    batch = dataclasses.replace(training.batch(1), strength=torch.tensor([0.0, 0.5, 1.0]))
    with torch.no_grad():
        before = training.features("vgg19", batch.photo, batch)
    paintings = training.targets.statistics("vgg19", batch.styles)
    parts = training.regions("vgg19", batch.photo, batch, len(before))
    asked = training.style_target("vgg19", before, parts, batch)
    for x, target, painting in zip(before, asked, paintings, strict=True):
        photo = gram(x)[:, None]
        torch.testing.assert_close(target[0], photo[0])
        torch.testing.assert_close(target[1], (photo[1] + painting[1]) / 2)
        torch.testing.assert_close(target[2], painting[2])


def test_a_recipe_says_what_coats_of_the_canvas_its_styles_paint_by(material):
    styles = (dataclasses.replace(RECIPE.styles[0], canvas=("dots",)),)
    recipe = dataclasses.replace(RECIPE, styles=styles, cycle=5.0)
    training = CycleTraining(recipe, material, torch.device("cpu"))
    for generator in (training.generator, training.average):
        relief, colours = (canvas.allowed[0].tolist() for canvas in generator.canvases)
        assert relief == [1] + [0] * 7
        assert colours == [1] * 3 + [0] * 21
    for canvas in training.back.canvases:
        assert not canvas.allowed.any(), "photographs have no brushwork"
    with pytest.raises(
        ValueError,
        match="canvas is one of dots, strokes, facets, planes, rings, figures, sweeps, panes, not 'oil'",
    ):
        dataclasses.replace(styles[0], canvas=("oil",))


def test_a_style_can_be_the_mean_of_a_movement(material):
    def gram_of(**changes):
        styles = (dataclasses.replace(RECIPE.styles[0], **changes),)
        training = StyleTraining(dataclasses.replace(RECIPE, styles=styles), material, torch.device("cpu"))
        return training.targets.statistics("vgg19", torch.tensor([0]))

    movement = gram_of(movement=True)
    each = gram_of(painting="0.png"), gram_of(painting="1.png")
    for mean, first, second in zip(movement, *each, strict=True):
        torch.testing.assert_close(mean, (first + second) / 2)
        assert not torch.allclose(mean, first)


def test_a_broken_painting_of_a_movement_is_skipped_in_a_folder_and_fatal_where_it_is_named(
    material, tmp_path, caplog
):
    paintings = tmp_path / "paintings"
    shutil.copytree(material.paintings, paintings / "others")
    shutil.copy(material.paintings / "0.png", paintings)

    def gram_of(*reals):
        style = dataclasses.replace(RECIPE.styles[0], movement=True, reals=reals)
        seen = dataclasses.replace(material, paintings=paintings)
        training = StyleTraining(dataclasses.replace(RECIPE, styles=(style,)), seen, torch.device("cpu"))
        return training.targets.statistics("vgg19", torch.tensor([0]))

    whole = gram_of("others")
    (paintings / "others" / "broken.png").write_bytes(b"no picture")
    assert all(map(torch.equal, gram_of("others"), whole))
    assert "broken.png" in caplog.text
    with pytest.raises(ValueError, match=r"broken\.png: no image"):
        gram_of("others/broken.png")


def test_shading_is_faint_smooth_and_grey():
    image = torch.full((4, 3, 96, 64), 0.5)
    shade = with_shading(image, 0.03, torch.Generator().manual_seed(0)) - image
    assert shade.shape == image.shape
    torch.testing.assert_close(shade[:, 0], shade[:, 2])
    deviation = shade.std((1, 2, 3))
    assert 0 < deviation.min() < deviation.max() <= 0.0301
    assert shade.diff(dim=3).abs().mean() < 0.3 * shade.abs().mean(), "no noise"


@pytest.mark.parametrize("shading", [0.0, 0.03])
def test_a_recipe_says_how_much_shading_a_still_scene_has(material, shading):
    recipe = dataclasses.replace(RECIPE, still=1.0, noise=0.0, shading=shading)
    batch = StyleTraining(recipe, material, torch.device("cpu")).batch(1)
    assert torch.equal(batch.noisy, batch.photo) == (shading == 0)


def test_a_turned_pair_is_turned_about_its_middle_and_compared_where_nothing_reaches_in():
    photo = torch.rand(8, 3, 32, 32)
    pair = turned_pair(photo, torch.Generator().manual_seed(0))
    assert torch.equal(pair.after, warp(pair.before, pair.grid).clamp(0, 1))
    positions = identity_grid(8, 32, 32)
    torch.testing.assert_close(pair.grid.norm(dim=-1), positions.norm(dim=-1))
    angles = torch.atan2(pair.grid[:, 16, 31, 1], pair.grid[:, 16, 31, 0])
    assert angles.unique().numel() == 8
    assert pair.mask[:, :, 12:20, 12:20].all()
    assert not pair.mask[..., :4].any()
    assert not pair.mask[:, 0][(pair.grid.abs() > 0.75).any(-1)].any()


def test_in_every_other_step_what_is_turned_has_to_be_painted_turned(material):
    torch.manual_seed(0)
    recipe = dataclasses.replace(RECIPE, crop=64, turned=10.0)
    training = StyleTraining(recipe, material, torch.device("cpu"))
    training.generator.eval()
    moved, turned = training.batch(1), training.batch(2)
    assert (moved.turned, turned.turned) == (False, True)
    assert "temporal" in training.generator_losses(moved)[0]
    # What it adds to begin with is next to nothing.
    begun = training.generator_losses(turned)[0]
    assert "temporal" not in begun
    assert begun["turned"] < 1e-3
    with torch.no_grad():
        training.generator.to_image.weight[:, :, 0] += 0.1  # sees what lies above, whatever is up
    assert training.generator_losses(turned)[0]["turned"] > 30 * begun["turned"]


def test_pictures_may_be_painted_at_twice_the_size_that_they_are_judged_at(material, monkeypatch):
    recipe = dataclasses.replace(RECIPE, enlarged=2, turned=1.0, still=1.0, grid=1.0)
    training = StyleTraining(recipe, material, torch.device("cpu"))
    sizes, paint = [], training.generator.paint
    monkeypatch.setattr(
        training.generator, "paint", lambda image, *rest: sizes.append(image.shape[2:]) or paint(image, *rest)
    )
    for step in (1, 2):  # one of them turns its pictures
        batch = training.batch(step)
        training.prepare(step)
        terms, painted = training.generator_losses(batch)
        assert painted.shape == batch.photo.shape
        assert all(torch.isfinite(term) for term in terms.values())
    assert len(sizes) >= 4
    assert set(sizes) == {torch.Size([2 * side for side in batch.photo.shape[2:]])}
    assert training.sheet([torch.zeros(3, 64, 48, dtype=torch.uint8)]).shape[0] == 64


def test_pictures_are_seen_from_several_distances(material):
    recipe = dataclasses.replace(RECIPE, crop=64, distances=(1, 2, 4))
    training = StyleTraining(recipe, material, torch.device("cpu"))
    batch = training.batch(1)
    assert [(view.distance, view.side) for view in batch.views] == [(1, 14), (2, 14), (4, 14)]
    image = torch.arange(64.0).expand(2, 3, 64, 64)
    near, far = batch.views[0](image), batch.views[2](image)
    assert near.shape == far.shape == (2, 3, 14, 14)
    assert torch.equal(near[0, 0, 0], batch.views[0].left + torch.arange(14.0))
    assert torch.equal(far[0, 0, 0], batch.views[2].left + 1.5 + 4 * torch.arange(14.0))
    with torch.no_grad():
        seen = training.features("vgg19", batch.photo, batch)
    assert len(seen) == 3 * 5
    assert len(training.targets.statistics("vgg19", batch.styles)) == 3 * 5
    with pytest.raises(ValueError, match="nearest first"):
        dataclasses.replace(recipe, distances=(2, 1))


def test_a_processor_without_bfloat16_computes_in_float32(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert autocast_of("auto", torch.device("cpu")) is None
    assert autocast_of("bf16", torch.device("cpu")) is torch.bfloat16
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert autocast_of("auto", torch.device("cpu")) is torch.bfloat16
    assert autocast_of("off", torch.device("cpu")) is None


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_train_and_resume_with_the_same_numbers(material, tmp_path, name):
    recipe = dataclasses.replace(RECIPE, steps=3, checkpoint_every=1, **VARIANTS[name])
    whole = load_checkpoint(train(recipe, material, run=tmp_path / "whole"))
    lines = [json.loads(line) for line in (tmp_path / "whole" / "losses.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    assert {"style", "content", "temporal", "discriminator"} <= set(lines[0])
    if recipe.cycle:
        assert {"cycle", "identity", "adversarial_back", "discriminator_back"} <= set(lines[0])
    begun = Generator(1, recipe.widths, recipe.blocks).state_dict()
    assert set(begun) == set(whole["generator"])

    def stop(step, numbers):
        if step == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="stopped after step 1 of 3"):
        train(recipe, material, run=tmp_path / "halves", progress=stop)
    halves = load_checkpoint(train(recipe, material, run=tmp_path / "halves", resume=True))
    for part in whole.keys() & {"generator", "average", "discriminator", "history", "back", "photo_history"}:
        for key, value in whole[part].items():
            torch.testing.assert_close(halves[part][key], value, msg=f"{part}.{key}")


def test_two_processes_learn_what_one_learns(material, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        """
        name = "test"
        title = "Test"
        steps = 3
        batch = 4
        crop = 32
        photo_size = 64
        painting_size = 64
        widths = [8, 8, 8]
        blocks = 1
        learning_rate = 1e-3
        discriminator_learning_rate = 1e-3
        optimiser = "sgd"
        augment = true
        history = 6
        grid = 20.0
        autocast = "off"
        [[styles]]
        name = "test"
        painting = "0.png"
        title = "A Test"
        artist = "Nobody"
        year = 1900
        """
    )

    def run(folder, *launcher):
        arguments = ["--photos", material.photos, "--paintings", material.paintings]
        arguments += ["--weights", material.weights, "--output", tmp_path / folder, "--threads", "1"]
        command = [sys.executable, "-m", *launcher, "training", recipe, *arguments, "--device", "cpu"]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return load_checkpoint(tmp_path / folder / "checkpoint.pt")

    one = run("one")
    # At a free port, which another training on this machine does not use.
    two = run("two", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    assert two["step"] == 3
    for part in ("generator", "average", "discriminator", "history"):
        for name, value in one[part].items():
            torch.testing.assert_close(two[part][name], value, atol=2e-5, rtol=1e-3, msg=f"{part}.{name}")


def test_clips_deal_out_pairs_with_their_motion(material):
    clips = Clips(material.clips, 64, DisFlow())
    assert len(clips) == 7
    pair = clips.crops(4, 48, torch.Generator().manual_seed(0))
    assert pair.before.shape == pair.after.shape == (4, 3, 48, 48)
    assert pair.grid.shape == (4, 48, 48, 2)
    assert pair.mask.shape == pair.luminance.shape == (4, 1, 48, 48)
    assert pair.mask.mean() > 0.2
    moved = (pair.after - warp(pair.before, pair.grid)).abs() * pair.mask
    assert moved.sum() / pair.mask.sum() / 3 < (pair.after - pair.before).abs().mean() + 1e-3


def test_motion_is_exact_at_every_place_of_a_wide_clip(tmp_path):
    make_video(tmp_path / "wide.mp4", frames=2, size=(1024, 64), audio=False)

    def by_a_third(before, after):
        return torch.full((*after.shape[-2:], 2), 1 / 3)

    pair = Clips(tmp_path, 64, by_a_third).crops(40, 64, torch.Generator().manual_seed(0))
    moved = (pair.grid - identity_grid(40, 64, 64)).abs() * 32
    torch.testing.assert_close(moved, torch.full_like(moved, 1 / 3), atol=2e-3, rtol=0)


def test_clips_are_on_a_sheet_even_if_nothing_is_learned_from_them(material, tmp_path):
    recipe = dataclasses.replace(RECIPE, steps=1)
    shown = train(recipe, material, run=tmp_path / "shown")
    assert cv2.imread(str(tmp_path / "shown" / "clip-00001.png")).shape[0] == 4 * 64
    plain = train(recipe, dataclasses.replace(material, clips=None), run=tmp_path / "plain")
    assert not (tmp_path / "plain" / "clip-00001.png").exists()
    before, after = (load_checkpoint(path)["generator"] for path in (plain, shown))
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_clips_of_a_sheet_are_the_readable_ones(material, tmp_path, caplog):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match="no clips of two frames"):
        clip_frames(tmp_path, 64, 4)
    shutil.copy(material.clips / "clip.mp4", tmp_path)
    frames = clip_frames(tmp_path, 64, 4)
    assert len(frames) == 4
    assert all(frame.shape[0] == 3 and frame.shape[1] == 64 for pair in frames for frame in pair)
    assert "a.mp4" in caplog.text


def test_pictures_of_any_shape_are_on_the_sheet(tmp_path):
    for index, size in enumerate([(40, 60), (60, 40), (50, 50), (30, 90)]):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((*size, 3), 200, np.uint8))
    (tmp_path / "z.png").write_bytes(b"no picture")
    sheet = sheet_pictures(tmp_path, 6, 8)
    assert [tuple(picture.shape) for picture in sheet] == [(3, 288, 384)] * 4
    assert sorted(int((picture[0, 0] == 0).sum()) for picture in sheet) == [0, 0, 96, 96]
    assert sheet_pictures(tmp_path, 1, 64)[0].shape == (3, 320, 384), "of whole blocks"


def test_a_recipe_that_needs_clips_says_so(material, tmp_path):
    recipe = dataclasses.replace(RECIPE, clip_share=0.5)
    with pytest.raises(ValueError, match="needs a folder of clips"):
        train(recipe, dataclasses.replace(material, clips=None), run=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no clips"):
        train(recipe, dataclasses.replace(material, clips=tmp_path / "empty"), run=tmp_path)


def test_the_way_back_becomes_a_pack(material, tmp_path):
    recipe = dataclasses.replace(RECIPE, steps=1, cycle=1.0)
    checkpoint = train(recipe, material, run=tmp_path)
    photo = material.photos / "0.png"
    back = export_pack(checkpoint, tmp_path / "back", preview=photo, back=True)
    assert back.title == "Test, and back to photographs"
    assert back.golden() is not None
    one_way = train(dataclasses.replace(RECIPE, steps=1), material, run=tmp_path / "one_way")
    with pytest.raises(ValueError, match="one direction only"):
        export_pack(one_way, tmp_path / "none", preview=photo, back=True)


def test_a_training_that_is_there_stays(material, tmp_path):
    checkpoint = train(dataclasses.replace(RECIPE, steps=1), material, run=tmp_path)
    before = checkpoint.read_bytes()
    with pytest.raises(ValueError, match=r"checkpoint\.pt is there already: --resume goes on with it"):
        train(RECIPE, material, run=tmp_path)
    assert checkpoint.read_bytes() == before
    checkpoint.unlink()
    train(dataclasses.replace(RECIPE, steps=1), material, run=tmp_path)
    assert len((tmp_path / "losses.jsonl").read_text().splitlines()) == 1, "of the training that is there"


def test_of_two_trainings_in_a_folder_one_is_refused(material, tmp_path):
    tried = []

    def begin_another(step, numbers):
        # The first checkpoint comes after two steps.
        with pytest.raises(ValueError, match="another training runs in it; wait for its end"):
            train(RECIPE, material, run=tmp_path, resume=step > 2)
        tried.append(step)

    checkpoint = train(RECIPE, material, run=tmp_path, progress=begin_another)
    assert tried == [1, 2, 3, 4, 5, 6]
    assert load_checkpoint(checkpoint)["step"] == 6
    assert len((tmp_path / "losses.jsonl").read_text().splitlines()) == 6
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    train(RECIPE, material, run=tmp_path, resume=True)


def test_what_is_no_painting_of_the_style_is_another_ones_or_the_photograph(material):
    others = dataclasses.replace(RECIPE.styles[0], name="other", painting="1.png", reals=())
    recipe = dataclasses.replace(RECIPE, styles=(dataclasses.replace(RECIPE.styles[0], reals=()), others))
    training = StyleTraining(recipe, material, torch.device("cpu"))
    kinds = []
    for step in range(1, 9):
        batch = training.batch(step)
        assert batch.styles[0] != batch.styles[1]
        for index in (0, 1):
            photo = torch.equal(batch.mismatched[index], batch.photo[index])
            assert photo != torch.equal(batch.mismatched[index], batch.real[1 - index])
            kinds.append(photo)
    assert 0 < sum(kinds) < len(kinds)
    alone = StyleTraining(RECIPE, material, torch.device("cpu")).batch(1)
    assert torch.equal(alone.mismatched, alone.photo), "of one style, there is no other"


def test_the_discriminator_is_begun_with_too(material, tmp_path):
    checkpoint = train(dataclasses.replace(RECIPE, steps=2), material, run=tmp_path)
    kept = load_checkpoint(checkpoint)["discriminator"]
    training = StyleTraining(RECIPE, material, torch.device("cpu"))
    training.start_from(checkpoint)
    assert all(torch.equal(value, kept[name]) for name, value in training.discriminator.state_dict().items())
    larger = StyleTraining(dataclasses.replace(RECIPE, discriminator_scales=2), material, torch.device("cpu"))
    larger.start_from(checkpoint)
    state = larger.discriminator.state_dict()
    assert len(state) == 2 * len(kept)
    assert all(torch.equal(state[name], value) for name, value in kept.items())
    another = dataclasses.replace(RECIPE, styles=(dataclasses.replace(RECIPE.styles[0], name="another"),))
    training = StyleTraining(another, material, torch.device("cpu"))
    before = {name: value.clone() for name, value in training.discriminator.state_dict().items()}
    training.start_from(checkpoint)
    assert all(
        torch.equal(value, before[name]) for name, value in training.discriminator.state_dict().items()
    )


def test_a_recipe_without_branches_begins_with_what_one_with_them_paints(material, tmp_path):
    with_branches = dataclasses.replace(RECIPE, branches=True, steps=3)
    checkpoint = train(with_branches, material, run=tmp_path)
    training = StyleTraining(RECIPE, material, torch.device("cpu"))
    training.start_from(checkpoint)
    before = generator_of(with_branches, RECIPE.styles).eval()
    before.load_state_dict(load_checkpoint(checkpoint)["average"])
    assert before.encode[1].branch is not None
    assert training.generator.encode[1].branch is None
    batch = training.batch(1)
    look = batch.photo, batch.mix, torch.ones(len(batch.mix))
    with torch.no_grad():
        torch.testing.assert_close(training.generator.eval()(*look), before(*look), atol=1e-4, rtol=0)


def test_it_learns(material, tmp_path):
    recipe = dataclasses.replace(RECIPE, steps=80, learning_rate=4e-3, adversarial=0.0)
    recipe = dataclasses.replace(recipe, full_strength=1.0, distances=(1,))
    losses = []
    train(recipe, material, run=tmp_path, progress=lambda step, numbers: losses.append(numbers["style"]))
    assert sum(losses[-20:]) < 0.6 * sum(losses[:20])


def test_resumed_training_gives_the_same_numbers(material, tmp_path):
    def stop_at_four(step, numbers):
        if step == 4:
            signal.raise_signal(signal.SIGINT)

    whole = load_checkpoint(train(RECIPE, material, run=tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt, match="stopped after step 4 of 6"):
        train(RECIPE, material, run=tmp_path / "halves", progress=stop_at_four)
    assert load_checkpoint(tmp_path / "halves" / "checkpoint.pt")["step"] == 4
    halves = load_checkpoint(train(RECIPE, material, run=tmp_path / "halves", resume=True))
    for part in ("generator", "average", "discriminator"):
        for name, value in whole[part].items():
            torch.testing.assert_close(halves[part][name], value, msg=f"{part}.{name}")


def test_a_training_that_was_killed_logs_every_step_once(material, tmp_path):
    def stop_at_four(step, numbers):
        if step == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, material, run=tmp_path, progress=stop_at_four)
    with (tmp_path / "losses.jsonl").open("a") as file:
        file.write('{"step": 5, "seconds": 0.1, "style": 1.0}\n{"step": 6, "sec')
    train(RECIPE, material, run=tmp_path, resume=True)
    lines = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("line", [b"\0\0\0\n", b"[1]\n", b"{}\n"])
def test_a_log_that_is_damaged_is_named(material, tmp_path, line):
    train(dataclasses.replace(RECIPE, steps=1), material, run=tmp_path)
    (tmp_path / "losses.jsonl").write_bytes(line)
    with pytest.raises(ValueError, match=r"losses\.jsonl: damaged; move it away"):
        train(dataclasses.replace(RECIPE, steps=1), material, run=tmp_path, resume=True)


def test_sigterm_stops_between_two_steps_after_a_checkpoint(material, tmp_path):
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)

    def kill_at_three(step, numbers):
        if step == 3:
            signal.raise_signal(signal.SIGTERM)

    try:
        with pytest.raises(KeyboardInterrupt, match=r"^stopped after step 3 of 6$"):
            train(RECIPE, material, run=tmp_path, progress=kill_at_three)
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 3


def test_curves_of_a_training_that_is_gone_are_gone(material, tmp_path):
    checkpoint = train(dataclasses.replace(RECIPE, steps=3), material, run=tmp_path)
    checkpoint.unlink()
    train(dataclasses.replace(RECIPE, steps=1), material, run=tmp_path)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("loss/style")] == [1]


def full(*_):
    """What the system says of a full disk; not to which file."""
    raise OSError(28, "No space left on device")


def test_a_sheet_that_cannot_be_written_is_said(material, tmp_path):
    with pytest.raises(FileNotFoundError):
        write_png(tmp_path / "nowhere" / "a.png", np.zeros((2, 2, 3), np.uint8))
    written = tmp_path / "a.png"
    written.write_bytes(b"of before")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*a\.png'"):
            write_png(written, np.zeros((2, 2, 3), np.uint8))
    assert written.read_bytes() == b"of before"
    (tmp_path / "sheet-00003.png").mkdir()
    with pytest.raises(IsADirectoryError, match=r"sheet-00003\.png"):
        train(RECIPE, material, run=tmp_path)


def test_a_training_goes_on_on_a_device_of_another_precision(material, tmp_path, monkeypatch):
    recipe = dataclasses.replace(RECIPE, steps=1, autocast="auto")
    for before, after in ((None, torch.float16), (torch.float16, None)):
        run = tmp_path / str(before)
        monkeypatch.setattr("training.stylization.autocast_of", lambda choice, device, kind=before: kind)
        training = StyleTraining(recipe, material, torch.device("cpu"))
        run.mkdir()
        state = {name: part.state_dict() for name, part in training.parts.items()}
        told = {"step": 1, "digest": recipe.digest(), "recipe": json.dumps(recipe.changed())}
        save_checkpoint(run / "checkpoint.pt", {**state, **told})
        monkeypatch.setattr("training.stylization.autocast_of", lambda choice, device, kind=after: kind)
        assert train(recipe, material, run=run, resume=True) == run / "checkpoint.pt"


def test_a_checkpoint_that_lacks_a_part_is_named(material, tmp_path):
    recipe = dataclasses.replace(RECIPE, steps=1)
    checkpoint = train(recipe, material, run=tmp_path)
    whole = load_checkpoint(checkpoint)
    for part in ("optimiser", "history", "discriminator"):
        save_checkpoint(checkpoint, {name: value for name, value in whole.items() if name != part})
        with pytest.raises(ValueError, match=r"checkpoint\.pt: its networks are of another shape, or"):
            train(recipe, material, run=tmp_path, resume=True)


def test_the_trunk_is_exported_beside_the_pack(material, tmp_path, monkeypatch):
    checkpoint = train(dataclasses.replace(RECIPE, steps=1), material, run=tmp_path)
    monkeypatch.setattr("training.export.export_pack", lambda *_, **__: tiny_pack(tmp_path / "tiny"))
    arguments = [checkpoint, "-o", tmp_path / "tiny", "--preview", material.photos / "0.png", "--trunk"]

    def export(trunk, *more):
        return run_in_process("export", *arguments, trunk, *more)

    with pytest.raises(click.ClickException, match=r"ends in \.safetensors"):
        export(tmp_path / "trunk.pt")
    export(tmp_path / "trunk.safetensors")
    kept, average = load_trunk(tmp_path / "trunk.safetensors"), load_checkpoint(checkpoint)["average"]
    assert all(torch.equal(kept["average"][name], value) for name, value in average.items())
    assert kept["average"].keys() == average.keys()
    with pytest.raises(click.ClickException, match="is there already"):
        export(tmp_path / "trunk.safetensors")
    shutil.rmtree(tmp_path / "tiny")
    export(tmp_path / "new/folder/trunk.safetensors")
    assert load_trunk(tmp_path / "new/folder/trunk.safetensors")["recipe"] == kept["recipe"]
    with pytest.raises(click.ClickException, match=r"tiny/style\.json is a file, where a folder is needed"):
        export(tmp_path / "tiny/style.json/trunk.safetensors", "--force")


def test_what_cannot_be_trained_on_is_one_line(material, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file/run: cannot be written: .*; give another -o"):
        train(RECIPE, material, run=tmp_path / "file" / "run")
    nothing = dataclasses.replace(material, photos=tmp_path / "none")
    with pytest.raises(ValueError, match="none"):
        train(RECIPE, nothing, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch finds no CUDA here"):
        train(RECIPE, material, run=tmp_path / "run", device="cuda")
    arguments = ["recipe.toml", "--photos", material.photos, "--paintings", material.paintings]
    assert_one_line(fauve("train", *arguments, "--threads", "-1"), "-1 is not in the range x>=1")


def test_a_style_is_added_to_a_finished_trunk_by_its_scales_and_shifts_alone(material, tmp_path):
    trunk = train(RECIPE, material, run=tmp_path / "trunk")
    save_trunk(tmp_path / "trunk.safetensors", load_checkpoint(trunk))
    recipe = dataclasses.replace(
        RECIPE,
        styles=(RECIPE.styles[0], StyleRecipe("new", "1.png", "A New One", "Nobody", 1901)),
        trunk=False,
        style_learning_rate=3.0,
        average_decay=0.5,
    )
    grown = train(recipe, material, run=tmp_path / "grown", start_from=tmp_path / "trunk.safetensors")
    before, after = load_checkpoint(trunk)["average"], load_checkpoint(grown)["average"]
    for name, value in after.items():
        if of_styles(name):
            assert value.shape[0] == 2
            assert not torch.equal(value[1], before[name][0]), name
        elif name.endswith(".allowed"):
            assert torch.equal(value, before[name].expand_as(value))
        else:
            torch.testing.assert_close(value, before[name], msg=name)


def test_a_style_that_is_not_to_be_learned_stays_what_it_is(material, tmp_path):
    both = (RECIPE.styles[0], StyleRecipe("new", "1.png", "A New One", "Nobody", 1901))
    first = train(dataclasses.replace(RECIPE, styles=both), material, run=tmp_path / "first")
    kept = (dataclasses.replace(both[0], learn=False), both[1])
    recipe = dataclasses.replace(RECIPE, styles=kept, trunk=False, average_decay=0.5)
    second = train(recipe, material, run=tmp_path / "second", start_from=first)
    before, after = load_checkpoint(first)["average"], load_checkpoint(second)["average"]
    for name, value in after.items():
        if of_styles(name):
            torch.testing.assert_close(value[0], before[name][0], msg=name)
            assert not torch.equal(value[1], before[name][1]), name
        else:
            torch.testing.assert_close(value, before[name], msg=name)
    with pytest.raises(ValueError, match="trunk = false"):
        dataclasses.replace(recipe, trunk=True)
    with pytest.raises(ValueError, match="not one of the styles"):
        dataclasses.replace(recipe, styles=kept[:1])


def test_a_trunk_of_another_shape_is_refused(material, tmp_path):
    trunk = train(dataclasses.replace(RECIPE, steps=1), material, run=tmp_path / "trunk")
    narrower = dataclasses.replace(RECIPE, widths=(8, 8, 4))
    with pytest.raises(ValueError, match="wider or deeper"):
        train(narrower, material, run=tmp_path / "narrower", start_from=trunk)
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"broken\.safetensors"):
        train(RECIPE, material, run=tmp_path / "other", start_from=tmp_path / "broken.safetensors")


def test_the_sheets_of_an_inspection_have_a_row_for_each_picture_and_style(material, tmp_path):
    recipe = dataclasses.replace(
        RECIPE,
        steps=1,
        styles=(RECIPE.styles[0], StyleRecipe("other", "1.png", "Other", "Nobody", 1901)),
        painting_size=200,
        crop=64,
    )
    checkpoint = train(recipe, material, run=tmp_path)
    sheets = inspect(
        checkpoint, material.photos, material.paintings, material.weights, tmp_path / "sheets", "other"
    )
    assert [path.name for path in sheets] == ["scores.png", "features.png", "fingerprint.png"]
    row = HEIGHT + LABEL
    sizes = [cv2.imread(str(path)).shape[:2] for path in sheets]
    assert sizes == [(4 * row, 6 * HEIGHT), (2 * 3 * row, 6 * HEIGHT), (2 * row, 5 * HEIGHT)]
    with pytest.raises(ValueError, match="no style 'none'; there are test, other"):
        inspect(checkpoint, material.photos, material.paintings, material.weights, tmp_path, "none")
    with pytest.raises(ValueError, match="no vgg19"):
        inspect(checkpoint, material.photos, material.paintings, material.photos, tmp_path / "no", None)
    assert not (tmp_path / "no").exists()


def test_an_inspection_replaces_no_sheet_unless_told_to(tmp_path, monkeypatch):
    def draw(*arguments):
        (tmp_path / "scores.png").write_text("new")
        return [tmp_path / "scores.png"]

    monkeypatch.setattr("training.inspection.inspect", draw)
    (tmp_path / "scores.png").write_text("precious")
    arguments = ["checkpoint.pt", "--photos", ".", "--paintings", ".", "-o", str(tmp_path)]
    refused = CliRunner().invoke(cli.inspect, arguments)
    assert refused.exit_code == 1
    assert "scores.png is there already; give another folder or --force" in refused.output
    assert (tmp_path / "scores.png").read_text() == "precious"
    assert CliRunner().invoke(cli.inspect, [*arguments, "--force"]).exit_code == 0
    assert (tmp_path / "scores.png").read_text() == "new"


def inspected(recipe, material, folder, **changes):
    """The sheet of features of a training of one step."""
    checkpoint = train(dataclasses.replace(recipe, steps=1), material, run=folder)
    seen = dataclasses.replace(material, **changes)
    sheets = inspect(checkpoint, seen.photos, seen.paintings, seen.weights, folder / "sheets", None)
    return cv2.imread(str(sheets[1]))


def test_scores_are_the_mean_over_all_sizes():
    def discriminator(image, style):
        return [torch.full((1, 1, 8, 8), 1.0), torch.full((1, 1, 4, 4), -3.0)], []

    grey = torch.full((3, 64, 64), 100, dtype=torch.uint8)
    sheet = score_sheet(Generator(1, (8, 8, 8), 1).eval(), discriminator, [grey], grey, 0)
    assert sheet.shape == (HEIGHT + LABEL, 6 * HEIGHT, 3)
    red, _, blue = sheet[LABEL:, HEIGHT : 2 * HEIGHT].reshape(-1, 3).mean(0)
    assert blue > red + 100, "the mean is below 0, though the finest is above"


def test_scores_are_coloured_about_the_one_of_what_is_undecided(material, tmp_path, monkeypatch):
    given = []

    def scores(*arguments):
        given.append(arguments[-1])
        return score_sheet(*arguments)

    monkeypatch.setattr("training.inspection.score_sheet", scores)
    for loss in ("hinge", "least_squares"):
        inspected(dataclasses.replace(RECIPE, adversarial_loss=loss), material, tmp_path / loss)
    # Least squares pull paintings to 1 and others to 0.
    assert given == [0, 0.5]
    grey = torch.full((3, 64, 64), 100, dtype=torch.uint8)

    def discriminator(image, style):
        return [torch.full((1, 1, 8, 8), 0.2)], []

    sheet = score_sheet(Generator(1, (8, 8, 8), 1).eval(), discriminator, [grey], grey, 0, 0.5)
    red, _, blue = sheet[LABEL:, HEIGHT : 2 * HEIGHT].reshape(-1, 3).mean(0)
    assert blue > red + 100


def test_an_inspection_shows_every_network_of_the_recipe(material, tmp_path):
    recipe = dataclasses.replace(
        RECIPE, style_features=("vgg19", "discriminator", "generator"), content_features=("discriminator",)
    )
    assert inspected(recipe, material, tmp_path / "patch").shape[0] == 3 * 2 * 3 * (HEIGHT + LABEL)
    own = dataclasses.replace(recipe, **VARIANTS["the article's own features"])
    assert inspected(own, material, tmp_path / "dense").shape[0] == 2 * 2 * 3 * (HEIGHT + LABEL)
    # A dense one sees squares of its size only, to which crops of a smaller painting are enlarged.
    small = dataclasses.replace(own, painting_size=24)
    assert inspected(small, material, tmp_path / "small").shape[0] == 2 * 2 * 3 * (HEIGHT + LABEL)


def test_an_inspection_skips_what_is_broken(material, tmp_path, caplog):
    photos = tmp_path / "photos"
    shutil.copytree(material.photos, photos)
    broken = next(
        photos / f"broken{index}.png" for index in range(99) if held_out(photos / f"broken{index}.png")
    )
    broken.write_bytes(b"no picture")
    assert inspected(RECIPE, material, tmp_path / "run", photos=photos).shape[0] == 2 * 3 * (HEIGHT + LABEL)
    assert broken.name in caplog.text


class Dataset:
    """In place of one of torchvision's: pictures of one colour each, brighter from one to the next."""

    read: ClassVar[list[int]] = []

    def __init__(self, folder):
        self.folder = folder

    def __len__(self):
        return 20

    def __getitem__(self, index):
        if self.folder == "broken":
            raise ImportError("needs a package")
        self.read.append(index)
        return self, index

    def convert(self, mode):
        return np.full((28, 30, 3), 100 + self.read[-1], np.uint8)


@pytest.fixture
def datasets(monkeypatch):
    """torchvision's datasets, whether it is installed or not: one, and a module beside it."""
    kinds = types.SimpleNamespace(MNIST=Dataset, mnist=types.ModuleType("mnist"))
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(datasets=kinds))


@pytest.mark.parametrize(
    ("name", "message"),
    [("torchvision:mnist:here", "has no 'mnist'"), ("torchvision:MNIST:broken", "needs a package")],
)
def test_what_is_no_dataset_is_named(datasets, name, message):
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        Pictures([name], 16)


def test_a_dataset_is_on_the_sheets_and_inspected(material, tmp_path, datasets):
    small = dataclasses.replace(material, photos="torchvision:MNIST:here")
    assert [tuple(picture.shape) for picture in sheet_pictures(small.photos, 6, 8)] == [(3, 32, 32)] * 2
    assert inspected(RECIPE, small, tmp_path).shape[0] == 2 * 3 * (HEIGHT + LABEL)


def test_of_a_dataset_no_more_is_read_than_is_shown_and_kept(datasets, monkeypatch, caplog):
    Dataset.read.clear()
    assert [int(image[0, 0, 0]) for image in held_out_first("torchvision:MNIST:here", 2)] == [100, 110]
    assert Dataset.read == list(range(11))
    assert next(dataset_images("torchvision:MNIST:here")).shape == (3, 28, 30)
    assert Dataset.read[11:] == [0]
    pictures = Pictures(["torchvision:MNIST:here"], 16, hold_out=True)
    assert [int(image[0, 0, 0]) for image in pictures.images] == [*range(101, 110), *range(111, 120)]
    monkeypatch.setattr("training.data.MOST_PICTURES", 12)
    assert len(Pictures(["torchvision:MNIST:here"], 16, hold_out=True)) == 10
    assert "torchvision:MNIST:here: 12 of its 20 pictures are used" in caplog.text


def test_of_a_large_folder_pictures_at_equal_distances_are_kept(tmp_path, monkeypatch, caplog):
    names = [name for name in (f"{index:03}.png" for index in range(200)) if not held_out(tmp_path / name)]
    for index, name in enumerate(names[:21]):
        cv2.imwrite(str(tmp_path / name), np.full((8, 8, 3), index, np.uint8))
    kept = next(name for name in (f"{index:03}.png" for index in range(200)) if held_out(tmp_path / name))
    cv2.imwrite(str(tmp_path / kept), np.full((8, 8, 3), 255, np.uint8))

    def colours():
        return [int(image[0, 0, 0]) for image in Pictures([tmp_path], 8, hold_out=True).images]

    monkeypatch.setattr("training.data.MOST_PICTURES", 21)
    assert colours() == list(range(21))
    assert not caplog.text
    monkeypatch.setattr("training.data.MOST_PICTURES", 5)
    assert colours() == [0, 5, 10, 15, 20]
    assert f"{tmp_path}: 5 of its 21 pictures are used" in caplog.text


def test_a_search_is_judged_on_what_no_training_sees(material, tmp_path, datasets, caplog):
    recipe = dataclasses.replace(RECIPE, crop=32, photo_size=28)
    levels = (judged_photos("torchvision:MNIST:here", recipe) * 255).round().unique().tolist()
    assert levels == [100, 110]
    kept = [path for path in image_files([material.photos]) if held_out(path)]
    assert 0 < len(kept) < 8
    crops = judged_photos(material.photos, dataclasses.replace(RECIPE, crop=64))
    sides = [resize_shorter(read_image(path), 64) / 255 for path in kept]
    for index, crop in enumerate(crops):
        whole = sides[index % len(sides)]
        windows = [each.unfold(2, 64, 1).movedim(2, 0) for each in (whole, whole.flip(-1))]
        assert any((window == crop).all((1, 2, 3)).any() for window in windows)
    assert not caplog.text
    others = [path for path in image_files([material.photos]) if not held_out(path)]
    shutil.copy(others[0], tmp_path)
    assert judged_photos(tmp_path, RECIPE).shape == (8, 3, 48, 48)
    assert "no picture there is held out" in caplog.text


@pytest.fixture
def painted_by_trials(monkeypatch):
    """The sides of the pictures that trials are judged by, and the styles that these are painted in."""
    sides, styles = [], []
    value = held_out_value

    def judged(training, photos):
        def see(module, arguments):
            sides.append(arguments[0].shape[-1])
            styles.append(arguments[1].argmax(1).tolist())

        with training.average.register_forward_pre_hook(see):
            return value(training, photos)

    monkeypatch.setattr("training.tuning.held_out_value", judged)
    return sides, styles


def test_a_search_judges_pictures_that_are_painted_enlarged_as_they_are_painted(
    material, tmp_path, painted_by_trials
):
    recipe = dataclasses.replace(RECIPE, enlarged=2)
    tune(recipe, material, study=tmp_path / "study.db", trials=1, steps=1, ranges={"style": (1.0, 50.0)})
    assert painted_by_trials[0] == [2 * RECIPE.crop] * 2


@pytest.mark.parametrize(("trunk", "judged"), [(True, [*range(10)]), (False, [9] * 8)])
def test_a_search_judges_every_style_that_is_learned_and_no_other(
    material, tmp_path, painted_by_trials, trunk, judged
):
    styles = [
        dataclasses.replace(RECIPE.styles[0], name=f"style-{index}", learn=trunk or index == 9)
        for index in range(10)
    ]
    recipe = dataclasses.replace(RECIPE, styles=tuple(styles), trunk=trunk)
    tune(recipe, material, study=tmp_path / "study.db", trials=1, steps=1, ranges={"style": (1.0, 50.0)})
    assert painted_by_trials[1] == [judged] * 2


def test_a_search_loads_its_material_once_and_draws_what_a_training_draws(material, tmp_path, monkeypatch):
    loaded, begun = [], []

    class Counted(Pictures):
        def __init__(self, paths, *arguments, **options):
            loaded.append(paths)
            super().__init__(paths, *arguments, **options)

    step = StyleTraining.step

    def first_weights(self, number, batch=None):
        if number == 1:
            begun.append(self.generator.to_image.weight.clone())
        return step(self, number, batch)

    monkeypatch.setattr("training.stylization.Pictures", Counted)
    monkeypatch.setattr(StyleTraining, "step", first_weights)
    recipe = dataclasses.replace(RECIPE, steps=1)
    tune(recipe, material, study=tmp_path / "study.db", trials=2, steps=8, ranges={"style": (1.0, 50.0)})
    assert loaded == [[material.photos]]
    train(recipe, material, run=tmp_path / "run")
    assert len(begun) == 3
    assert torch.equal(begun[0], begun[2])
    assert torch.equal(begun[1], begun[2])


def test_a_search_goes_on_where_it_was_stopped_and_writes_the_best_recipe(material, tmp_path):
    study, ranges = tmp_path / "study.db", {"style": (1.0, 50.0), "learning_rate": (1e-4, 1e-2)}

    def search(trials):
        return tune(RECIPE, material, study=study, trials=trials, steps=8, ranges=ranges)

    first = search(2)
    second = search(2)
    assert first.finished + first.pruned == 2
    assert second.finished + second.pruned == 4
    assert second.value <= first.value
    write_recipe(second.recipe, tmp_path / "best.toml", "found")
    best = load_recipe(tmp_path / "best.toml")
    assert best == second.recipe
    assert best.steps == RECIPE.steps
    assert 1 <= best.style <= 50
    assert (best.temporal, best.styles) == (RECIPE.temporal, RECIPE.styles)


def test_a_search_trains_both_directions_of_a_cycle(material, tmp_path, monkeypatch):
    trained = []
    original = CycleTraining.step
    monkeypatch.setattr(
        CycleTraining, "step", lambda self, step: trained.append(step) or original(self, step)
    )
    recipe = dataclasses.replace(RECIPE, cycle=5.0)
    ranges = {"style": (1.0, 50.0)}
    found = tune(recipe, material, study=tmp_path / "study.db", trials=1, steps=4, ranges=ranges)
    assert (found.finished, trained) == (1, [1, 2, 3, 4])


def test_a_search_begins_with_the_recipe_itself_and_leaves_off_what_it_switches_off(
    material, tmp_path, caplog, recwarn
):
    study = tmp_path / "study.db"
    recipe = dataclasses.replace(RECIPE, temporal=0.0, adversarial=3.0, style=60.0)
    ranges = {"temporal": (20.0, 1000.0), "adversarial": (0.05, 1.0)}
    found = tune(recipe, material, study=study, trials=1, steps=8, ranges=ranges)
    assert (found.finished, found.recipe) == (1, recipe)
    assert "temporal is 0" in caplog.text
    assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]
    trials = optuna.load_study(study_name="test", storage=f"sqlite:///{study}").trials
    assert [(trial.state.name, trial.params) for trial in trials] == [("COMPLETE", {"adversarial": 3.0})]
    with pytest.raises(ValueError, match="all that is to be searched is 0"):
        tune(recipe, material, study=study, trials=1, steps=8, ranges={"temporal": (1.0, 2.0)})


def test_a_search_that_failed_begins_anew(material, tmp_path):
    search = {"study": tmp_path / "study.db", "trials": 1, "steps": 8, "ranges": {"style": (1.0, 50.0)}}
    with pytest.raises(ValueError, match="no images"):
        tune(RECIPE, dataclasses.replace(material, photos=tmp_path), **search)
    assert tune(RECIPE, material, **search).recipe == RECIPE


def test_a_search_that_was_killed_in_its_first_trial_begins_anew(material, tmp_path):
    search = {"study": tmp_path / "study.db", "trials": 1, "steps": 8, "ranges": {"style": (1.0, 50.0)}}
    with pytest.MonkeyPatch.context() as patched:
        # What Optuna does not catch leaves the trial as a kill does.
        patched.setattr("training.tuning.held_out_value", lambda *_: sys.exit())
        with pytest.raises(SystemExit):
            tune(RECIPE, material, **search)
    assert tune(RECIPE, material, **search).recipe == RECIPE


def test_trials_that_cannot_be_compared_are_of_another_study(material, tmp_path):
    ranges, study = {"style": (1.0, 50.0)}, tmp_path / "study.db"

    def search(recipe=RECIPE, steps=8, ranges=ranges, start_from=None, material=material):
        return tune(
            recipe, material, study=study, trials=1, steps=steps, ranges=ranges, start_from=start_from
        )

    search()
    for other, changes in {
        "recipe": {"recipe": dataclasses.replace(RECIPE, painting_size=48)},
        "choice of fields": {"ranges": {**ranges, "content": (0.5, 2.0)}},
        "number of steps": {"steps": 9},
        "--from": {"start_from": material.photos / "0.png"},
        "--photos": {"material": dataclasses.replace(material, photos=material.paintings)},
        "--paintings": {"material": dataclasses.replace(material, paintings=material.photos)},
    }.items():
        with pytest.raises(ValueError, match=f"study.db: its trials are of another {other}; give another"):
            search(**changes)
    # What is searched, and how long the training itself will be, makes no difference.
    found = search(dataclasses.replace(RECIPE, style=20.0, steps=99))
    assert (found.finished + found.pruned, found.recipe.steps) == (2, 99)


def test_a_search_does_not_write_over_the_recipe_it_starts_from(material, tmp_path):
    recipe = tmp_path / "recipe.toml"
    write_recipe(RECIPE, recipe, "mine")
    before = recipe.read_text()
    arguments = ["--photos", material.photos, "--paintings", material.paintings, "-o", recipe]
    assert_one_line(fauve("tune", recipe, *arguments), "recipe.toml is the recipe", "another -o")
    assert recipe.read_text() == before


def test_a_search_writes_over_nothing_but_what_it_has_found(material, tmp_path, monkeypatch):
    recipe, other = tmp_path / "recipe.toml", tmp_path / "other.toml"
    write_recipe(RECIPE, recipe, "mine")
    other.write_text("of somebody else")
    monkeypatch.setattr("training.tuning.tune", lambda *_, **__: Tuned(RECIPE, 0.5, 1, 0))
    arguments = [recipe, "--photos", material.photos, "--paintings", material.paintings, "-o", other]
    with pytest.raises(click.ClickException, match=r"other\.toml is there already, and no study .*other\.db"):
        run_in_process("tune", *arguments)
    assert other.read_text() == "of somebody else"
    (tmp_path / "other.db").touch()
    run_in_process("tune", *arguments)
    assert load_recipe(other) == RECIPE


@pytest.mark.parametrize("wrong", ["folder", "disk"])
def test_a_recipe_that_cannot_be_written_is_one_line(material, tmp_path, monkeypatch, wrong):
    recipe, output = tmp_path / "recipe.toml", tmp_path / "tuned.toml"
    write_recipe(RECIPE, recipe, "mine")
    found = Tuned(RECIPE, 0.5, 1, 0)
    monkeypatch.setattr("training.tuning.tune", lambda *_, **__: found)
    if wrong == "folder":
        output.mkdir()
    else:
        monkeypatch.setattr("os.fsync", full)
    arguments = [recipe, "--photos", material.photos, "--paintings", material.paintings, "-o", output]
    with pytest.raises(click.ClickException, match=r"tuned\.toml.*(is a directory|No space left on device)"):
        run_in_process("tune", *arguments)
    assert output.is_dir() if wrong == "folder" else not output.exists()


def test_the_file_of_a_study_may_be_called_as_anything(material, tmp_path):
    study = tmp_path / "what? #1 50%25.db"
    tune(RECIPE, material, study=study, trials=1, steps=8, ranges={"style": (1.0, 50.0)})
    assert [path.name for path in tmp_path.iterdir()] == [study.name]


def test_a_bound_that_no_recipe_takes_is_refused_before_anything_is_trained(material, tmp_path):
    study, ranges = tmp_path / "study.db", {"average_decay": (0.9, 20.0)}
    with pytest.raises(ValueError, match=r"^average_decay is from 0 to below 1, not 20\.0$"):
        tune(RECIPE, material, study=study, trials=1, steps=1, ranges=ranges)
    assert not study.exists()


def test_a_trial_that_fails_is_one_line(material, tmp_path, caplog):
    search = {"study": tmp_path / "study.db", "trials": 1, "steps": 1, "ranges": {"style": (1.0, 50.0)}}
    optuna.logging.enable_propagation()
    try:
        with pytest.raises(ValueError, match="not a checkpoint"):
            tune(RECIPE, material, start_from=material.photos / "0.png", **search)
    finally:
        optuna.logging.disable_propagation()
    assert not caplog.records


def test_a_search_of_what_is_no_number_is_refused(material, tmp_path):
    with pytest.raises(ValueError, match="optimiser is no field that can be searched"):
        tune(RECIPE, material, study=tmp_path / "s.db", trials=1, steps=8, ranges={"optimiser": (1.0, 2.0)})
    (tmp_path / "broken.db").write_bytes(b"no database, but more than a few bytes of something")
    with pytest.raises(ValueError, match=r"broken\.db: not a study, .*; give another --study$"):
        tune(RECIPE, material, study=tmp_path / "broken.db", trials=1, steps=8)


def test_learn_makes_a_pack_and_goes_on_where_it_was_stopped(material, tmp_path, monkeypatch):
    photos, output = tmp_path / "photos", tmp_path / "mine"
    shutil.copytree(material.photos, photos)
    (photos / "._0.png").write_bytes(b"what macOS leaves beside a picture")
    painting = material.paintings / "0.png"
    arguments = [painting, "-o", output, "--photos", photos, "--weights", material.weights, "--steps", "3"]
    more = ["--stroke", "96", "--canvas", "facets", "--artist", "Me"]
    learned = fauve("learn", *arguments, *more)
    assert learned.returncode == 0, learned.stderr
    (entry,) = stored_recipe(load_checkpoint(tmp_path / "mine.training/checkpoint.pt")["recipe"], "it").styles
    assert (entry.canvas, entry.cut, entry.artist) == (("facets",), "facets", "Me")
    style = Style.load(output)
    assert [(credit.artist, credit.rights) for credit in style.credits] == [("Me", "not stated")]
    assert style.license == "not stated"
    assert style.golden() is not None
    assert_one_line(fauve("learn", *arguments), "is there already")
    shutil.rmtree(output)
    # Judged before; the exporter is loaded in this process.
    monkeypatch.setattr("training.cli._judge", lambda *_, **__: "")
    run_in_process("learn", *arguments, *more)
    assert Style.load(output).digest == style.digest
    assert b"export.py" not in style.model(), "a pack does not tell where it was made"


@pytest.fixture
def learning(material, tmp_path, monkeypatch):
    """`learn`, as a call that tells what it did, with steps that take no time."""
    did, fate = [], {}
    painting, output = material.paintings / "0.png", tmp_path / "mine"
    recipe = quick_recipe([painting], name="mine")

    def trained(recipe, material, *, run, resume, **_):
        path = run / "checkpoint.pt"
        did.append(f"goes on at {load_checkpoint(path)['step']}" if resume else "trains")
        run.mkdir(exist_ok=True)
        step = fate.pop("stopped at", recipe.steps)
        told = {"digest": recipe.digest(), "recipe": "", "step": step}
        save_checkpoint(path, {"generator": {}, "average": {}, **told})
        if step < recipe.steps:
            raise KeyboardInterrupt(f"stopped after step {step} of {recipe.steps}")
        return path

    def exported(checkpoint, output, **_):
        did.append("exports")
        shutil.rmtree(output, ignore_errors=True)
        tiny_pack(output)
        manifest = json.loads((output / "style.json").read_text())
        (output / "style.json").write_text(json.dumps({**manifest, "recipe": recipe.digest()}))
        return Style.load(output)

    def judged(engine, material, progress):
        did.append("judges")
        if "judging" in fate:
            raise fate.pop("judging")
        return types.SimpleNamespace(report={"pack": "mine"})

    monkeypatch.setattr("training.train.train", trained)
    monkeypatch.setattr("training.export.export_pack", exported)
    monkeypatch.setattr("training.evaluate.evaluate", judged)
    monkeypatch.setattr("training.evaluation_sheet.evaluation_sheet", lambda _: np.zeros((2, 2, 3), np.uint8))
    monkeypatch.setattr("training.evaluation_sheet.summary", str)

    def learn(*more):
        did.clear()
        run_in_process("learn", painting, "-o", output, "--photos", material.photos, *more)
        return list(did)

    return learn, fate, output


def run_in_process(verb, *arguments):
    command.main([verb, *map(str, arguments)], standalone_mode=False)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (KeyboardInterrupt(), "stopped"),
        (EngineUnavailable("no runtime"), "no runtime"),
        (OSError(28, "No space left on device", "sheet.png"), "sheet.png: No space left on device"),
        (ValueError("too few photographs"), "too few photographs"),
    ],
)
def test_a_pack_that_was_not_judged_is_judged_by_the_same_command(learning, capsys, error, why):
    learn, fate, output = learning
    fate["judging"] = error
    assert learn() == ["trains", "exports", "judges"]
    assert f"{output}: is made, not judged: {why}; the same command judges it" in capsys.readouterr().err
    assert Style.load(output).card == {}
    with pytest.raises(click.ClickException, match="is there already"):
        learn("--steps", 7)
    assert learn() == ["judges"]
    assert Style.load(output).card == {"evaluation": {"pack": "mine"}}
    with pytest.raises(click.ClickException, match="is there already"):
        learn()
    with pytest.raises(click.ClickException, match="is a folder; the first painting is the file to imitate"):
        run_in_process("learn", output.parent, "-o", output, "--photos", output.parent)
    assert learn("--force") == ["trains", "exports", "judges"]


def test_learn_tells_a_command_that_paints_with_what_it_made(learning, monkeypatch, capsys):
    learn, _, output = learning
    (output.parent / "a folder").mkdir()
    monkeypatch.chdir(output.parent / "a folder")
    learn("-o", "live")  # a bundled pack, too
    assert f'--style "{output.parent / "a folder" / "live"}"' in capsys.readouterr().out
    with pytest.raises(click.ClickException, match="a folder is there already"):
        learn("-o", ".")


def test_learning_that_was_stopped_goes_on_by_the_same_command(learning):
    learn, fate, _ = learning
    for options in ([], ["--force"]):
        fate["stopped at"] = 3
        with pytest.raises(click.Abort) as stopped:
            learn(*options)
        assert str(stopped.value.__cause__) == "stopped after step 3 of 500; the same command goes on"
        assert learn(*options) == ["goes on at 3", "exports", "judges"]
    fate["stopped at"] = 3
    with pytest.raises(click.Abort):
        learn("--force")
    assert learn("--force", "--steps", 7)[0] == "trains", "another recipe"


def test_a_checkpoint_of_another_recipe_is_refused(material, tmp_path):
    train(dataclasses.replace(RECIPE, steps=1), material, run=tmp_path)
    with pytest.raises(ValueError, match="another recipe, or other options; undo the change or give an"):
        train(RECIPE, material, run=tmp_path, resume=True)


def first_half_of_a_checkpoint():
    content = io.BytesIO()
    torch.save({"generator": {"weight": torch.zeros(5000)}, "average": {}, "recipe": ""}, content)
    return content.getvalue()[:10_000]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", first_half_of_a_checkpoint()])
def test_a_broken_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "broken.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.pt: not a checkpoint of fauve, or a broken one$"):
        load_checkpoint(path)


def test_what_is_no_checkpoint_of_a_training_is_named(tmp_path):
    torch.save({"generator": {}, "average": {}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt: not a checkpoint of a training"):
        load_checkpoint(tmp_path / "other.pt")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        load_checkpoint(tmp_path)
    torch.save({"generator": {}, "average": {}, "recipe": ""}, tmp_path / "empty.pt")
    with pytest.raises(ValueError, match=r"empty\.pt: not a checkpoint of a training: its recipe"):
        export_pack(tmp_path / "empty.pt", tmp_path / "pack", preview=tmp_path / "photo.png")


def test_a_checkpoint_is_whole_or_not_there(tmp_path):
    path = tmp_path / "checkpoint.pt"
    state = {"generator": {}, "average": {}, "recipe": ""}
    save_checkpoint(path, {**state, "step": 1})
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        save_checkpoint(path, {**state, "generator": (x for x in "unpicklable"), "step": 2})
    assert load_checkpoint(path)["step"] == 1


def test_a_checkpoint_that_there_is_no_room_for_leaves_the_one_before(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "checkpoint.pt"
    state = {"generator": {"weight": torch.zeros(10_000)}, "average": {}, "recipe": ""}
    save_checkpoint(path, {**state, "step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*checkpoint\.pt'"):
            save_checkpoint(path, {**state, "step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_checkpoint(path)["step"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_weights_that_are_no_longer_finite_leave_the_checkpoint_before(material, tmp_path, monkeypatch):
    step = StyleTraining.step

    def broken(self, number, batch=None):
        numbers = step(self, number, batch)
        if number == 4:
            self.generator.to_image.bias.data[0] = float("nan")
        return numbers

    monkeypatch.setattr(StyleTraining, "step", broken)
    with pytest.raises(FloatingPointError, match=r"^step 4: the generator is no longer finite; a lower"):
        train(RECIPE, material, run=tmp_path)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 2


def test_a_write_that_fails_is_told_with_its_folder(material, tmp_path, monkeypatch):
    monkeypatch.setattr("training.train.write_png", full)
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}'"):
        train(dataclasses.replace(RECIPE, steps=1), material, run=tmp_path)


def test_a_painting_that_is_enlarged_is_said(material, caplog):
    Targets(dataclasses.replace(RECIPE, painting_size=73), material.paintings, {}, torch.device("cpu"))
    assert "0.png: has 72 pixels a side and is enlarged to 73" in caplog.text
    caplog.clear()
    Targets(dataclasses.replace(RECIPE, painting_size=72), material.paintings, {}, torch.device("cpu"))
    assert not caplog.text


@pytest.mark.parametrize("real", ["gone.png", "gone", "broken.png", "empty"])
def test_paintings_that_a_recipe_names_must_be_there(material, tmp_path, real):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_bytes(b"no picture")
    shutil.copy(material.paintings / "0.png", tmp_path)
    styles = (dataclasses.replace(RECIPE.styles[0], reals=(real,)),)
    with pytest.raises(ValueError, match=f"^{re.escape(str(tmp_path / real))}: "):
        Targets(dataclasses.replace(RECIPE, styles=styles), tmp_path, {}, torch.device("cpu"))


def test_learning_rate_rises_then_falls():
    recipe = dataclasses.replace(RECIPE, steps=100, warmup=0.1)
    rates = [schedule(recipe, step) for step in range(1, 101)]
    assert max(rates) == rates[9] == 1
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.01)


def test_a_broken_image_is_reported_and_skipped(tmp_path, caplog):
    cv2.imwrite(str(tmp_path / "good.png"), np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "empty.jpg").touch()
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    claims = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "huge.png").write_bytes(claims)
    cv2.imwrite(str(tmp_path / "line.png"), np.zeros((1, 200, 3), np.uint8))
    assert len(Pictures([tmp_path], 16)) == 1
    for name in ("broken.jpg", "empty.jpg", "huge.png", "line.png: 200x1 is more than 20 times as long"):
        assert name in caplog.text


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_what_is_transparent_lies_on_white(tmp_path, kind):
    most = np.iinfo(kind).max
    pixels = np.array([[[0, 0, most, 0], [0, 0, most, most], [0, 0, 0, most // 5 * 2]]], kind)
    cv2.imwrite(str(tmp_path / "alpha.png"), pixels)
    assert read_image(tmp_path / "alpha.png").permute(1, 2, 0).tolist() == [
        [[255, 255, 255], [255, 0, 0], [153, 153, 153]]
    ]


def test_grey_of_16_bits_is_seen_from_its_darkest_to_its_brightest(tmp_path):
    values = np.random.default_rng(0).integers(0, 4096, (40, 60)).astype(np.uint16)
    for name in ("xray.png", "xray.tif"):
        cv2.imwrite(str(tmp_path / name), values)
        image = read_image(tmp_path / name)
        assert torch.equal(image, torch.from_numpy(Window.around(values).apply(values)).permute(2, 0, 1))
        assert (image.min(), image.max()) == (0, 255)
    for other in (values.astype(np.uint8), np.dstack([values] * 3)):
        cv2.imwrite(str(tmp_path / "other.png"), other)
        expected = cv2.imread(str(tmp_path / "other.png"))[..., ::-1]
        assert np.array_equal(read_image(tmp_path / "other.png").permute(1, 2, 0).numpy(), expected)


def test_a_picture_of_a_kind_that_opencv_does_not_read_is_named(tmp_path, caplog):
    (tmp_path / "photo.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    cv2.imwrite(str(tmp_path / "photo.jpg"), np.full((20, 30, 3), 200, np.uint8))
    assert [image.shape for image in Pictures([tmp_path], 20).images] == [(3, 20, 30)]
    assert "skipped" in caplog.text
    assert "photo.HEIC: no image that OpenCV can read" in caplog.text


def test_a_folder_without_images_is_an_error(tmp_path):
    (tmp_path / "photo.cr2").touch()
    with pytest.raises(ValueError, match=r"no images in .*: no file there ends in \.avif, \.bmp, \.heic"):
        Pictures([tmp_path], 16)
    (tmp_path / "photo.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=f"no images in {tmp_path}$"):
        Pictures([tmp_path], 16)


def test_where_all_pictures_would_be_held_out_they_are_trained_on(tmp_path, caplog):
    names = [f"{index}.png" for index in range(99) if held_out(tmp_path / f"{index}.png")]
    for name in names[:2]:
        cv2.imwrite(str(tmp_path / name), np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "._0.png").write_bytes(b"what macOS leaves beside a picture")
    assert len(Pictures([tmp_path], 16, hold_out=True)) == 2
    assert "all pictures there would be held out; they are trained on" in caplog.text


def test_crops_have_the_size_and_the_range(tmp_path):
    cv2.imwrite(str(tmp_path / "wide.png"), np.full((20, 200, 3), 255, np.uint8))
    crops = Pictures([tmp_path], 32).crops(3, 64, torch.Generator().manual_seed(0))
    assert crops.shape == (3, 3, 64, 64)
    assert crops.min() > 0.99


def test_images_are_read_as_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "red.png"), np.array([[[0, 0, 255]]], np.uint8))
    assert read_image(tmp_path / "red.png").flatten().tolist() == [255, 0, 0]


def test_one_in_ten_is_held_out_by_name(tmp_path):
    share = sum(held_out(tmp_path / f"{index}.jpg") for index in range(1000)) / 1000
    assert 0.07 < share < 0.13
