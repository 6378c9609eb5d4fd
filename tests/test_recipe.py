import dataclasses
import os
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from training.brushwork import COATS, CUTTING
from training.cli import CALM, _Progress, parse_overrides, parse_ranges, quick_recipe
from training.recipe import Recipe, build_recipe, load_recipe

MINIMAL = """
name = "test"
title = "Test"
[[styles]]
name = "test"
painting = "test.png"
title = "A Test"
artist = "Nobody"
year = 1900
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(MINIMAL)
    return path


def test_defaults_are_the_articles(path):
    recipe = load_recipe(path)
    assert (recipe.learning_rate, recipe.betas) == (2e-4, (0.5, 0.999))
    assert recipe.styles[0].painting == "test.png"


def test_overrides_take_the_type_of_the_field(path):
    recipe = load_recipe(path, parse_overrides(("--steps", "7", "--style=25", "--betas", "[0.9, 0.99]")))
    assert (recipe.steps, recipe.style, recipe.betas) == (7, 25.0, (0.9, 0.99))
    assert isinstance(recipe.style, float)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (("--stepz", "7"), "unknown field 'stepz'.*steps"),
        (("--steps", "many"), "steps is a int"),
        (("--steps", "7.5"), "steps is a int"),
        (("--optimiser", "adamw"), "optimiser is one of adam, sgd, not 'adamw'"),
        (("--style-features", '["vgg16"]'), "style_features is one of .*, not 'vgg16'"),
        (("--crop", "100"), "crop is a multiple of 8"),
        (("--crop", "8", "--tone", "1.0"), "tone needs a crop of at least 16, not 8"),
        (("--temporal-loss", "frame_difference"), "clip_share = 1"),
        (("--steps", "0"), "steps is at least 1, not 0"),
        (("--checkpoint-every", "0"), "checkpoint_every is at least 1"),
        (("--betas", "[0.5]"), "betas are two numbers"),
        (("--betas", '["a", "b"]'), "betas is a float, not 'a'"),
        (("--average-decay", "2.0"), "average_decay is from 0 to below 1"),
        (("--learning-rate", "0"), "learning_rate is above 0: with 0, nothing is learned"),
        (("--clip-gradient", "0"), "clip_gradient is above 0"),
        (("--learning-rate", "nan"), "learning_rate is a number from 0 up, not nan"),
        (("--style", "inf"), "style is a number from 0 up, not inf"),
        (("--content", "-1"), "content is a number from 0 up, not -1.0"),
        (("--seed", "99999999999999999"), "seed is from 0 to below"),
        (("--widths", "[]"), "widths are channels"),
        (("--widths", "[8]"), "two levels or more"),
        (("--crop", "16"), "vgg19 at a distance of 2 needs a crop of at least 26, not 16"),
        (
            ("--crop", "24", "--distances", "[1, 2, 4]"),
            "at a distance of 4 needs a crop of at least 44, not 24",
        ),
        (("--painting-size", "8"), "vgg19 at a distance of 2 needs a painting_size of at least 18, not 8"),
        (("--photo-size", "64", "--clip-share", "0.5"), "photo_size is at least the crop, 224, not 64"),
        (("--discriminator-scales", "8"), "8 discriminator_scales need a crop of at least 1024, not 224"),
        (("--style-features", "[]"), "style_features names no network; give one, or style = 0"),
        (("--content-features", "[]"), "content_features names no network; give one, or content = 0"),
        (("--distances", '["1"]'), "distances is a int, not '1'"),
        (("--styles", "5"), r"styles are \[\[styles\]\] tables, not 5"),
        (("--title", "7"), "title is a str, not 7"),
    ],
)
def test_bad_overrides_are_named(path, override, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(path, parse_overrides(override))


@pytest.mark.parametrize(
    "override",
    [
        ("--crop", "32"),
        ("--crop", "16", "--content", "0", "--style-features", '["generator"]', "--content-features", "[]"),
        ("--photo-size", "64"),
        ("--discriminator-scales", "5"),
    ],
)
def test_the_smallest_recipes_that_can_train_are_taken(path, override):
    assert load_recipe(path, parse_overrides(override))


@pytest.mark.parametrize("arguments", [("steps", "7"), ("--steps",)])
def test_overrides_come_in_pairs(arguments):
    with pytest.raises(ValueError, match="steps"):
        parse_overrides(arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "not a TOML file"),
        ('name = "x"', r"\[\[styles\]\]"),
        (MINIMAL.replace('name = "test"', ""), "name"),
        (MINIMAL.replace("1900", '"1900"'), "year is a int"),
        (MINIMAL + MINIMAL[MINIMAL.index("[[") :], "two styles have the same name"),
        (
            MINIMAL.replace('[[styles]]\nname = "test"', '[[styles]]\nname = ""'),
            "the name of a style is empty",
        ),
        (MINIMAL + "broad = 1.5", "broad is from 0 to 1, not 1.5"),
        (MINIMAL + "painting_size = -5", "painting_size is 0, or a number of pixels, not -5"),
        (
            MINIMAL + 'cut = "dots"',
            "cut is one of nothing, facets, planes, rings, figures, sweeps, panes, not 'dots'",
        ),
        ("enlarged = 3\n" + MINIMAL, "enlarged is 1 or 2, not 3"),
        ("enlarged = 2\ncycle = 1.0\n" + MINIMAL, "with a cycle, pictures are not enlarged"),
        ("simplified = false\n" + MINIMAL + "spared = 0.5", "spared, cut and broad need simplified = true"),
    ],
)
def test_a_broken_recipe_is_named(tmp_path, text, message):
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        load_recipe(path)
    assert "broken.toml" in str(error.value)


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.toml: no such recipe"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        load_recipe(tmp_path)


def test_what_a_recipe_extends_is_what_it_does_not_say(path):
    wider = path.with_name("wider.toml")
    wider.write_text(f'extends = "{path.name}"\nname = "wider"\nblocks = 7\n')
    base = load_recipe(path)
    assert load_recipe(wider) == dataclasses.replace(base, name="wider", blocks=7)
    assert load_recipe(wider, {"blocks": "2"}).blocks == 2
    again = path.with_name("again.toml")
    path.with_name("base.toml").write_text(MINIMAL + "\n[nothing]\n")
    for text, message in (
        ('extends = "base.toml"', r"base\.toml: unknown field 'nothing'"),
        ('extends = "base.toml"\nnothing = 1', r"base\.toml: unknown field 'nothing'"),
        ('extends = "recipe.toml"\nnothing = 1', r"again\.toml: unknown field 'nothing'"),
        ('extends = "wider.toml"', r"again\.toml: extends .*wider\.toml, which extends another"),
        ('extends = "none.toml"', r"none\.toml: no such recipe"),
        ("extends = 3", r"again\.toml: extends is a str, not 3"),
        ('extends = "recipe.toml"\nstyles = ["none"]', r"recipe\.toml has no style 'none'; there are "),
    ):
        again.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_recipe(again)


def test_a_recipe_may_take_over_some_of_the_styles_that_it_extends():
    folder = Path(str(files("training").joinpath("recipes")))
    live, studio = (load_recipe(folder / f"{name}.toml") for name in ("live", "studio"))
    assert 1 < len(studio.styles) < len(live.styles)
    assert set(studio.styles) < set(live.styles)
    assert studio.changed() == build_recipe(studio.changed(), "studio").changed()


def test_the_recipe_that_is_shown_is_one_of_the_paintings_that_are_shown(tmp_path):
    text = (Path(__file__).parent.parent / "docs" / "making_a_style.md").read_text("utf-8")
    shown, tree = re.search(r"```toml\n(.*?)```\n\n```\n(.*?)```", text, re.DOTALL).groups()
    (tmp_path / "mine.toml").write_text(shown, "utf-8")
    shutil.copy(files("training").joinpath("recipes", "pointillism.toml"), tmp_path)
    recipe = load_recipe(tmp_path / "mine.toml")
    (style,) = recipe.styles
    assert (recipe.name, style.name, len(style.reals)) == ("mine", "harbour", 2)
    named = [Path(name).name for name in (style.painting, *style.reals)]
    assert [word.strip("/") for word in re.findall(r"─ (\S+)", tree)] == ["harbour", *named]


def test_the_digest_names_the_recipe(path):
    recipe = load_recipe(path)
    assert recipe.digest() == load_recipe(path).digest()
    assert recipe.digest() != dataclasses.replace(recipe, steps=recipe.steps + 1).digest()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("style", "LOW..HIGH"),
        ("style=5", "LOW..HIGH"),
        ("style=a..b", "LOW..HIGH"),
        ("style=9..5", "rise"),
        ("style=1..inf", "finite"),
    ],
)
def test_bounds_of_a_search_are_checked(argument, message):
    assert parse_ranges(("style=5..100", "content=0.3..3")) == {"style": (5, 100), "content": (0.3, 3)}
    with pytest.raises(ValueError, match=message):
        parse_ranges((argument,))


def test_bundled_recipes_load():
    recipes = [
        entry for entry in files("training").joinpath("recipes").iterdir() if entry.name.endswith(".toml")
    ]
    assert recipes
    for entry in recipes:
        if entry.name == "quick.toml":  # for the paintings of whoever runs `fauve learn`
            recipe = quick_recipe([Path("a_painting.jpg"), Path("b.jpg")], name="mine", steps=7)
            assert (recipe.name, recipe.title, recipe.steps) == ("mine", "a painting", 7)
            assert Path(recipe.styles[0].painting).name == "a_painting.jpg"
            assert len(recipe.styles[0].reals) == 1
            assert recipe.styles[0].canvas == ("strokes",)
            assert not recipe.styles[0].cut
        else:
            assert isinstance(load_recipe(entry), Recipe)  # type: ignore[arg-type]


def test_a_painting_may_be_learned_by_any_coat_and_is_cut_along_broad_ones():
    for coat in COATS:
        (style,) = quick_recipe([Path("a.jpg")], name="mine", canvas=coat).styles
        assert style.canvas == (coat,)
        assert style.cut == (coat if coat in CUTTING else "")
        assert 0.5 <= style.spared <= 0.9, "faces stay whole"


def test_a_calm_style_is_the_same_recipe_with_more_weight_on_stillness():
    usual, calm = (quick_recipe([Path("a.jpg")], name="mine", calm=calm) for calm in (False, True))
    assert calm.temporal > 2 * usual.temporal
    assert dataclasses.replace(calm, **{name: getattr(usual, name) for name in CALM}) == usual


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_a_name_that_no_pack_can_hold_is_refused_before_anything_is_learned():
    with pytest.raises(ValueError, match="this name is not UTF-8, as the text of a pack; rename it"):
        quick_recipe([Path(os.fsdecode(b"caf\xe9.jpg"))], name="mine")


def test_the_time_left_does_not_count_the_reading_of_the_material(path, capsys, monkeypatch):
    progress = _Progress(load_recipe(path, {"steps": "61"}))
    for step, now in ((1, 1000.0), (2, 1002.0)):
        monkeypatch.setattr("time.monotonic", lambda now=now: now)
        progress(step, {"style": 0.5})
    assert capsys.readouterr().err.splitlines() == [
        "1/61  style 0.500",
        "2/61  2.00 s/step  2 min left  style 0.500",
    ]


def test_a_recipe_is_read_without_torch():
    # `fauve train --help` and a wrong recipe do not wait for it, nor need it.
    code = "import sys, training.cli; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
