import pytest
import torch

from training.regularisation import History, augment


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_augmentation_changes_each_picture_in_its_own_way_and_lets_gradients_through():
    image = torch.rand(1, 3, 32, 48).expand(4, -1, -1, -1).clone().requires_grad_(True)
    changed = augment(image, generator())
    assert changed.shape == image.shape
    assert all(not torch.equal(changed[0], other) for other in changed[1:])
    torch.testing.assert_close(changed, augment(image, generator()))
    changed.sum().backward()
    assert (image.grad.abs().amax((1, 2, 3)) > 0).all()
    # A square of half the sides is cut out where it lies inside.
    assert ((changed == 0).all(1).flatten(1).float().mean(1) > 0.05).all()


def test_history_gives_older_pictures_for_about_half_and_keeps_their_styles():
    history, rng = History(8), generator()
    for step in range(40):
        pictures = torch.full((4, 3, 2, 2), float(step))
        given, styles = history.exchange(pictures, torch.full((4,), step), rng)
        assert torch.equal(given[:, 0, 0, 0].long(), styles)
        if step < 2:  # filled first
            assert torch.equal(given, pictures)
        assert (given <= step).all()
    assert len(history.pictures) == 8
    shares = []
    for step in range(40, 140):
        given, _ = history.exchange(torch.full((4, 3, 2, 2), float(step)), torch.full((4,), step), rng)
        shares.append(float((given[:, 0, 0, 0] < step).float().mean()))
    assert 0.35 < sum(shares) / 100 < 0.65


def test_a_history_of_none_gives_back_what_comes():
    pictures, styles = torch.rand(2, 3, 4, 4), torch.tensor([0, 1])
    assert History(0).exchange(pictures, styles, generator())[0] is pictures


@pytest.mark.parametrize("filled", [0, 3])
def test_a_history_is_kept_with_a_checkpoint(filled):
    history = History(4)
    if filled:
        history.exchange(torch.rand(filled, 3, 2, 2), torch.arange(filled), generator())
    again = History(4)
    again.load_state_dict(history.state_dict())
    assert torch.equal(again.pictures, history.pictures)
    assert torch.equal(again.styles, history.styles)
