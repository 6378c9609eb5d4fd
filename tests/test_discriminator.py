"""The discriminators: scores by style, scale and patch."""

import pytest
import torch

from training.discriminator import DenseDiscriminator, PatchDiscriminator

pytestmark = pytest.mark.usefixtures("seeded")


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
