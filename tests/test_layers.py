"""The parts of networks: what each computes, against the same written out."""

import pytest
import torch
import torch.nn.functional as F

from training.layers import LinearUpsample, UpsampleConv, UpsampleToImage, binomial, interpolating

pytestmark = pytest.mark.usefixtures("seeded")


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


def test_twice_as_large_is_linear_interpolation():
    image = torch.rand(1, 3, 12, 10)
    expected = F.interpolate(image, scale_factor=2.0, mode="bilinear")[..., 2:-2, 2:-2]
    torch.testing.assert_close(F.pixel_shuffle(LinearUpsample()(image), 2), expected)


def test_what_alternates_from_place_to_place_is_smoothed_away():
    rows = torch.arange(6)[:, None] % 2
    for lattice in (rows, rows.T, (rows + rows.T) % 2):
        x = lattice.float().expand(1, 2, 6, 6)
        assert binomial(x)[..., 1:-1, 1:-1].std() < 1e-6
    ramp = torch.arange(6.0).expand(1, 2, 5, 6)
    torch.testing.assert_close(binomial(ramp)[..., 1:-1], ramp[..., 1:-1])
