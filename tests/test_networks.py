import pytest
import torch
import torch.nn.functional as F

from training.brushwork import COATS, CUTTING, LYING, STEP, WAYS, grain
from training.flow import identity_grid
from training.networks import (
    CORRECTED,
    CUT,
    FLAT,
    MARGIN,
    MIDDLE,
    MOST,
    PATCH,
    WHOLE,
    Canvas,
    Course,
    Cut,
    DenseDiscriminator,
    Detail,
    Exposure,
    Generator,
    Kuwahara,
    LinearUpsample,
    PatchDiscriminator,
    UpsampleConv,
    UpsampleToImage,
    binomial,
    eased,
    inner,
    interpolating,
    twice,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def interpolated_convolution(x, weight):
    """Linear interpolation by 2 (zeros stuffed, then the binomial filter), then `weight`, written out."""
    n, channels, height, width = x.shape
    stuffed = torch.zeros(n, channels, 2 * height, 2 * width)
    stuffed[..., ::2, ::2] = x
    row = torch.tensor([0.5, 1.0, 0.5])
    binomial = torch.outer(row, row).repeat(channels, 1, 1, 1)
    interpolated = F.conv2d(F.pad(stuffed, (4, 4, 4, 4)), binomial, groups=channels)
    return F.conv2d(interpolated, weight)


@pytest.mark.parametrize("kernel", [2, 4])
def test_transposed_convolution_equals_interpolation_and_convolution(kernel):
    x, weight = torch.randn(1, 5, 7, 9), torch.randn(3, 5, kernel, kernel)
    folded = F.conv_transpose2d(x, interpolating(weight), stride=2, padding=kernel // 2)
    margin = 3 - kernel // 2
    expected = interpolated_convolution(x, weight)[..., margin : margin + 14, margin : margin + 18]
    torch.testing.assert_close(folded, expected, atol=1e-5, rtol=1e-5)


def test_image_phases_equal_the_transposed_convolution():
    layer = UpsampleToImage(5)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 5, 6, 4)
    wider = F.pad(x, (1,) * 4, mode="replicate")
    expected = F.conv_transpose2d(wider, interpolating(layer.weight), layer.bias, stride=2, padding=4)
    torch.testing.assert_close(F.pixel_shuffle(layer(x), 2), expected, atol=1e-5, rtol=1e-5)


def test_upsampling_a_flat_field_leaves_no_checkerboard():
    layer = UpsampleConv(4, 3, styles=1)
    torch.nn.init.normal_(layer.weight)
    painted = layer.eval()(torch.ones(1, 4, 8, 8), torch.ones(1, 1))
    torch.testing.assert_close(painted, painted[..., :1, :1].expand_as(painted), atol=1e-5, rtol=1e-5)


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


def patches_of(generator, image, weights=None):
    """What there is of `image` [n, 3, h, w] to paint over, of the same size; whatever the style if no weights
    are given."""
    weights = torch.zeros(1, generator.styles) if weights is None else weights
    return F.pixel_shuffle(inner(generator.base(image, weights)[0]), 2)


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


def test_discriminator_scores_each_style_by_itself():
    discriminator = PatchDiscriminator(styles=2)
    image = torch.rand(3, 3, 64, 48)
    (score,), features = discriminator(image, style=torch.tensor([1, 1, 1]))
    assert score.shape == (3, 1, 8, 6)
    assert [tuple(x.shape[1:]) for x in features] == [(32, 32, 24), (64, 16, 12), (128, 8, 6)]
    (other,), _ = discriminator(image, style=torch.tensor([0, 1, 1]))
    assert not torch.allclose(score[0], other[0])
    torch.testing.assert_close(score[1:], other[1:], atol=1e-2, rtol=1e-2)


def test_a_discriminator_of_scales_judges_the_picture_and_smaller_ones():
    scores, features = PatchDiscriminator(1, scales=3)(torch.rand(2, 3, 64, 64), torch.zeros(2).long())
    assert [tuple(score.shape) for score in scores] == [(2, 1, 8, 8), (2, 1, 4, 4), (2, 1, 2, 2)]
    assert len(features) == 9


def test_a_dense_discriminator_gives_one_score_for_a_small_picture():
    discriminator = DenseDiscriminator(2, side=32)
    (score,), features = discriminator(torch.rand(3, 3, 32, 32), torch.tensor([0, 1, 1]))
    assert score.shape == (3, 1, 1, 1)
    assert [tuple(x.shape) for x in features] == [(3, 512, 1, 1), (3, 256, 1, 1)]


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


def test_noise_and_small_detail_go_and_edges_stay():
    generator, steps = Generator(1), torch.arange(64) >= 32
    edge = (MIDDLE - 0.3 + 0.6 * steps.float()).expand(1, 3, 64, 64)
    noise = torch.randn(1, 3, 64, 64) * 4 / 255
    left = patches_of(generator, edge + noise) - edge
    assert torch.cat([left[..., :28], left[..., 36:]], -1).std() < 0.25 * noise.std()
    # Box filters of the same windows are off by 0.25 beside the edge, and by 0.1 two pixels further.
    beside = left.abs().mean((0, 1, 2))
    assert beside[28:36].max() < 0.2
    assert beside[[29, 34]].max() < 0.01
    # Two pixels wide, as leaves are: gone but for a seventh.
    comb = (0.2 + 0.6 * (torch.arange(64) // 2 % 2).float()).expand(1, 3, 64, 64)
    assert patches_of(generator, comb)[..., 8:-8].std() < 0.15 * comb.std()


def test_a_style_may_have_broader_patches():
    generator, steps = Generator(2, broad=[1.0, 0.0]), torch.arange(128)
    broad, plain = torch.eye(2)[:, None]
    # Stripes of four places at half the size, where a window fits in, and of two at a quarter.
    comb = (MIDDLE - 0.2 + 0.4 * (steps // 8 % 2).float()).expand(1, 3, 64, 128)
    left = [patches_of(generator, comb, weights)[..., 16:-16].std() for weights in (broad, plain)]
    assert left[0] < 0.25 * comb.std() < 0.8 * comb.std() < left[1]
    edge = (MIDDLE - 0.3 + 0.6 * (steps >= 64).float()).expand(1, 3, 64, 128)
    off = (patches_of(generator, edge, broad) - edge).abs().mean((0, 1, 2))
    assert off[56:72].max() < 0.3
    assert torch.cat([off[:56], off[72:]]).max() < 0.01
    image = torch.rand(1, 3, 64, 128)
    assert torch.equal(patches_of(generator, image, plain), patches_of(generator, image))
    half, both = patches_of(generator, image, (broad + plain) / 2), patches_of(generator, image, broad)
    assert (half - both).abs().mean() > 0.01


def test_a_dim_picture_is_lightened_by_the_odds_of_its_values():
    expose = Exposure()
    dim = torch.rand(2, 3, 16, 24) * torch.tensor([0.4, 0.02]).view(2, 1, 1, 1)
    lit = expose(dim - 0.5) + 0.5
    light = (dim.mean((2, 3)) @ torch.tensor([0.2126, 0.7152, 0.0722])).view(2, 1, 1, 1)
    gain = ((light / (1 - light)) / (MIDDLE / (1 - MIDDLE))) ** -CORRECTED
    assert 1.5 < gain[0] < MOST < gain[1]
    gain[1] = MOST
    torch.testing.assert_close(lit / (1 - lit), gain * dim / (1 - dim), atol=1e-4, rtol=1e-3)


def test_bars_beside_a_picture_do_not_lighten_it():
    expose = Exposure()
    picture = torch.rand(1, 3, 16, 12) * 0.5 - 0.5
    barred = F.pad(picture, (20, 20, 4, 4), value=-0.5)
    lit = expose(barred)[..., 4:-4, 20:-20]
    torch.testing.assert_close(lit, expose(picture), atol=2e-3, rtol=0)
    assert (lit - picture).mean() > 0.05
    assert torch.equal(expose(torch.full((1, 3, 8, 8), -0.5)), torch.full((1, 3, 8, 8), -0.5))


def test_black_and_white_and_a_picture_of_middle_light_stay_as_they_are_exposed():
    expose = Exposure()
    middle = torch.full((1, 3, 8, 8), MIDDLE - 0.5)
    torch.testing.assert_close(expose(middle), middle)
    ends = torch.full((1, 3, 8, 8), -0.5)
    assert torch.equal(expose(ends), ends)
    ends[..., 0] = 0.5
    torch.testing.assert_close(expose(ends), ends)
    bright = torch.full((1, 3, 8, 8), 0.4)
    torch.testing.assert_close(expose(bright), torch.full((1, 3, 8, 8), 0.371), atol=1e-3, rtol=0)


def test_what_is_flat_is_averaged_over_all_windows_and_what_is_not_over_the_flattest():
    simplify = Kuwahara()
    faint = torch.rand(1, 3, 20, 24) * 0.02 + 0.5
    mean = F.avg_pool2d(F.avg_pool2d(faint, PATCH, 1), PATCH, 1)
    torch.testing.assert_close(simplify(faint), mean, atol=2e-4, rtol=0)
    # Black and white far above `FLAT`: beside the edge, the windows of one side outweigh those across it.
    edge = (torch.arange(12) >= 6).float().expand(1, 3, 9, 12)
    across = FLAT / (FLAT + 2 / 9)
    assert (simplify(edge) - edge[..., 2:-2, 2:-2]).abs().max() < 2 * across**3
    assert torch.equal(simplify(torch.zeros(1, 3, 5, 5)), torch.zeros(1, 3, 1, 1))


def test_detail_is_what_there_is_to_see_around_a_place():
    detail = Detail()
    assert not detail(torch.full((1, 3, 40, 40), 0.3)).any()
    # Stripes of 30 levels up and down from each other, four pixels wide, far beyond `SEEN`.
    striped = torch.zeros(1, 3, 208, 208)
    striped[..., 104:] = (torch.arange(104) // 4 % 2 - 0.5) * 60 / 255
    seen = detail(striped)[0, 0]
    assert seen.shape == (100, 100)
    assert not seen[:, : 50 - 10].any()
    assert (seen[:, 50 + 10 :] > 0.8).all()
    assert (seen.diff() >= -1e-3).all()
    assert seen.diff().max() < 0.15
    torch.testing.assert_close(detail(striped + 0.2)[0, 0], seen, atol=1e-4, rtol=0)
    moved = detail(striped.roll(8, -1))[0, 0]
    torch.testing.assert_close(moved[:, 20:-20], seen[:, 16:-24])


def test_there_is_no_detail_in_a_bright_sky_not_even_with_few_bits():
    sky = torch.linspace(0.2, 0.5, 320).expand(1, 3, 240, 320)
    assert Detail()(sky).max() < 0.01
    assert Detail().bfloat16()(sky.bfloat16())[:, 0].max() < 0.05


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


def test_twice_as_large_is_linear_interpolation():
    image = torch.rand(1, 3, 12, 10)
    expected = F.interpolate(image, scale_factor=2.0, mode="bilinear")[..., 2:-2, 2:-2]
    torch.testing.assert_close(F.pixel_shuffle(LinearUpsample()(image), 2), expected)


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


def canvas_of(coats, channels=12):
    return Canvas(grain(192).colours, coats, channels)


CORNER = torch.zeros(2, dtype=torch.int64)


def one_way(way: int = 0) -> torch.Tensor:
    """Touches of one direction, everywhere."""
    return torch.eye(WAYS)[way].view(1, WAYS, 1, 1)


def test_the_canvas_lies_still_under_pictures_of_any_size_and_vanishes_with_the_strength():
    canvas = canvas_of([tuple(COATS)] * 2)
    small, large = torch.zeros(1, 12, 5, 7), torch.zeros(1, 12, 214, 300)
    weights = torch.tensor([[0.3, 0.7]])
    laid = canvas(large, weights, CORNER, one_way())
    assert torch.equal(laid[..., :5, :7], canvas(small, weights, CORNER, one_way()))
    torch.testing.assert_close(laid[..., 192:, :], laid[..., :22, :])
    share = torch.einsum("s,scl->cl", weights[0], canvas.share)
    expected = torch.einsum("cl,lhw->chw", share, canvas.grain[0, : 3 * len(COATS)] * STEP)
    torch.testing.assert_close(laid[0, :, :192, :192], expected)
    assert not canvas(large, weights * 0, CORNER, one_way()).any()
    moved = canvas(large, weights, torch.tensor([5, -3]), one_way())
    torch.testing.assert_close(moved[..., :180, 3:190], laid[..., 5:185, :187])


def test_relief_lies_where_the_colours_of_its_touches_do():
    canvas = Canvas(grain(192).relief, [tuple(COATS)], 1)
    x, weights = torch.zeros(1, 1, 40, 60), torch.ones(1, 1)
    laid, moved = (canvas(x, weights, corner, one_way(1)) for corner in (CORNER, torch.tensor([5, 3])))
    torch.testing.assert_close(moved[..., :30, :54], laid[..., 10:, 6:])


def direction(relief: torch.Tensor) -> float:
    """The angle that strokes of `relief` [h, w] lie at, down from the right, in degrees from 0 to 180."""
    down, right = torch.gradient(relief)
    twice_it = torch.atan2((-2 * right * down).mean(), (down.square() - right.square()).mean())
    return float(torch.rad2deg(twice_it / 2)) % 180


@pytest.mark.parametrize("way", range(WAYS))
@pytest.mark.parametrize("coat", LYING)
def test_there_are_touches_of_every_direction(coat, way):
    canvas = Canvas(grain(192).relief, [(coat,)], 1)
    laid = canvas(torch.zeros(1, 1, 384, 384), torch.ones(1, 1), CORNER, one_way(way))
    expected = 180 * way / WAYS
    assert abs((direction(laid[0, 0].detach()) - expected + 90) % 180 - 90) < 8
    moved = canvas(torch.zeros(1, 1, 384, 384), torch.ones(1, 1), torch.tensor([5, 3]), one_way(way))
    torch.testing.assert_close(moved[..., :-10, :-6], laid[..., 10:, 6:], msg="as a whole")


@pytest.mark.parametrize("angle", range(0, 180, 15))
def test_touches_lie_along_what_there_is_to_see(angle):
    down, right = torch.meshgrid(torch.arange(208.0), torch.arange(208.0), indexing="ij")
    turn = torch.deg2rad(torch.tensor(float(angle)))
    stripes = 0.3 * torch.sin((down * turn.cos() - right * turn.sin()) / 8)
    edges = Detail()(stripes.expand(1, 3, -1, -1))[:, 1:]
    found = torch.rad2deg(torch.atan2(edges[0, 1], edges[0, 0]) / 2)
    assert ((found - angle + 90) % 180 - 90).abs().max() < 4
    assert edges.square().sum(1).sqrt().min() > 0.5
    ways = Course(grain(192).course)(edges.shape[2:], CORNER, edges)
    torch.testing.assert_close(ways.square().sum(1), torch.ones(1, *edges.shape[2:]), atol=0.01, rtol=0)
    assert (ways > 0).sum(1).max() <= 2, "no more than two directions over one another"
    if angle % 30 == 0:
        assert ways[:, angle // 30].min() > 0.8


def test_where_there_is_nothing_to_see_touches_lie_as_the_canvas_has_them_whatever_the_noise():
    own = Course(grain(192).course)
    wall = 0.2 + 4 / 255 * torch.randn(1, 3, 208, 208, generator=torch.Generator().manual_seed(1))
    edges = Detail()(wall)[:, 1:]
    size = edges.shape[2:]
    expected = own(size, CORNER, None)
    assert (own(size, CORNER, edges) - expected).abs().mean() < 0.1
    moved = own(size, torch.tensor([5, -3]), None)
    torch.testing.assert_close(moved[..., :-5, 3:], expected[..., 5:, :-3])


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


PLACES = (2 * MARGIN + 96, 2 * MARGIN + 128)


def numbered_places():
    """A picture whose values tell their row, their column and nothing, [1, 3, *PLACES]."""
    rows, columns = (torch.arange(float(side)) for side in PLACES)
    rows, columns = rows[:, None].expand(PLACES), columns.expand(PLACES)
    return torch.stack([rows, columns, torch.zeros(PLACES)])[None]


def nothing_to_see(share=0.0):
    return torch.full((1, 1, 48, 64), share)


@pytest.mark.parametrize("coat", CUTTING)
def test_a_picture_is_cut_along_the_touches_of_its_style(coat):
    cut, places = Cut(grain(192).cuts, [coat, ""]), numbered_places()
    corner = torch.tensor([3, -5])
    pieces = cut(places, nothing_to_see(), torch.tensor([[1.0, 0.0]]), corner)
    rows, columns = (
        (torch.arange(side) - MARGIN + 2 * first) % 384 for side, first in zip(PLACES, (3, -5), strict=True)
    )
    own = torch.from_numpy(grain(192).cuts[list(CUTTING).index(coat)])[:, rows][:, :, columns]
    expected = places[0, :2] + own
    for found, wanted, side in zip(pieces[0], expected, PLACES, strict=False):
        assert torch.equal(found, wanted.clamp(0, side - 1)), "or what lies at the edge"
    assert (pieces != places).float().mean() > 0.25
    # Of half of it, or half strength, half as far.
    half = cut(places, nothing_to_see(), torch.tensor([[0.5, 0.5]]), corner)
    assert torch.equal(half[0, 0], (places[0, 0] + (own[0] / 2).round()).clamp(0, PLACES[0] - 1))
    for weights in (torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2)):
        assert torch.equal(cut(places, nothing_to_see(), weights, corner), places)


def test_where_there_is_much_to_see_a_picture_stays_whole():
    cut, places = Cut(grain(192).cuts, ["facets"]), numbered_places()
    arguments = torch.ones(1, 1), CORNER
    pieces = cut(places, nothing_to_see(CUT), *arguments)
    assert torch.equal(cut(places, nothing_to_see(WHOLE), *arguments), places)
    between = cut(places, nothing_to_see((WHOLE + CUT) / 2), *arguments)
    torch.testing.assert_close(between, (pieces + places) / 2)


def test_few_bits_cut_a_picture_along_the_same_places():
    cut, places = Cut(grain(192).cuts, ["figures"]), torch.rand(1, 3, *PLACES).bfloat16()
    pieces = cut(places, nothing_to_see().bfloat16(), torch.ones(1, 1).bfloat16(), CORNER)
    expected = cut(places.float(), nothing_to_see(), torch.ones(1, 1), CORNER)
    # Another place has another value.
    torch.testing.assert_close(pieces.float(), expected, atol=0.01, rtol=0)


def test_a_picture_that_is_turned_takes_its_cuts_along():
    generator = Generator(1, cuts=["planes"])
    smooth = F.interpolate(torch.rand(1, 3, 9, 9), (128, 128), mode="bicubic")
    photo = MIDDLE + 0.05 * (smooth - smooth.mean())
    positions, mix = identity_grid(1, 128, 128), torch.ones(1, 1)
    grid = torch.stack([-positions[..., 1], positions[..., 0]], -1)
    cut = generator.base(photo, mix)[0]
    with generator.canvas_carried(grid, photo):
        turned = generator.base(photo.rot90(1, (2, 3)), mix)[0]
    blocks, expected = (F.pixel_shuffle(inner(each), 2)[..., 8:-8, 8:-8] for each in (turned, cut))
    whole = patches_of(generator, photo)[..., 8:-8, 8:-8]
    off = (blocks - expected.rot90(1, (2, 3))).abs().mean()
    assert off < 0.1 * (expected - whole).abs().mean()


def test_what_alternates_from_place_to_place_is_smoothed_away():
    rows = torch.arange(6)[:, None] % 2
    for lattice in (rows, rows.T, (rows + rows.T) % 2):
        x = lattice.float().expand(1, 2, 6, 6)
        assert binomial(x)[..., 1:-1, 1:-1].std() < 1e-6
    ramp = torch.arange(6.0).expand(1, 2, 5, 6)
    torch.testing.assert_close(binomial(ramp)[..., 1:-1], ramp[..., 1:-1])


def test_a_style_takes_only_its_coats_of_the_canvas():
    x = torch.zeros(1, 5, 7, 6)
    canvas = canvas_of([("dots",), ("rings", "strokes"), ()], 5)
    for style, names in enumerate([["dots"], ["rings", "strokes"], []]):
        taken = canvas(x, torch.eye(3)[style, None], CORNER, one_way())[0]
        coats = (canvas.grain[0, :, :7, :6] * STEP).unflatten(0, (-1, 3))
        expected = sum(
            (
                torch.einsum("cl,lhw->chw", canvas.share[style, :, 3 * k : 3 * k + 3], coats[k])
                for k in map(list(COATS).index, names)
            ),
            torch.zeros(5, 7, 6),
        )
        torch.testing.assert_close(taken, expected)


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


def test_a_flat_picture_gets_strokes():
    generator = randomised(Generator(1))
    with torch.no_grad():
        painted = generator(torch.full((1, 3, 64, 64), 0.5), torch.ones(1, 1), torch.ones(1))
        for canvas in generator.canvases:
            canvas.share.zero_()
        without = generator(torch.full((1, 3, 64, 64), 0.5), torch.ones(1, 1), torch.ones(1))
    assert painted.std((2, 3)).min() > 10 * without.std((2, 3)).max()
