"""What a picture is painted over: light, patches, pieces and detail, on pictures whose answer is known."""

import pytest
import torch
import torch.nn.functional as F

from tests.test_canvas import CORNER
from training.brushwork import CUTTING, grain
from training.flow import identity_grid
from training.generator import Generator
from training.layers import inner
from training.simplify import (
    CORRECTED,
    CUT,
    FLAT,
    MARGIN,
    MIDDLE,
    MOST,
    PATCH,
    WHOLE,
    Cut,
    Detail,
    Exposure,
    Kuwahara,
    Simplify,
    SimplifyEnlarged,
)

pytestmark = pytest.mark.usefixtures("seeded")


def patches_of(generator, image, weights=None):
    """What there is of `image` [n, 3, h, w] to paint over, of the same size; whatever the style if no weights
    are given."""
    weights = torch.zeros(1, generator.styles) if weights is None else weights
    return F.pixel_shuffle(inner(generator.base(image, weights)[0]), 2)


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


@pytest.mark.parametrize("style", [0, 1])
def test_a_picture_that_is_enlarged_has_the_patches_and_the_detail_of_the_smaller_one(style):
    rough = F.interpolate(torch.rand(1, 3, 18, 26) - 0.5, scale_factor=6.0, mode="bilinear")
    large = F.interpolate(rough, scale_factor=2.0, mode="bilinear")
    weights = torch.eye(2)[style, None]
    found = []
    for image, kind, enlarged in ((rough, Simplify, 1), (large, SimplifyEnlarged, 2)):
        simplify = kind(grain(192, enlarged).cuts, ["", ""], [0.0, 1.0])
        wide = F.pad(image, (MARGIN,) * 4, mode="replicate")
        patches, detail = simplify(wide, weights, CORNER)
        assert patches.shape[-2:] == tuple(side + 4 for side in image.shape[-2:])
        assert detail.shape[-2:] == tuple(side // 2 for side in image.shape[-2:])
        found.append((inner(inner(patches)), detail))
    (patches, detail), (large_patches, large_detail) = found
    assert (F.avg_pool2d(large_patches, 2) - patches).abs().mean() < 0.1 * (
        patches - rough
    ).abs().mean() + 0.01
    assert (F.avg_pool2d(large_detail, 2) - detail).abs().max() < 0.05


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
