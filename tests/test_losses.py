import cv2
import numpy as np
import pytest
import torch

from pipeline import flicker
from training import losses
from training.flow import (
    DisFlow,
    checked_flow,
    identity_grid,
    inside,
    normalised,
    random_warp,
    synthetic_pair,
    warp,
    with_sensor_noise,
)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def test_gram_is_the_mean_outer_product():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    expected = torch.tensor([[[2.5, 5.5], [5.5, 12.5]]])
    assert torch.equal(losses.gram(features), expected)


@pytest.mark.parametrize("statistic", losses.STATISTICS.values(), ids=losses.STATISTICS)
def test_style_distance_is_zero_for_the_same_statistics_only(statistic):
    features, whole = torch.rand(2, 8, 10, 10), [torch.ones(2, 1, 40, 40)]

    def distance(x):
        found, targets = (losses.statistics([each], whole, statistic) for each in (x, features))
        return losses.style(found, targets, whole)

    assert torch.equal(distance(features), torch.zeros(2))
    # Statistics know no places.
    torch.testing.assert_close(distance(features.flip(-1)), torch.zeros(2), atol=1e-6, rtol=0)
    assert (distance(features * 2) > 0.9).all()


@pytest.mark.parametrize("statistic", losses.STATISTICS.values(), ids=losses.STATISTICS)
def test_each_region_has_statistics_of_its_own(statistic):
    left, right = torch.rand(2, 5, 6, 4), torch.rand(2, 5, 6, 4)
    halves = torch.zeros(2, 2, 12, 16)
    halves[:, 0, :, :8], halves[:, 1, :, 8:] = 1, 1
    (found,) = losses.statistics([torch.cat([left, right], 3)], [halves], statistic)
    torch.testing.assert_close(found, torch.stack([statistic(left), statistic(right)], 1))
    # A region counts as much as it is large, and the other one nothing for it.
    thirds = halves.clone()
    thirds[:, 0, :, :], thirds[:, 1, :, :] = 0.25, 0.75
    changed = found.clone()
    changed[:, 0] *= 2
    torch.testing.assert_close(losses.style([changed], [found], [thirds]), torch.full((2,), 0.25))


def test_a_wall_is_calm_and_foliage_is_busy(rng):
    wall = torch.full((3, 40, 40), 0.5) + 0.004 * torch.randn(3, 40, 40, generator=rng)
    foliage = torch.rand(3, 40, 40, generator=rng)
    calm, busy = losses.regions(torch.stack([wall, foliage])).unbind(1)
    torch.testing.assert_close(calm + busy, torch.ones(2, 40, 40))
    assert calm[0].min() > 0.95
    assert busy[1].min() > 0.9
    # A painting is divided by what is calm for it.
    calm, busy = losses.regions(foliage[None], losses.local_variance(foliage[None]).median().sqrt()).unbind(1)
    assert abs(float(calm.mean()) - 0.5) < 0.05
    # Of one that is mostly bare ground, that is the ground.
    bare = torch.ones(1, 3, 64, 64)
    bare[..., :20, :20] = torch.rand(1, 3, 20, 20, generator=rng)
    calm, busy = losses.regions(bare, losses.local_variance(bare).median().sqrt()).unbind(1)
    assert calm[0, 40:, 40:].min() == 1
    assert busy[0, :20, :20].min() > 0.9


def test_moments_are_mean_and_deviation():
    features = torch.tensor([[[[1.0, 3.0]], [[5.0, 5.0]]]])
    torch.testing.assert_close(
        losses.moments(features), torch.tensor([[[2.0, 5.0], [1.0, 0.0]]]), atol=1e-3, rtol=0
    )


def test_content_distance_is_relative_to_the_target():
    target = torch.rand(2, 4, 5, 5)
    torch.testing.assert_close(losses.content(torch.zeros_like(target), target).mean(), torch.tensor(1.0))


def test_hinge_losses_push_scores_to_their_sides_of_the_margin():
    assert losses.hinge_discriminator([torch.full((1, 1, 2, 2), 2.0)], [torch.full((1, 1, 2, 2), -2.0)]) == 0
    assert losses.hinge_discriminator([torch.zeros(1, 1, 2, 2)], [torch.zeros(1, 1, 2, 2)]) == 1
    assert torch.equal(losses.hinge_generator([torch.full((2, 1, 3, 3), 0.5)]), torch.full((2,), -0.5))


def test_minimax_is_the_log_likelihood_of_the_right_answer():
    real, fake = [torch.tensor([0.3]).view(1, 1, 1, 1)], [torch.tensor([-1.2]).view(1, 1, 1, 1)]
    d_real, d_fake = torch.sigmoid(torch.tensor([0.3, -1.2]))
    expected = -(d_real.log() + (1 - d_fake).log())
    torch.testing.assert_close(losses.minimax_discriminator(real, fake), expected)
    torch.testing.assert_close(losses.minimax_generator(fake), (1 - d_fake).log()[None])


def test_least_squares_pulls_paintings_to_one_and_others_to_zero():
    ones, zeros = [torch.ones(2, 1, 2, 2)], [torch.zeros(2, 1, 2, 2)]
    assert losses.least_squares_discriminator(ones, zeros) == 0
    assert losses.least_squares_discriminator(zeros, ones) == 1
    assert torch.equal(losses.least_squares_generator(zeros), torch.full((2,), 0.5))


@pytest.mark.parametrize("name", losses.ADVERSARIAL)
def test_a_better_forgery_costs_the_generator_less_and_the_discriminator_more(name):
    discriminator, generator = losses.ADVERSARIAL[name]
    real, poor, good = ([torch.full((1, 1, 2, 2), value)] for value in (0.9, 0.1, 0.6))
    assert generator(good) < generator(poor)
    assert discriminator(real, good) > discriminator(real, poor)


def test_every_scale_counts_the_same():
    fine, coarse = torch.full((1, 1, 8, 8), 1.0), torch.full((1, 1, 2, 2), 3.0)
    assert losses.hinge_generator([fine, coarse]) == -2


def test_r1_is_the_squared_gradient_of_the_scores():
    real = torch.rand(2, 3, 4, 4, requires_grad=True)
    slopes = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)
    scores = [(slopes * real).sum((1, 2, 3)).view(2, 1, 1, 1)]
    torch.testing.assert_close(losses.r1(scores, real), torch.tensor((48 * 1 + 48 * 4) / 2 / 2))


def test_colour_distance_knows_casts_and_contrast():
    image = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(losses.colour(image, image.flip(-1)), torch.zeros(2), atol=1e-9, rtol=0)
    assert (losses.colour(image + torch.tensor([0.2, 0, 0])[:, None, None], image) > 0.005).all()
    assert (losses.colour(image * 0.5, image) > 0.01).all()


def test_cycle_is_the_mean_absolute_difference():
    assert torch.equal(
        losses.cycle(torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.25)), torch.full((2,), 0.25)
    )


def test_a_painting_may_grow_brighter_with_the_scene_and_no_more(rng):
    photo = torch.rand(1, 3, 16, 16, generator=rng)
    painted = 1 - photo
    brighter = losses.luminance_change(photo + 0.1, photo)
    torch.testing.assert_close(brighter, torch.full((1, 1, 16, 16), 0.1))
    mask = torch.ones(1, 1, 16, 16)
    assert losses.temporal(painted + 0.1, painted, mask, brighter) < 1e-12
    torch.testing.assert_close(losses.temporal(painted, painted, mask, brighter), torch.tensor([0.01]))
    torch.testing.assert_close(losses.temporal(painted + 0.1, painted, mask), torch.tensor([0.01]))


def test_a_painting_may_change_as_the_frames_do_without_any_flow(rng):
    before, after = torch.rand(2, 1, 3, 16, 16, generator=rng)
    painted = torch.rand(1, 3, 16, 16, generator=rng)
    assert losses.frame_difference(painted + after - before, painted, after, before) < 1e-12
    still = losses.frame_difference(painted, painted, after, before)
    torch.testing.assert_close(still, (after - before).square().mean((1, 2, 3)))


def test_a_still_scene_is_judged_by_how_much_its_noise_grows(rng):
    photo = torch.rand(2, 3, 16, 16, generator=rng) * 0.5 + 0.25
    noisy = with_sensor_noise(photo, 0.02, rng)
    assert not torch.equal(noisy, photo)
    gains = losses.still(3 * noisy, 3 * photo, noisy, photo)
    torch.testing.assert_close(gains, torch.tensor([9.0, 9.0]), atol=0.01, rtol=0)
    assert torch.equal(losses.still(photo, photo, noisy, photo), torch.zeros(2))
    # No noise at all is no reason to divide by zero.
    assert torch.equal(losses.still(photo, photo, photo, photo), torch.zeros(2))


@pytest.mark.parametrize("shift", [(3, 0), (-2, 5)])
def test_estimated_motion_finds_a_shift_and_distrusts_what_came_in(shift):
    across, down = shift
    noise = np.random.default_rng(0).random((96, 128, 3), np.float32)
    scene = (cv2.GaussianBlur(noise, None, 3) * 2000 - 750).clip(0, 255).astype(np.uint8)
    before = torch.from_numpy(scene).permute(2, 0, 1)
    after = before.roll((down, across), (1, 2))
    place, holds = checked_flow(DisFlow(), before, after)
    rows, columns = torch.meshgrid(torch.arange(96), torch.arange(128), indexing="ij")
    moved = torch.stack([columns, rows], -1) - place
    middle = moved[20:-20, 20:-20].reshape(-1, 2)
    torch.testing.assert_close(
        middle.median(0).values, torch.tensor([across, down]).float(), atol=0.2, rtol=0
    )
    assert holds[20:-20, 20:-20].float().mean() > 0.95
    edge = holds[:, :across] if across > 0 else holds[:, across:]
    assert not edge.any()
    judged, relied_on = flicker.checked_flow(scene, np.roll(scene, (down, across), (0, 1)))
    assert np.array_equal(place, judged), "training and the flicker score know one motion"
    assert np.array_equal(holds, relied_on)
    # What the motion is for: the moved frame is the next one.
    back = warp(before[None].float(), normalised(place, 96, 128)[None])[0]
    assert (back - after)[:, holds].abs().mean() < 4


def test_made_up_pairs_say_what_happened(rng):
    photo = torch.rand(2, 3, 32, 48, generator=rng)
    still = synthetic_pair(photo, rng, motion=40.0, noise=0.0, brightness=0.0)
    torch.testing.assert_close(still.after, warp(photo, still.grid).clamp(0, 1))
    assert not still.luminance.any()
    lit = synthetic_pair(photo, rng, motion=40.0, noise=0.0, brightness=0.3)
    mask = lit.mask.bool()
    change = losses.luminance_change(lit.after, warp(photo, lit.grid).clamp(0, 1))
    torch.testing.assert_close(change[mask], lit.luminance[mask], atol=1e-5, rtol=0)
    assert lit.luminance.abs().amax((1, 2, 3)).min() > 1e-3
    noisy = synthetic_pair(photo, rng, motion=40.0, noise=0.1, brightness=0.0)
    assert (noisy.after - warp(photo, noisy.grid)).std() > 1e-3


def test_out_of_range_charges_only_what_the_export_clamps():
    image = torch.tensor([0.0, 0.5, 1.0, -0.4, 1.2]).view(1, 1, 1, 5)
    torch.testing.assert_close(losses.out_of_range(image), torch.tensor([0.12]))


def test_tone_is_of_the_light_of_squares_beside_the_mean():
    photo = torch.zeros(1, 3, 32, 64)
    photo[..., 32:] = 0.5
    brighter, turned = photo + 0.2, photo.flip(3)
    assert losses.tone(brighter, photo) < 1e-10
    torch.testing.assert_close(losses.tone(turned, photo), torch.tensor([0.25]))
    # Dots that leave an area's mean as it is cost nothing.
    dots = torch.tensor([0.1, -0.1]).repeat(32, 32)
    assert losses.tone(photo + dots, photo) < 1e-10
    red = photo * torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(losses.tone(red, 0 * photo), torch.tensor([(0.2126 * 0.25) ** 2]))


def test_total_variation_of_a_step():
    image = torch.zeros(1, 1, 2, 3)
    image[..., 2] = 1
    torch.testing.assert_close(losses.total_variation(image), torch.tensor([0.5]))


def test_identity_grid_moves_nothing(rng):
    image = torch.rand(2, 3, 16, 24, generator=rng)
    torch.testing.assert_close(warp(image, identity_grid(2, 16, 24)), image, atol=1e-5, rtol=0)


def test_what_is_moved_by_half_a_pixel_keeps_its_fine_detail():
    columns = torch.arange(64.0)

    def stripes(shift):
        return torch.sin((columns + shift) * torch.pi / 3).expand(1, 1, 16, 64)

    grid = identity_grid(1, 16, 64) + torch.tensor([1 / 64, 0.0])
    inner = (warp(stripes(0.0), grid) - stripes(0.5))[..., 4:-4]
    # Linear, an eighth of them would be gone.
    assert inner.abs().max() < 0.04


def test_frames_are_shifted_as_far_as_they_may_be(rng):
    pair = synthetic_pair(torch.zeros(64, 3, 48, 64), rng, motion=4.0, noise=0.0, brightness=0.0)
    away = (pair.grid - identity_grid(64, 48, 64))[:, 24, 32] * torch.tensor([32, 24])
    # The elastic field may add a seventh, and its interpolation some of that.
    assert 3 < away.abs().max() < 5


def test_frames_are_turned_and_zoomed_the_less_the_less_they_are_shifted(rng):
    still = identity_grid(64, 256, 256)
    far, near = ((random_warp(64, 256, 256, rng, pixels=pixels) - still) * 128 for pixels in (40.0, 1.0))
    assert 40 < far.abs().max() < 70
    assert 1 < near.abs().max() < 1.75


def test_random_warp_moves_pictures_alike_and_marks_what_it_cannot_see(rng):
    image = torch.rand(2, 3, 48, 64, generator=rng)
    grid = random_warp(2, 48, 64, rng, pixels=40.0)
    mask = inside(grid)
    assert mask.shape == (2, 1, 48, 64)
    assert 0 < mask.mean() < 1
    moved = warp(image, grid)
    assert (moved - image).abs().mean() > 0.05
    # A generator that commutes with motion has no temporal loss, one that follows fixed pixels has some.
    assert losses.temporal(1 - moved, warp(1 - image, grid), mask).max() < 1e-8
    fixed = torch.rand(1, 3, 48, 64, generator=rng)
    assert losses.temporal(moved + fixed, warp(image + fixed, grid), mask).min() > 1e-3


def test_motion_is_seen_where_there_is_something_to_see():
    photo = torch.full((1, 3, 64, 64), 0.5)
    photo[..., 32:] = torch.rand(1, 1, 64, 32)
    seen = losses.visible(photo)
    assert seen.shape == (1, 1, 64, 64)
    assert (seen[..., :20] < losses.UNSEEN + 1e-4).all()
    assert (seen[..., 44:] > 0.9).all()


def test_a_grid_is_told_from_detail_that_lies_anywhere(rng):
    noise = torch.rand(2, 3, 64, 64, generator=rng)
    woven = noise.clone()
    woven[..., ::4] += 0.5
    assert losses.grid(noise, 8).shape == (2,)
    assert losses.grid(noise, 8).max() < 0.01
    assert losses.grid(woven, 8).min() > 0.02
    coarse = torch.rand(2, 3, 16, 16, generator=rng)
    enlarged = torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear")
    assert losses.grid(enlarged, 8).min() > 0.1
    half = torch.cat([enlarged / 5 + 0.4, noise], 3)
    assert (losses.grid(half, 8) > losses.grid(enlarged, 8) / 8).all(), "not drowned by what is next to it"
    assert torch.isfinite(losses.grid(torch.full((1, 3, 16, 16), 0.5), 8)).all()


def test_a_line_is_no_grid():
    image = torch.full((1, 3, 160, 160), 0.4)
    image[..., 75:79] = 0.9
    image[..., 41:43, :] = 0.1
    assert losses.grid(image, 8).max() < 0.02
    assert losses.grid(image[..., :8, 72:80], 8).max() == 0, "of one block, nothing can be said"


def test_discriminators_may_see_more_of_one_kind_than_of_the_other(rng):
    real, fake = [torch.randn(2, 1, 4, 4, generator=rng)], [torch.randn(4, 1, 4, 4, generator=rng)]
    for discriminator, _ in losses.ADVERSARIAL.values():
        halves = torch.stack([discriminator(real, [fake[0][half]]) for half in (slice(2), slice(2, 4))])
        torch.testing.assert_close(discriminator(real, fake), halves.mean())
