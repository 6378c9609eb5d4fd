"""What judges a pack: measures whose answer is known, and `fauve evaluate` on made-up pictures."""

import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from onnx import TensorProto
from safetensors.torch import load_file, save_file

from engines import EngineBuildError, Look, Style, load, load_style
from engines.onnxruntime import OnnxRuntimeEngine
from engines.style import Credit
from tests.packs import fast_neural_style, tiny_model, tiny_pack
from tests.test_cli import assert_one_line, fauve
from tests.videos import make_video
from training import cli
from training.classifier import NO_PAINTING, StyleClassifier, random_crops
from training.data import held_out
from training.evaluate import (
    SEEN,
    Material,
    _paint,
    blended,
    bundled_recipe,
    evaluate,
    paintings_of,
    strength_curve,
)
from training.evaluation_sheet import GAP, LINE, MARGIN, WIDTH, evaluation_sheet, summary
from training.features import pretrained
from training.losses import content, gram, style
from training.metrics import NotAtHand, frechet_distance, lpips_heads, noise_gain, perceptual_distance
from training.recipe import Recipe, StyleRecipe
from training.robustness import attacks, painter

FIRES = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128)}
FIRES |= {9: (256, 48, 192), 10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256)}
CHANNELS = (64, 128, 256, 384, 384, 512, 512)


def random_weights(folder: Path) -> None:
    """SqueezeNet 1.1 and the heads of LPIPS with random weights, in `folder`."""
    rng = torch.Generator().manual_seed(0)
    shapes = {"features.0": (64, 3, 3, 3)}
    for fire, (inputs, squeezed, outputs) in FIRES.items():
        shapes[f"features.{fire}.squeeze"] = (squeezed, inputs, 1, 1)
        shapes[f"features.{fire}.expand1x1"] = (outputs, squeezed, 1, 1)
        shapes[f"features.{fire}.expand3x3"] = (outputs, squeezed, 3, 3)
    state = {}
    for name, shape in shapes.items():
        fan = shape[1] * shape[2] * shape[3]
        state[f"{name}.weight"] = torch.randn(shape, generator=rng) * (2 / fan) ** 0.5
        state[f"{name}.bias"] = torch.zeros(shape[0])
    save_file(state, folder / "squeezenet1_1.safetensors")
    heads = {
        f"lin{layer}.model.1.weight": torch.rand(1, channels, 1, 1, generator=rng)
        for layer, channels in enumerate(CHANNELS)
    }
    torch.save(heads, folder / "lpips_v0.1_squeeze.pth")


def noise(rng, height=72, width=96):
    small = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    rng = np.random.default_rng(0)
    photos = [f"{index}.png" for index in range(100)]
    unseen = [name for name in photos if held_out(Path(name))]
    seen = [name for name in photos if not held_out(Path(name))]
    names = {"photos": unseen[:3] + seen[:9], "paintings/warm": seen[:3], "paintings/cold": seen[:1]}
    for name, files in names.items():
        (folder / name).mkdir(parents=True)
        for file in files:
            cv2.imwrite(str(folder / name / file), noise(rng))
    (folder / "clips").mkdir()
    make_video(folder / "clips" / "a.mp4", frames=12, size=(128, 96), audio=False)
    (folder / "weights").mkdir()
    random_weights(folder / "weights")
    return Material(
        folder / "photos", folder / "paintings", folder / "clips", folder / "weights", pictures=2, frames=3
    )


@pytest.fixture(scope="module")
def network(material):
    return pretrained("squeezenet1_1", material.weights)


def features(network, image):
    with torch.inference_mode():
        return network(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)


def test_distances_of_a_picture_from_itself_are_0_and_grow_with_the_difference(network, material):
    heads = lpips_heads(material.weights)
    picture = noise(np.random.default_rng(1))
    other = noise(np.random.default_rng(2))
    reference = features(network, picture)

    def distances(image):
        found = features(network, image)
        return torch.cat(
            [
                perceptual_distance(found, reference, heads),
                style(*([gram(x)[:, None] for x in each] for each in (found, reference))),
                content(found[network.CONTENT], reference[network.CONTENT]),
            ]
        )

    assert torch.equal(distances(picture), torch.zeros(3))
    near, far = (distances(blended(picture, other, share)) for share in (0.25, 0.75))
    assert (near > 0).all()
    assert (far > near).all()


def test_the_perceptual_distance_is_that_of_unit_vectors_weighed_by_channel():
    x = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    y = torch.tensor([4.0, 3.0]).view(1, 2, 1, 1)
    head = torch.tensor([1.0, 10.0]).view(1, 2, 1, 1)
    expected = torch.tensor([2 * (0.2**2 + 10 * 0.2**2)])
    torch.testing.assert_close(perceptual_distance([x, x], [y, y], [head, head]), expected)
    longer = [7 * x, 7 * x]
    torch.testing.assert_close(perceptual_distance(longer, [y, y], [head, head]), expected)


def test_the_heads_of_lpips_are_missing_or_something_else(tmp_path):
    with pytest.raises(NotAtHand, match=r"no squeeze\.pth or lpips_v0\.1_squeeze\.pth"):
        lpips_heads(tmp_path)
    file = tmp_path / "squeeze.pth"
    file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"squeeze\.pth: cannot be read"):
        lpips_heads(tmp_path)
    for other, message in (({"lin0": torch.zeros(1)}, "not the heads of LPIPS"), ([1], "no tensors by name")):
        torch.save(other, file)
        with pytest.raises(ValueError, match=message):
            lpips_heads(tmp_path)


def test_weights_are_taken_by_the_names_that_their_authors_give_them(material, tmp_path):
    shutil.copy(material.weights / "lpips_v0.1_squeeze.pth", tmp_path / "squeeze.pth")
    assert [tuple(head.shape) for head in lpips_heads(tmp_path)] == [(1, n, 1, 1) for n in CHANNELS]
    torch.save(
        load_file(material.weights / "squeezenet1_1.safetensors"), tmp_path / "squeezenet1_1-b8a52dc0.pth"
    )
    image = noise(np.random.default_rng(1))
    expected = features(pretrained("squeezenet1_1", material.weights), image)
    found = features(pretrained("squeezenet1_1", tmp_path), image)
    assert len(found) == 7
    assert all(torch.equal(*each) for each in zip(found, expected, strict=True))


def test_the_noise_gain_is_the_factor_of_the_deviation():
    frames = np.random.default_rng(0).integers(100, 110, (8, 6, 6, 3)).astype(np.uint8)
    assert noise_gain(frames, (frames - 100) * 3) == pytest.approx(3)
    assert noise_gain(frames, 255 - frames) == pytest.approx(1)
    assert noise_gain(frames, np.full_like(frames, 50)) == 0


def test_the_frechet_distance_of_known_distributions():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4))
    assert frechet_distance(samples, samples) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(samples, samples + np.array([3, 0, 4, 0])) == pytest.approx(25)
    centred = samples - samples.mean(0)
    trace = np.trace(np.cov(centred, rowvar=False))
    assert frechet_distance(centred, 3 * centred) == pytest.approx(4 * trace)


STEPS = [(8.0, 0.0), (4.0, 1.0), (2.0, 2.0), (1.5, 3.0), (1.0, 4.0)]


def test_half_the_strength_is_compared_with_a_blend_of_equal_content():
    blends = [(6.0, 1.0), (5.0, 3.0), (2.0, 3.5)]
    found = strength_curve(np.array(STEPS), np.array(blends))
    assert found["curve"][2] == {"strength": 0.5, "style": 2.0, "content": 2.0}
    assert found["blend_at_half"] == {"style": 5.0, "content": 3.0}
    # Between the first two blends, whose contents are 1 and 3.
    assert found["blend_at_equal_content"] == 5.5
    assert found["nearer_than_blend"]
    assert found["monotonic"]
    level = strength_curve(np.array([*STEPS[:4], (1.5, 4.0)]), np.array(blends))
    assert not level["monotonic"]
    faded = strength_curve(np.array(STEPS), np.array([(4.0, 1.0), (1.9, 2.0), (1.5, 3.0)]))
    assert not faded["nearer_than_blend"]


def test_a_blend_is_in_whole_levels_from_the_photograph_to_the_painting():
    photo, painting = np.full((2, 2, 3), 10, np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert (blended(photo, painting, 0.0) == 10).all()
    assert (blended(photo, painting, 0.5) == 132).all()
    assert (blended(photo, painting, 1.0) == 255).all()


def test_a_pack_for_larger_pictures_paints_them_enlarged_and_is_looked_at_from_farther():
    shown = []

    def engine(image, look):
        shown.append((image.shape, look.moved))
        return 255 - image

    engine.style = SimpleNamespace(native_height=2 * SEEN, multiple=8, size=None, carried=False)
    photo = np.full((64, 96, 3), 55, np.uint8)
    assert (_paint(engine, photo, Look({"one": 1.0}).carried((3.0, 1.0))) == 200).all()
    assert _paint(engine, photo, Look({"one": 1.0}, 0.0)).shape == photo.shape
    assert shown == [((128, 192, 3), (6.0, 2.0)), ((64, 96, 3), None)]


def coloured(rng, colour, count):
    """Pictures of one colour with some noise, each as its crops."""
    pictures = []
    for _ in range(count):
        image = torch.randint(0, 40, (3, 80, 90), generator=rng) + torch.tensor(colour)[:, None, None]
        pictures.append(random_crops(image.byte(), 2, rng))
    return pictures


def test_the_classifier_tells_what_it_has_seen_and_reports_on_what_it_has_not(network):
    rng = torch.Generator().manual_seed(0)
    classes = {"red": (200, 30, 30), "blue": (30, 30, 200), NO_PAINTING: (120, 120, 120)}
    counts = {"red": 4, "blue": 2, NO_PAINTING: 5}
    crops = {name: coloured(rng, colour, counts[name]) for name, colour in classes.items()}
    classifier = StyleClassifier(network, crops)
    painted = [crop for crops in coloured(rng, classes["red"], 3) for crop in crops]
    raw = [crop for crops in coloured(rng, classes[NO_PAINTING], 3) for crop in crops]
    found = classifier.judge({"red": painted, "blue": raw}, raw)
    assert found["red"] == {"painted": 1.0, "photographs": 0.0, "unseen": 1.0, "taken_for": {}}
    # Of two paintings it is not said what is unseen.
    taken_for = {NO_PAINTING: 1.0}
    assert found["blue"] == {"painted": 0.0, "photographs": 0.0, "unseen": None, "taken_for": taken_for}
    report = classifier.report()
    assert list(report) == ["red", "blue", NO_PAINTING, "macro avg", "weighted avg", "micro avg"]
    assert [report[name]["support"] for name in (*classes, "micro avg")] == [8, 4, 10, 22]
    assert set(report["red"]) == {"precision", "recall", "f1", "support"}
    weighted = sum(report[name]["recall"] * report[name]["support"] for name in classes) / 22
    assert report["weighted avg"]["recall"] == pytest.approx(weighted, abs=2e-3)
    macro = sum(report[name]["f1"] for name in classes) / 3
    assert report["macro avg"]["f1"] == pytest.approx(macro, abs=2e-3)


def test_a_style_of_one_painting_is_judged_and_not_reported_on(network):
    rng = torch.Generator().manual_seed(0)
    photographs = coloured(rng, (120, 120, 120), 5)
    classifier = StyleClassifier(network, {"red": coloured(rng, (200, 30, 30), 1), NO_PAINTING: photographs})
    assert classifier.report() == {}
    red = [crop for crops in coloured(rng, (200, 30, 30), 3) for crop in crops]
    found = classifier.judge({"red": red}, [crop for crops in photographs for crop in crops])
    assert found["red"] == {"painted": 1.0, "photographs": 0.0, "unseen": None, "taken_for": {}}
    blue = coloured(rng, (30, 30, 200), 2)
    crops = {"red": coloured(rng, (200, 30, 30), 1), "blue": blue, NO_PAINTING: photographs}
    report = StyleClassifier(network, crops).report()
    assert list(report)[:2] == ["blue", NO_PAINTING], "what it could not know counts in no mean"
    assert report["macro avg"]["support"] == 14


def test_crops_are_of_the_picture():
    picture = torch.arange(300 * 400).reshape(1, 300, 400).expand(3, -1, -1)
    for crop in random_crops(picture, 20, torch.Generator().manual_seed(0)):
        assert crop.shape == (3, 224, 224)
        assert (crop[0].diff(dim=1) == 1).all()
        assert (crop[0].diff(dim=0) == 400).all()
    assert random_crops(picture[:, :50], 1, torch.Generator())[0].shape == (3, 50, 50)


def test_attacks_stay_within_their_size_and_throw_further_than_noise():
    rng = torch.Generator().manual_seed(0)
    image = torch.randint(256, (2, 32, 32, 3), generator=rng).float()

    def blur(image):
        planes = F.avg_pool2d(image.permute(0, 3, 1, 2), 8)
        return F.interpolate(planes, scale_factor=8).permute(0, 2, 3, 1)

    for epsilon in (2, 8):
        found = attacks(blur, image, epsilon)
        assert list(found) == ["noise", "fgsm", "pgd"]
        thrown = {}
        for name, changed in found.items():
            assert (changed - image).abs().max() <= epsilon
            assert torch.equal(changed, changed.round().clamp(0, 255))
            thrown[name] = float((blur(changed) - blur(image)).abs().mean()) / epsilon
        # What is averaged over 64 pixels moves by an eighth with noise, and wholly where they agree.
        assert thrown["noise"] < 0.2
        assert thrown["fgsm"] > 0.8
        assert thrown["pgd"] > 0.8


def style_named(*names):
    credits = tuple(Credit(name, f"A {name}", "Nobody", 1900) for name in names)
    return Style("test", "Test", names, {"float32": "m"}, 8, 72, credits=credits, files={"m": b"model"})


def test_the_paintings_are_those_of_the_recipe_or_of_the_folder(material, caplog):
    found = paintings_of(style_named("warm", "cold"), material)
    assert {name: len(works) for name, works in found.items()} == {"warm": 3, "cold": 1}
    assert found["warm"][0].shape == (3, 72, 96)
    assert {name: len(works) for name, works in paintings_of(style_named("new"), material).items()} == {
        "new": 4
    }
    assert "all of the paintings are taken for the style's own; --recipe" in caplog.text
    with pytest.raises(ValueError, match="Give --recipe, or a subfolder for each style: warm, new"):
        paintings_of(style_named("warm", "new"), material)
    entry = StyleRecipe(
        "new",
        f"cold/{next((material.paintings / 'cold').iterdir()).name}",
        "T",
        "A",
        1,
        reals=("warm",),
        painting_size=36,
    )
    recipe = Recipe("r", "R", (entry,))
    with_recipe = Material(material.photos, material.paintings, material.clips, recipe=recipe)
    works = paintings_of(style_named("new"), with_recipe)["new"]
    assert [tuple(work.shape) for work in works] == [(3, 36, 48)] * 4
    with pytest.raises(ValueError, match="the recipe r has no style 'warm'"):
        paintings_of(style_named("warm"), with_recipe)


def test_a_broken_painting_is_skipped_in_a_folder_and_fatal_where_a_recipe_names_it(
    material, tmp_path, caplog
):
    shutil.copytree(material.paintings, tmp_path / "paintings")
    folder = tmp_path / "paintings" / "warm"
    (folder / "broken.png").write_bytes(b"no picture")
    first = next((tmp_path / "paintings" / "cold").iterdir())
    entry = StyleRecipe("new", f"cold/{first.name}", "T", "A", 1, reals=("warm",), painting_size=36)

    def works(entry):
        judged = Material(material.photos, tmp_path / "paintings", recipe=Recipe("r", "R", (entry,)))
        return paintings_of(style_named("new"), judged)["new"]

    assert len(works(entry)) == 4
    assert "skipped" in caplog.text
    assert "broken.png" in caplog.text
    with pytest.raises(ValueError, match=r"broken\.png: no image"):
        works(dataclasses.replace(entry, reals=("warm/broken.png",)))


def test_a_bundled_pack_has_the_recipe_of_its_paintings():
    recipe = bundled_recipe(Style.load("live"))
    assert recipe is not None
    assert [entry.name for entry in recipe.styles] == list(Style.load("live").styles)
    assert bundled_recipe(style_named("live")) is None


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return tiny_pack(tmp_path_factory.mktemp("packs") / "tiny")


def test_a_pack_is_attacked_by_its_own_graph_which_no_longer_rounds(pack):
    image = torch.from_numpy(noise(np.random.default_rng(3))).float()[None]
    paint = painter(pack, "cold", (72, 96))
    painted = paint(image.requires_grad_(True))
    with load("onnxruntime", style=pack) as engine:
        expected = engine(image[0].detach().byte().numpy(), Look({"cold": 1.0}))
    assert np.abs(painted[0].detach().numpy() - expected).max() <= 0.51
    assert (painted != painted.round()).float().mean() > 0.5
    (gradient,) = torch.autograd.grad(painted.sum(), image)
    assert (gradient != 0).float().mean() > 0.9


def test_somebody_else_s_graph_is_attacked_by_its_own_though_it_rounds_by_floor(tmp_path):
    path = tmp_path / "foreign.onnx"
    path.write_bytes(fast_neural_style())
    image = torch.from_numpy(noise(np.random.default_rng(3), 64, 96)).float()[None].requires_grad_(True)
    (gradient,) = torch.autograd.grad(painter(load_style(path), "foreign", (64, 96))(image).sum(), image)
    assert (gradient != 0).float().mean() > 0.9


@pytest.mark.parametrize(
    ("kind", "attributes", "reason"),
    [
        ("HardSwish", {}, "torch does not know the operator HardSwish"),
        ("AveragePool", {"kernel_shape": [1, 2], "pads": [0, 0, 0, 1]}, "a pool with uneven padding"),
    ],
)
def test_a_graph_that_torch_does_not_take_is_said_and_the_rest_is_judged(
    material, pack, caplog, kind, attributes, reason
):
    model = onnx.load_model_from_string(pack.model())
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type = kind
    relu.attribute.extend(onnx.helper.make_attribute(*each) for each in attributes.items())
    files = {**pack.files, pack.models["float32"]: model.SerializeToString()}
    with OnnxRuntimeEngine(dataclasses.replace(pack, files=files)) as engine:
        report = evaluate(engine, dataclasses.replace(material, clips=None), lambda measure: None).report
    said = f"torch does not take the graph of {pack.name}: {reason}"
    assert report["left_out"]["robustness"] == said
    assert f"robustness is left out: {said}" in caplog.text
    assert "noise_gain" in report["styles"]["warm"]


def test_a_graph_without_a_gradient_is_not_attacked_and_is_said(tmp_path):
    model = onnx.load_model_from_string(fast_neural_style())
    (image,) = (value.name for value in model.graph.input)
    for node in model.graph.node:
        node.input[:] = ["whole" if name == image else name for name in node.input]
    kinds = [(image, "rounded", TensorProto.INT32), ("rounded", "whole", TensorProto.FLOAT)]
    for at, (source, target, kind) in enumerate(kinds):
        model.graph.node.insert(at, onnx.helper.make_node("Cast", [source], [target], to=kind))
    path = tmp_path / "stepped.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EngineBuildError, match="no gradient passes through the graph of stepped"):
        painter(load_style(path), "stepped", (64, 96))


def test_an_evaluation_and_its_sheet(material, pack):
    said = []
    folders = (material.photos, material.paintings, material.clips, material.weights)
    one = dataclasses.replace(pack, styles=("warm",), credits=pack.credits[:1], files={"m": tiny_model(1)})
    one = dataclasses.replace(one, models={"float32": "m"})
    with load("onnxruntime", style=one) as engine:
        evaluation = evaluate(engine, Material(*folders, pictures=3), said.append)
    report = evaluation.report
    assert json.loads(json.dumps(report)) == report
    assert said == [
        *("strength", "lpips", "flicker", "noise_gain", "robustness"),
        *("classifier", "fid", "art_fid"),
    ]
    row = report["styles"]["warm"]
    assert set(report["left_out"]) == {"fid", "art_fid"}
    assert (report["photographs"], report["clips"], row["paintings"]) == (3, 1, 3)
    assert (report["unseen"], report["notes"]) == (True, [])
    assert row["strength"]["exact_at_0"]
    assert row["strength"]["curve"][0]["content"] == 0
    assert row["style_distance"] == row["strength"]["curve"][4]["style"]
    assert row["flicker"]["pairs"] == 8
    assert row["lpips"] > 0
    assert set(row["robustness"]) == {"noise", "fgsm", "pgd"}
    for name in ("fgsm", "pgd"):
        assert row["robustness"][name]["8"] > row["robustness"]["noise"]["8"] > 0
    assert report["classifier"]["warm"]["support"] == 48
    sheet = evaluation_sheet(evaluation)
    assert f"{row['noise_gain']:.2f}" in summary(report).splitlines()[1]
    top = MARGIN + 76 + MARGIN + LINE  # below the title and the captions
    width = (WIDTH + GAP) // 5 - GAP
    for column, image in enumerate([evaluation.photos[0], *evaluation.steps["warm"][0][1:]]):
        left = MARGIN + column * (width + GAP)
        cell = sheet[top : top + width * 3 // 4, left : left + width]
        expected = cv2.resize(image, (width, width * 3 // 4), interpolation=cv2.INTER_CUBIC)
        assert np.abs(cell.astype(int) - expected).mean() < 2


def test_a_broken_clip_is_reported_and_skipped(material, tmp_path, pack, caplog):
    shutil.copytree(material.clips, tmp_path / "clips")
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"no video")
    make_video(tmp_path / "clips" / "picture.mp4", frames=1, size=(128, 96), audio=False)
    judged = dataclasses.replace(material, clips=tmp_path / "clips", pictures=1)
    with load("onnxruntime", style=pack) as engine:
        report = evaluate(engine, judged, lambda measure: None).report
        assert report["clips"] == 1
        assert report["styles"]["warm"]["flicker"]["pairs"] == 2
        assert "broken.mp4" in caplog.text
        assert "picture.mp4: has no two frames to compare" in caplog.text
        (tmp_path / "clips" / "a.mp4").unlink()
        report = evaluate(engine, judged, lambda measure: None).report
    assert report["clips"] == 0
    assert report["left_out"]["flicker"] == "of not one of the clips two frames can be read"


@pytest.fixture
def arguments(material):
    folders = {"photos": material.photos, "paintings": material.paintings, "clips": material.clips}
    folders["weights"] = material.weights
    options = [part for name, folder in folders.items() for part in (f"--{name}", folder)]
    return [*options, "--pictures", "1", "--frames", "2", "--threads", "1"]


def test_the_figures_go_into_the_card_and_nothing_else_of_the_pack_changes(tmp_path, arguments):
    pack = tmp_path / "tiny"
    before = tiny_pack(pack)
    result = fauve("evaluate", pack, *arguments, "-o", tmp_path / "found", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report == json.loads((tmp_path / "found" / "report.json").read_text())
    assert list(report["styles"]) == ["warm", "cold"]
    assert list(report["left_out"]) == ["fid", "art_fid"]
    assert cv2.imread(str(tmp_path / "found" / "sheet.png")).shape[1] > 1000
    after = Style.load(pack)
    assert after.card == {"evaluation": report}
    assert (after.digest, after.files) == (before.digest, before.files)
    with load("onnxruntime", style=after):
        pass
    again = fauve("evaluate", pack, *arguments, "-o", tmp_path / "found")
    assert_one_line(again, "sheet.png is there already", "--force")


def test_what_evaluate_does_not_do(tmp_path, arguments):
    pack = tmp_path / "tiny"
    tiny_pack(pack)
    assert_one_line(fauve("evaluate", pack, *arguments, "--engine", "openvino"), "do not share a process")
    (tmp_path / "file").touch()
    for output in (tmp_path / "file" / "found", tmp_path / "file"):
        assert_one_line(
            fauve("evaluate", pack, *arguments, "-o", output), "file is a file, where a folder is"
        )
    result = fauve("evaluate", pack, *arguments, "--recipe", pack / "style.json")
    assert_one_line(result, "style.json: not a TOML file")


def judged(arguments, *more):
    given = list(map(str, [*arguments, *more]))
    return CliRunner().invoke(cli.evaluate, given)


def test_where_nothing_can_be_written_is_said_before_anything_is_judged(tmp_path, arguments, monkeypatch):
    # Root may write anywhere.
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    result = judged(["none", *arguments], "-o", tmp_path / "deep" / "found")
    assert (result.exit_code, result.output) == (
        1,
        f"Error: {tmp_path}: cannot be written to; give another -o\n",
    )


def test_figures_are_told_even_if_they_cannot_be_kept_and_bad_input_leaves_no_folder(
    tmp_path, arguments, monkeypatch
):
    pack, output = tmp_path / "tiny", tmp_path / "found"
    tiny_pack(pack)

    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def nothing(*arguments):
        raise ValueError("no photographs")

    found = SimpleNamespace(report={"styles": {}})
    monkeypatch.setattr("engines.atomic_write.atomic_write", full)
    monkeypatch.setattr("training.evaluate.evaluate", lambda *arguments: found)
    result = judged([pack, *arguments], "-o", output, "--json")
    assert result.stdout == '{"styles": {}}\n'
    assert (result.exit_code, result.stderr) == (1, f"Error: {output}/report.json: No space left on device\n")
    output.rmdir()
    monkeypatch.setattr("training.evaluate.evaluate", nothing)
    assert judged([pack, *arguments], "-o", output).stderr == "Error: no photographs\n"
    assert not output.exists()


def test_without_its_weights_nothing_is_judged(material, pack):
    bare = Material(material.photos, material.paintings, material.clips, material.photos)
    with (
        load("onnxruntime", style=pack) as engine,
        pytest.raises(ValueError, match=r"no squeezenet1_1\*\.safetensors or \.pth there"),
    ):
        evaluate(engine, bare, lambda measure: None)


def test_half_of_a_few_photographs_judge_where_none_was_kept_from_training(tmp_path, material, caplog):
    (tmp_path / "few").mkdir()
    names = [name for name in (f"p{index}.png" for index in range(30)) if not held_out(Path(name))][:4]
    for index, name in enumerate(names):
        cv2.imwrite(str(tmp_path / "few" / name), noise(np.random.default_rng(index)))
    tiny_pack(tmp_path / "tiny")
    few = Material(tmp_path / "few", material.paintings, weights=material.weights)
    with load("onnxruntime", style=tmp_path / "tiny") as engine:
        report = evaluate(engine, few, lambda measure: None).report
    assert (report["photographs"], report["unseen"], report["clips"]) == (2, False, 0)
    assert report["left_out"]["flicker"] == "needs a folder of videos: --clips"
    # Its column stays empty.
    assert summary(report).splitlines()[1].split()[:2] == ["warm", "-"]
    assert "half of them judge" in caplog.text
    (tmp_path / "few" / names[0]).rename(tmp_path / "one.png")
    for name in names[1:]:
        (tmp_path / "few" / name).unlink()
    with (
        load("onnxruntime", style=tmp_path / "tiny") as engine,
        pytest.raises(ValueError, match="at least two"),
    ):
        evaluate(engine, few, lambda measure: None)


def test_what_is_too_small_to_be_judged_is_skipped(tmp_path, material, pack, caplog):
    shutil.copytree(material.photos, tmp_path / "photos")
    names = [f"icon{index}.png" for index in range(40)]
    icons = [next(name for name in names if held_out(Path(name)) is seen) for seen in (True, False)]
    for name in icons:
        cv2.imwrite(str(tmp_path / "photos" / name), noise(np.random.default_rng(0), 16, 24))
    every = dataclasses.replace(material, photos=tmp_path / "photos", clips=None, pictures=24)
    with load("onnxruntime", style=pack) as engine:
        report = evaluate(engine, every, lambda measure: None).report
        assert report["photographs"] == 3
        assert report["classifier"][NO_PAINTING]["support"] == 9 * 3
        assert all(f"{name}: 24x16 is too small" in caplog.text for name in icons)
        for path in (tmp_path / "photos").iterdir():
            if path.name not in icons:
                path.unlink()
        with pytest.raises(ValueError, match="too few of its photographs"):
            evaluate(engine, every, lambda measure: None)


def test_a_dataset_and_paintings_that_nobody_has_sorted_are_judged(material, pack, monkeypatch):
    rng = np.random.default_rng(0)

    def numbered(name):
        yield from (torch.from_numpy(noise(rng)).permute(2, 0, 1) for _ in range(25))

    monkeypatch.setattr("training.evaluate.dataset_images", numbered)
    one = dataclasses.replace(
        pack, styles=("photograph",), credits=pack.credits[:1], files={"m": tiny_model(1)}
    )
    one = dataclasses.replace(one, models={"float32": "m"})
    dataset = dataclasses.replace(material, photos="torchvision:MNIST:here", clips=None, pictures=24)
    with load("onnxruntime", style=one) as engine:
        report = evaluate(engine, dataset, lambda measure: None).report
    assert (report["photographs"], report["unseen"]) == (3, True)
    assert report["classifier"][NO_PAINTING]["support"] == 22 * 3
    assert report["classifier"]["photograph"]["support"] == 4 * 16
    assert report["styles"]["photograph"]["paintings"] == 4
    assert len(report["notes"]) == 1
    assert summary(report).splitlines()[-1].startswith("note: all of the paintings are taken")


def test_a_folder_of_which_training_left_out_everything_is_not_unseen(tmp_path, material, pack, caplog):
    names = [name for name in (f"p{index}.png" for index in range(60)) if held_out(Path(name))][:4]
    for index, name in enumerate(names):
        cv2.imwrite(str(tmp_path / name), noise(np.random.default_rng(index)))
    few = dataclasses.replace(material, photos=tmp_path, clips=None)
    with load("onnxruntime", style=pack) as engine:
        report = evaluate(engine, few, lambda measure: None).report
    assert (report["photographs"], report["unseen"]) == (2, False)
    assert "half of them judge" in caplog.text
