"""The features of FID with random weights: which files are taken, and what comes of equal pictures."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from training.inception import inception_features, load_inception
from training.metrics import NotAtHand, frechet_distance

try:
    from torchvision.models import Inception3
except (ImportError, RuntimeError) as error:  # RuntimeError: it does not fit the torch beside it
    pytest.skip(f"torchvision cannot be imported: {error}", allow_module_level=True)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inception")
    torch.manual_seed(0)
    state = Inception3(aux_logits=True, init_weights=False).state_dict()
    save_file(state, folder / "inception_v3_google-0cc3c7bd.safetensors")
    # As ArtFID gives it: another last layer, and none beside the trunk.
    kept = {name: value for name, value in state.items() if not name.startswith("AuxLogits.")}
    torch.save({**kept, "fc.weight": torch.zeros(7, 2048)}, folder / "art_inception.pth")
    return folder


@pytest.mark.parametrize("name", ["inception_v3", "art_inception"])
def test_features_by_either_name(weights, name):
    rng = torch.Generator().manual_seed(0)
    pictures = [torch.randint(256, (3, 64, 80), generator=rng).byte() for _ in range(2)]
    features = inception_features(load_inception(weights, name), [*pictures, pictures[0]])
    assert features.shape == (3, 2048)
    assert np.array_equal(features[0], features[2])
    assert np.abs(features[0] - features[1]).max() > 0.01 * features[0].max()
    assert frechet_distance(features[:2], features[1:]) == pytest.approx(0, abs=1e-6)


def test_what_is_no_inception(weights, tmp_path):
    with pytest.raises(NotAtHand, match=r"no inception_v3\*\.pth"):
        load_inception(tmp_path, "inception_v3")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "inception_v3.pth")
    with pytest.raises(ValueError, match="not an Inception v3 of torchvision's names"):
        load_inception(tmp_path, "inception_v3")
    (tmp_path / "inception_v3.pth").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"inception_v3\.pth: cannot be read"):
        load_inception(tmp_path, "inception_v3")
