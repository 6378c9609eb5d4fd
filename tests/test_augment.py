"""`StyleAugment` among torchvision's transforms: what it paints, what it leaves alone, in which process."""

import pickle

import numpy as np
import pytest
import torch

try:
    from torchvision import tv_tensors
    from torchvision.transforms import v2
except (ImportError, RuntimeError) as error:  # RuntimeError: it does not fit the torch beside it
    pytest.skip(f"torchvision cannot be imported: {error}", allow_module_level=True)

import PIL.Image

from engines import Look, load
from tests.packs import tiny_pack
from tests.videos import picture
from training.augment import StyleAugment

HEIGHT, WIDTH = 64, 96


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("augment") / "tiny"
    tiny_pack(folder)
    return folder


@pytest.fixture(scope="module")
def painted(pack):
    """A picture in the style "cold" at full strength, as the engine paints it."""
    with load("onnxruntime", style=pack) as engine:
        return engine(picture(3), Look({"cold": 1.0}))


@pytest.fixture
def augment(pack):
    return StyleAugment(pack, p=1.0, strength=(1.0, 1.0), styles=["cold"])


def tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)


def test_images_of_every_kind_are_painted_and_keep_it(augment, painted):
    expected = tensor(painted)
    assert torch.equal(augment(tensor(picture(3))), expected)
    image = augment(tv_tensors.Image(tensor(picture(3))))
    assert isinstance(image, tv_tensors.Image)
    assert torch.equal(image.as_subclass(torch.Tensor), expected)
    shown = augment(PIL.Image.fromarray(picture(3)))
    assert shown.mode == "RGB"
    assert np.array_equal(np.asarray(shown), painted)
    floats = augment(tensor(picture(3)).float() / 255)
    assert floats.dtype == torch.float32
    assert torch.equal(floats, v2.functional.to_dtype(expected, torch.float32, scale=True))
    video = augment(tv_tensors.Video(torch.stack([tensor(picture(3))] * 2)))
    assert isinstance(video, tv_tensors.Video)
    assert torch.equal(video.as_subclass(torch.Tensor), torch.stack([expected] * 2))


def test_grey_images_stay_grey(augment):
    grey = np.ascontiguousarray(picture(3)[..., 0])
    assert augment(torch.from_numpy(grey)[None]).shape == (1, HEIGHT, WIDTH)
    assert augment(PIL.Image.fromarray(grey)).mode == "L"
    with pytest.raises(TypeError, match='"RGBA"; convert it'):
        augment(PIL.Image.new("RGBA", (8, 8)))
    with pytest.raises(TypeError, match=r"not \[4, 8, 8\]"):
        augment(torch.zeros(4, 8, 8))


def test_floats_may_overshoot_and_not_be_in_other_units(augment):
    image = tensor(picture(3)).float() / 255
    beyond = torch.where(image > 0.5, 1.2, -0.2)
    assert torch.equal(augment(beyond), augment(beyond.clamp(0, 1)))
    for other in (image * 255, (image - 0.5) / 0.2, torch.full_like(image, torch.nan)):
        with pytest.raises(ValueError, match=r"a float image is in 0\.\.1, not .*before it is normalised"):
            augment(other)


def test_whole_numbers_whose_white_is_unknown_are_refused(augment):
    wide = augment(tensor(picture(3)).to(torch.int32).mul(257).to(torch.uint16))
    assert wide.dtype == torch.uint16
    for kind in (torch.int32, torch.int64, torch.bool):
        with pytest.raises(TypeError, match=f"an image is uint8, uint16, or float in 0..1, not {kind}"):
            augment(tensor(picture(3)).to(kind))


def test_labels_boxes_and_masks_are_left_alone(augment, painted):
    boxes = tv_tensors.BoundingBoxes([[1, 2, 30, 40]], format="XYXY", canvas_size=(HEIGHT, WIDTH))
    mask = tv_tensors.Mask(torch.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH))
    target = {"boxes": boxes, "masks": mask, "label": 7, "scores": torch.ones(3)}
    image, after = augment(tv_tensors.Image(tensor(picture(3))), target)
    assert torch.equal(image.as_subclass(torch.Tensor), tensor(painted))
    assert after["label"] == 7
    for name in ("boxes", "masks", "scores"):
        assert after[name] is target[name]


def test_one_sample_in_so_many_is_painted_in_a_mix_and_strength_of_its_own(pack):
    torch.manual_seed(0)
    augment = StyleAugment(pack, p=0.3, strength=(0.4, 0.8))
    looks = [augment.make_params([])["look"] for _ in range(400)]
    used = [look for look in looks if look is not None]
    assert 90 <= len(used) <= 150
    assert all(0.4 <= look.strength <= 0.8 and set(look.mix) == {"warm", "cold"} for look in used)
    shares = [look.mix["warm"] for look in used]
    assert 0.4 < np.mean(shares) < 0.6
    assert len(set(shares)) == len(shares)
    single = StyleAugment(pack, p=1.0, concentration=1e-6)
    shares = [max(single.make_params([])["look"].mix.values()) for _ in range(100)]
    assert min(shares) > 0.99, "one style at a time"
    never = StyleAugment(pack, p=0.0)
    image = tensor(picture(3))
    assert never(image) is image


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 1.5}, "p is a probability"),
        ({"strength": (0.9, 0.1)}, "the lowest and the highest"),
        ({"concentration": 0}, "concentration must be above 0"),
        ({"concentration": float("inf")}, "concentration must be above 0 and finite"),
        ({"styles": ["hot"]}, "no style 'hot' in this pack"),
    ],
)
def test_what_it_does_not_take(pack, options, message):
    with pytest.raises(ValueError, match=message):
        StyleAugment(pack, **options)


class Pictures(torch.utils.data.Dataset):
    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.transform(tensor(picture(3))), index


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_it_paints_in_the_workers_of_a_loader(augment, painted, method):
    # An engine that this process has is none to the others.
    augment(tensor(picture(3)))
    transform = v2.Compose([augment, v2.ToDtype(torch.float32, scale=True)])
    loader = torch.utils.data.DataLoader(
        Pictures(transform), batch_size=2, num_workers=2, multiprocessing_context=method
    )
    batches = list(loader)
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 1, 2, 3]
    expected = v2.functional.to_dtype(tensor(painted), torch.float32, scale=True)
    for images, _ in batches:
        assert torch.equal(images, torch.stack([expected] * 2))


def test_it_can_be_pickled_after_it_has_painted(augment):
    image = tensor(picture(3))
    once = augment(image)
    assert torch.equal(pickle.loads(pickle.dumps(augment))(image), once)
