"""The canvas: it lies still, its touches lie along what there is to see, styles take their coats of it."""

import pytest
import torch
import torch.nn.functional as F

from training.brushwork import COATS, LYING, STEP, WAYS, grain
from training.canvas import Canvas, Course
from training.layers import twice
from training.simplify import Detail

pytestmark = pytest.mark.usefixtures("seeded")


def canvas_of(coats, channels=12):
    return Canvas(grain(192).colours, coats, channels, 1)


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
    canvas = Canvas(grain(192).relief, [tuple(COATS)], 1, 2)
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
    canvas = Canvas(grain(192).relief, [(coat,)], 1, 2)
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


def test_enlarged_it_lies_as_before_under_a_picture_of_twice_the_size():
    """Seen from twice as far away, and wherever its corner is."""
    x, weights = torch.zeros(1, 3, 96, 96), torch.ones(1, 1)
    seen = []
    for enlarged in (1, 2):
        torch.manual_seed(0)
        canvas = Canvas(grain(192, enlarged).relief, [tuple(COATS)], 3, 2)
        course = Course(grain(192, enlarged).course, enlarged)
        corner, large = torch.tensor([7, -9]) * enlarged, F.interpolate(x, scale_factor=enlarged)
        ways = course([side // 2 for side in large.shape[-2:]], corner, None)
        seen.append(F.avg_pool2d(canvas(large, weights, corner, twice(ways)), enlarged).flatten())
    assert torch.corrcoef(torch.stack(seen))[0, 1] > 0.95


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
