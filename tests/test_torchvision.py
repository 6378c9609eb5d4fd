"""What meets torchvision: its datasets by name, and its networks beside ours. It needs a fitting torch."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from training.data import Pictures, dataset_images
from training.features import SqueezeNet, Vgg19
from training.recipe import load_recipe
from training.stylization import Material
from training.train import train

try:
    import torchvision
except (ImportError, RuntimeError):  # RuntimeError: it was built for another torch
    pytest.skip("needs torchvision that fits torch: pip install torch torchvision", allow_module_level=True)

RECIPES = Path(__file__).parent.parent / "training" / "recipes"


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    """Made-up digits in MNIST's own format."""
    raw = tmp_path_factory.mktemp("mnist") / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 10)):
        images = np.zeros((count, 28, 28), np.uint8)
        for index, image in enumerate(images):
            cv2.putText(image, str(index % 10), (5, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
        images = images // 2 + rng.integers(0, 60, images.shape, np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 2051, count, 28, 28) + images.tobytes()
        )
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())
    return raw.parent.parent, images


def test_a_dataset_is_read_by_its_name(mnist):
    folder, _ = mnist
    images = list(dataset_images(f"torchvision:MNIST:{folder}"))
    assert len(images) == 60
    assert all(image.shape == (3, 28, 28) and image.dtype == torch.uint8 for image in images)
    assert torch.equal(images[0][0], images[0][2])
    assert not torch.equal(images[0], images[1])
    kept = Pictures([f"torchvision:MNIST:{folder}"], 32, hold_out=True)
    assert len(kept) == 54  # one in ten is held out
    assert kept.crops(2, 32, torch.Generator().manual_seed(0)).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("name", "message"),
    [("torchvision:NONE:.", "no 'NONE'"), ("torchvision:MNIST:/nowhere", "not found")],
)
def test_a_dataset_that_is_not_there_is_named(name, message):
    with pytest.raises(ValueError, match=message) as error:
        next(dataset_images(name))
    assert name in str(error.value)


def test_the_recipe_for_digits_trains(mnist, tmp_path):
    folder, _ = mnist
    recipe = load_recipe(RECIPES / "mnist.toml", {"steps": "4"})
    painting = tmp_path / "paintings" / recipe.styles[0].painting
    painting.parent.mkdir(parents=True)
    cv2.imwrite(str(painting), np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8))
    seen = []
    train(
        recipe,
        Material(f"torchvision:MNIST:{folder}", tmp_path / "paintings"),
        run=tmp_path / "run",
        progress=lambda step, numbers: seen.append(numbers),
    )
    assert len(seen) == 4
    assert {"content", "style", "adversarial", "temporal", "discriminator"} <= set(seen[0])
    assert cv2.imread(str(tmp_path / "run" / "sheet-00004.png")) is not None


@pytest.mark.parametrize(
    ("name", "ours", "layers"),
    [("squeezenet1_1", SqueezeNet, (1, 4, 7, 9, 10, 11, 12)), ("vgg19", Vgg19, (1, 3, 6, 8, 11))],
)
def test_pretrained_networks_see_what_torchvisions_see(name, ours, layers):
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None).eval()
    network = ours(theirs.state_dict())
    image = torch.rand(1, 3, 97, 128)
    x, expected = network.normalised(image), []
    with torch.inference_mode():
        for index, layer in enumerate(theirs.features):
            x = layer(x)
            if index in layers:
                expected.append(x)
        seen = network(image)
    assert len(seen) == len(expected)
    for mine, reference in zip(seen, expected, strict=True):
        if name == "squeezenet1_1":
            torch.testing.assert_close(mine, reference, atol=1e-4, rtol=1e-3)
        elif len(mine[0]) < 256:
            # Ours is mirrored at the border: the same in the middle. The last one is pooled from other pairs.
            margin = (mine.shape[-1] - reference.shape[-1]) // 2
            inner = reference[..., 8:-8, 8:-8]
            crop = mine[..., margin + 8 :, margin + 8 :][..., : inner.shape[-2], : inner.shape[-1]]
            torch.testing.assert_close(crop, inner, atol=1e-4, rtol=1e-3)
