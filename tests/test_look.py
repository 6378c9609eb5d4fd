import pickle

import numpy as np
import pytest

from engines import Look


def test_no_mix_is_the_first_style():
    assert Look().weights(["a", "b"]).tolist() == [1, 0]


@pytest.mark.parametrize("scale", [1e-300, 1e-50, 1e39, 1e308])
def test_weights_are_of_any_scale(scale):
    weights = Look({"a": scale, "b": scale}).weights(["a", "b", "c"])
    assert weights.tolist() == [0.5, 0.5, 0]
    assert weights.dtype == np.float32


def test_weights_go_by_name_and_sum_to_one():
    weights = Look({"b": 3, "a": 1}).weights(["a", "b", "c"])
    assert weights.tolist() == [0.25, 0.75, 0]
    assert weights.dtype == np.float32


def test_a_style_that_the_pack_lacks_is_named():
    with pytest.raises(ValueError, match=r"no style 'z' in this pack; there is a, b"):
        Look({"a": 1, "z": 1}).weights(["a", "b"])


@pytest.mark.parametrize("mix", [{"a": -1}, {"a": float("nan")}, {"a": float("inf")}, {"a": 0, "b": 0}])
def test_weights_that_are_none(mix):
    with pytest.raises(ValueError, match="weight"):
        Look(mix)


@pytest.mark.parametrize("strength", [-0.01, 1.01, float("nan")])
def test_strength_stays_within_0_and_1(strength):
    with pytest.raises(ValueError, match="strength"):
        Look(strength=strength)


@pytest.mark.parametrize("moved", [(float("nan"), 0.0), (0.0, float("inf"))])
def test_a_scene_moves_by_a_number_of_pixels(moved):
    with pytest.raises(ValueError, match="moved must be finite"):
        Look(moved=moved)


def test_a_look_can_be_carried_along_and_sent():
    look = Look({"a": 1}, 0.5).carried((3.0, -2.0))
    assert (look.mix, look.strength, look.moved) == ({"a": 1}, 0.5, (3.0, -2.0))
    assert pickle.loads(pickle.dumps(look)) == look
    assert look.carried(None).moved is None


def test_a_look_does_not_change_behind_its_back():
    mix = {"a": 1.0}
    look = Look(mix)
    mix["a"] = 5.0
    assert look.mix["a"] == 1.0
    with pytest.raises(TypeError):
        look.mix["a"] = 2.0
