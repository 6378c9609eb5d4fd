import pytest
import torch

from training import losses
from training.flow import identity_grid, inside, random_warp, warp


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def test_gram_is_the_mean_outer_product():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    expected = torch.tensor([[[2.5, 5.5], [5.5, 12.5]]])
    assert torch.equal(losses.gram(features), expected)


def test_style_distance_is_zero_for_the_same_statistics_only():
    features = [torch.rand(2, 8, 10, 10)]
    targets = [losses.gram(features[0])]
    assert torch.equal(losses.gram_style(features, targets), torch.zeros(2))
    shuffled = [features[0].flip(-1)]  # statistics know no places
    torch.testing.assert_close(losses.gram_style(shuffled, targets), torch.zeros(2), atol=1e-6, rtol=0)
    assert (losses.gram_style([features[0] * 2], targets) > 1).all()
    assert losses.statistics_style(features, features).max() < 0.05
    assert (losses.statistics_style([features[0] * 2], features) > 0.5).all()


def test_content_distance_is_relative_to_the_target():
    target = torch.rand(2, 4, 5, 5)
    torch.testing.assert_close(losses.content(torch.zeros_like(target), target).mean(), torch.tensor(1.0))


def test_hinge_losses_push_scores_to_their_sides_of_the_margin():
    assert losses.hinge_discriminator(torch.full((1, 1, 2, 2), 2.0), torch.full((1, 1, 2, 2), -2.0)) == 0
    assert losses.hinge_discriminator(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)) == 1
    assert torch.equal(losses.hinge_generator(torch.full((2, 1, 3, 3), 0.5)), torch.full((2,), -0.5))


def test_out_of_range_charges_only_what_the_export_clamps():
    image = torch.tensor([0.0, 0.5, 1.0, -0.4, 1.2]).view(1, 1, 1, 5)
    torch.testing.assert_close(losses.out_of_range(image), torch.tensor([0.12]))


def test_total_variation_of_a_step():
    image = torch.zeros(1, 1, 2, 3)
    image[..., 2] = 1
    torch.testing.assert_close(losses.total_variation(image), torch.tensor([0.5]))


def test_identity_grid_moves_nothing(rng):
    image = torch.rand(2, 3, 16, 24, generator=rng)
    torch.testing.assert_close(warp(image, identity_grid(2, 16, 24)), image, atol=1e-5, rtol=0)


def test_random_warp_moves_pictures_alike_and_marks_what_it_cannot_see(rng):
    image = torch.rand(2, 3, 48, 64, generator=rng)
    grid = random_warp(2, 48, 64, rng)
    mask = inside(grid)
    assert mask.shape == (2, 1, 48, 64)
    assert 0 < mask.mean() < 1
    moved = warp(image, grid)
    assert (moved - image).abs().mean() > 0.05
    # A generator that commutes with motion has no temporal loss, one that follows fixed pixels has some.
    assert losses.temporal(1 - moved, warp(1 - image, grid), mask).max() < 1e-8
    fixed = torch.rand(1, 3, 48, 64, generator=rng)
    assert losses.temporal(moved + fixed, warp(image + fixed, grid), mask).min() > 1e-3
