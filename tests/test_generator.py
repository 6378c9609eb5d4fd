"""The generator: strength, mixes, styles that are added, and trunks that grow."""

import pytest
import torch

from tests.test_canvas import CORNER, one_way
from tests.test_simplify import patches_of
from training.flow import identity_grid
from training.generator import Generator, eased
from training.layers import twice
from training.simplify import MIDDLE

pytestmark = pytest.mark.usefixtures("seeded")


def randomised(generator):
    """`generator` with conditional affines and a last layer that do something, and settled statistics."""
    for name, parameter in generator.named_parameters():
        if "affine" in name or "to_image" in name:
            torch.nn.init.normal_(parameter, std=0.1)
        if ".second." in name and name.endswith("norm.weight"):
            torch.nn.init.ones_(parameter)
    styles = generator.styles
    for _ in range(3):
        generator.train()(torch.rand(2, 3, 32, 32), torch.full((2, styles), 1 / styles), torch.ones(2))
    return generator.eval()


def test_generator_begins_as_the_identity_or_with_flat_patches():
    image = torch.rand(1, 3, 64, 64)
    once = torch.ones(1, 1), torch.ones(1)
    assert (Generator(1, simplified=False)(image, *once) - image).abs().mean() < 0.02
    generator = Generator(1)
    patches = patches_of(generator, image)
    assert (generator(image, *once) - patches).abs().mean() < 0.02
    assert (patches - image).abs().mean() > 0.1


@pytest.mark.parametrize("size", [(8, 8), (40, 64)])
@pytest.mark.parametrize("simplified", [True, False])
def test_strength_zero_is_the_identity(size, simplified):
    generator = randomised(Generator(2, simplified=simplified))
    image = torch.rand(1, 3, *size)
    mix = torch.tensor([[0.3, 0.7]])
    assert torch.equal(generator(image, mix, torch.zeros(1)), image)
    assert not torch.allclose(generator(image, mix, torch.ones(1)), image, atol=0.01)


def test_each_style_paints_its_own_picture_and_a_mix_another():
    generator = randomised(Generator(2))
    image = torch.rand(1, 3, 32, 32).expand(3, -1, -1, -1)
    mix = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    first, second, blend = generator(image, mix, torch.ones(3))
    for one, other in ((first, second), (first, blend), (second, blend)):
        assert (one - other).abs().mean() > 1e-3


def test_cost_of_the_bundled_size():
    assert Generator(1).macs_per_pixel() == 7101
    assert Generator(1, simplified=False).macs_per_pixel() == 7152
    assert Generator(1, branches=True).macs_per_pixel() == 7101, "what is folded away does not count"


def test_depth_and_skips_are_the_recipes():
    deep = randomised(Generator(1, widths=(8, 12, 16, 20), blocks=1))
    assert deep.multiple == 16
    image = torch.rand(1, 3, 48, 32)
    assert [tuple(x.shape[1:]) for x in deep.features(image)] == [
        (8, 24, 16),
        (12, 12, 8),
        (16, 6, 4),
        (20, 3, 2),
    ]
    assert deep(image, torch.ones(1, 1), torch.ones(1)).shape == image.shape
    shallow = randomised(Generator(1, widths=(8, 12), blocks=1, skips=False))
    assert shallow.multiple == 4
    assert shallow(image, torch.ones(1, 1), torch.ones(1)).shape == image.shape
    # Without skips, nothing but the lowest level reaches the painting.
    weights = torch.ones(1, 1)
    lowest = [torch.rand(1, 8, 8, 8), torch.rand(1, 12, 4, 4)]
    other = [torch.rand(1, 8, 8, 8), lowest[1]]
    assert torch.equal(shallow.to_residual(lowest, weights), shallow.to_residual(other, weights))
    shallow.skips = True
    assert not torch.equal(shallow.to_residual(lowest, weights), shallow.to_residual(other, weights))


def test_a_canvas_gives_way_to_detail_as_far_as_its_style_spares_it():
    spared = Generator(2, spared=[0.25, 0.75])
    plain = Generator(2)
    plain.load_state_dict(spared.state_dict())
    image, full = torch.rand(2, 3, 64, 48), torch.ones(2)
    base, detail = spared.base(image, torch.zeros(1, 2))
    assert detail.shape == (2, 3, 16, 12)
    detail = detail[:, :1]
    assert detail.min() > 0.5
    mix = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    with torch.no_grad():
        bare = [layer.relu() for layer in (spared.encode[0](base, mix), plain.encode[0](base, mix))]
        marks = [
            generator.paint(image, mix, full)[1][0] - first
            for generator, first in zip((spared, plain), bare, strict=True)
        ]
    left = 1 - torch.tensor([0.25, 0.5])[:, None, None, None] * detail.repeat_interleave(
        2, 2
    ).repeat_interleave(2, 3)
    torch.testing.assert_close(marks[0], marks[1] * left, atol=1e-5, rtol=1e-4)


def test_a_style_is_nearly_all_there_below_half_strength_and_most_of_the_colours_of_its_canvas():
    strengths = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    there = eased(strengths)
    assert (there[0], there[-1]) == (0, 1)
    assert (there.diff() > 0).all()
    assert 0.85 < there[1] < there[2] < 1
    generator = randomised(Generator(1))
    mix, corner = torch.ones(1, 1), torch.zeros(2, dtype=torch.int64)
    image = torch.full((1, 3, 64, 64), MIDDLE)
    with torch.no_grad():
        for strength in (0.5, 1.0):
            levels = generator.paint(image, mix, torch.full((1,), strength))[1]
            weights, held = mix * eased(torch.tensor(strength)), torch.full((1, 12, 34, 34), MIDDLE)
            for level, (layer, canvas) in enumerate(
                zip(generator.encode[:2], generator.canvases, strict=True)
            ):
                bare = layer(held, weights).relu()
                ways = generator.course((16, 16), corner, None)
                shown = (weights, mix * (1 - (1 - strength) ** 2))[level]
                held = bare + canvas(bare, shown, corner, ways if level else twice(ways))
                torch.testing.assert_close(levels[level], held)


def test_training_lays_all_of_the_canvas_on_another_place():
    generator = randomised(Generator(1))
    image, mix, full = torch.full((1, 3, 64, 64), 0.5), torch.ones(1, 1), torch.ones(1)
    with torch.no_grad():
        before = generator.paint(image, mix, full)[1]
        generator.move_canvas(torch.Generator().manual_seed(0))
        after = generator.paint(image, mix, full)[1]
    for level in (0, 1):
        assert not torch.equal(before[level], after[level])


def test_the_canvas_can_be_carried_along_with_the_picture():
    generator = randomised(Generator(1))
    positions = identity_grid(1, 64, 64)
    turned = torch.stack([-positions[..., 1], positions[..., 0]], -1)
    for canvas, side in zip(generator.canvases, (32, 16), strict=True):
        x, weights, ways = torch.zeros(1, 16, side, side), torch.ones(1, 1), one_way(1)
        laid = canvas(x, weights, CORNER, ways)
        with generator.canvas_carried(turned, torch.zeros(1, 3, 64, 64)):
            torch.testing.assert_close(
                canvas(x, weights, CORNER, ways), laid.rot90(1, (2, 3)), atol=1e-4, rtol=1e-4
            )
        assert torch.equal(canvas(x, weights, CORNER, ways), laid)


def test_a_picture_that_is_turned_takes_its_touches_along():
    generator = randomised(Generator(1, coats=[("strokes",)]))
    down = torch.linspace(0, 12, 64).sin().view(1, 1, 64, 1)
    photo = (0.5 + 0.3 * down).expand(1, 3, 64, 64).contiguous()
    positions = identity_grid(1, 64, 64)
    grid = torch.stack([-positions[..., 1], positions[..., 0]], -1)
    weights = torch.ones(1, 1)

    def marks(image: torch.Tensor) -> torch.Tensor:
        base, detail = generator.base(image, torch.zeros(1, 1))
        bare, full = (generator.levels(base, detail, weights * share, weights * share)[0] for share in (0, 1))
        return full - bare

    with torch.no_grad():
        generator.encode[0].affine.scale.zero_()
        generator.encode[0].affine.shift.zero_()
        laid = marks(photo)
        with generator.canvas_carried(grid, photo):
            turned = marks(photo.rot90(1, (2, 3)))
        other = marks(photo.rot90(1, (2, 3)))
    torch.testing.assert_close(turned, laid.rot90(1, (2, 3)), atol=2e-3, rtol=1e-2)
    assert (other - turned).abs().mean() > 0.1 * laid.abs().mean()


def test_a_generator_that_begins_with_another_keeps_its_own_coats_and_takes_the_grain():
    before, after = Generator(2, coats=[("dots",), ()]), Generator(2, coats=[(), ("facets",)])
    for canvas in before.canvases:
        canvas.grain //= 2
        canvas.share.data += 1
    after.start_from(before.state_dict(), ["a", "b"], ["a", "b"])
    for old, new in zip(before.canvases, after.canvases, strict=True):
        assert torch.equal(new.grain, old.grain)
        assert torch.equal(new.share, old.share)
        assert not new.allowed[0].any()
        assert new.allowed[1].any()


def test_a_new_style_begins_as_those_that_paint_by_its_coats():
    before = randomised(Generator(3, coats=[("dots",), ("dots", "rings"), ("facets",)]))
    after = Generator(4, coats=[("rings",), ("facets",), ("dots",), ("sweeps",)])
    after.start_from(before.state_dict(), ["a", "b", "c"], ["new", "b", "other", "else"])
    old, new = (dict(each.named_parameters()) for each in (before, after))
    for name in ("encode.1.affine.scale", "canvases.1.share"):
        a, b, c = old[name]
        for begun, expected in zip(new[name], (b, b, (a + b) / 2, (a + b + c) / 3), strict=True):
            torch.testing.assert_close(begun, expected)


@pytest.mark.parametrize("branches", [(False, False), (False, True), (True, True)])
def test_a_wider_and_deeper_generator_begins_with_what_a_narrow_one_paints(branches):
    narrow = randomised(Generator(2, widths=(8, 12, 16), blocks=1, branches=branches[0]))
    wide = Generator(2, widths=(12, 16, 16), blocks=2, branches=branches[1])
    wide.start_from(narrow.state_dict(), ["a", "b"], ["a", "b"])
    wide.eval()
    inputs = torch.rand(1, 3, 32, 40), torch.tensor([[0.3, 0.7]]), torch.ones(1)
    torch.testing.assert_close(wide(*inputs), narrow(*inputs), atol=1e-5, rtol=0)
    wide(*inputs).square().mean().backward()
    assert wide.blocks[1].second.norm.weight.grad.abs().max() > 0, "the new block learns"
    assert wide.to_image.weight.grad[:, 8:].abs().max() > 0, "the new channels get a say"
    if branches[1]:
        assert wide.encode[1].branch.norm.weight.grad.abs().max() > 0, "and so do the new branches"
    with pytest.raises(ValueError, match="wider or deeper"):
        Generator(2, widths=(8, 16, 16), blocks=2).start_from(wide.state_dict(), ["a", "b"], ["a", "b"])
    with pytest.raises(ValueError, match="wider or deeper"):
        Generator(2, widths=(12, 16, 16), blocks=1).start_from(wide.state_dict(), ["a", "b"], ["a", "b"])
    with pytest.raises(ValueError, match="another number of widths"):
        Generator(2, widths=(12, 16, 16, 16), blocks=2).start_from(wide.state_dict(), ["a", "b"], ["a", "b"])
    fewer = wide.state_dict()
    fewer["canvases.0.grain"] = fewer["canvases.0.grain"][:, :-1]
    with pytest.raises(ValueError, match="another version's canvas"):
        Generator(2, widths=(12, 16, 16), blocks=2).start_from(fewer, ["a", "b"], ["a", "b"])
    fewer["canvases.0.allowed"] = fewer["canvases.0.allowed"][:, :-1]
    with pytest.raises(ValueError, match="another version's canvas"):
        Generator(2, widths=(12, 16, 16), blocks=2).start_from(fewer, ["a", "b"], ["a", "b"])


def test_a_generator_whose_touches_are_enlarged_begins_with_another_one_s_weights_on_its_own_canvas():
    before, enlarged = randomised(Generator(2)), Generator(2, enlarged=2)
    grains = {name: value.clone() for name, value in enlarged.state_dict().items() if name.endswith(".grain")}
    enlarged.start_from(before.state_dict(), ["a", "b"], ["a", "b"])
    for name, value in enlarged.state_dict().items():
        assert torch.equal(value, grains.get(name, before.state_dict()[name])), name
    with pytest.raises(ValueError, match="another version's canvas"):
        Generator(2).start_from(enlarged.state_dict(), ["a", "b"], ["a", "b"])
    image, mix = torch.rand(1, 3, 32, 40), torch.tensor([[1.0, 0.0]])
    assert torch.equal(enlarged.eval()(image, mix, torch.zeros(1)), image)


def test_a_flat_picture_gets_strokes():
    generator = randomised(Generator(1))
    with torch.no_grad():
        painted = generator(torch.full((1, 3, 64, 64), 0.5), torch.ones(1, 1), torch.ones(1))
        for canvas in generator.canvases:
            canvas.share.zero_()
        without = generator(torch.full((1, 3, 64, 64), 0.5), torch.ones(1, 1), torch.ones(1))
    assert painted.std((2, 3)).min() > 10 * without.std((2, 3)).max()
