"""From a checkpoint to a pack that every engine paints alike."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

import engines
import training.export
import training.quantize
from engines import Look, Style, StyleError, parity
from engines.onnxruntime import OnnxRuntimeEngine
from engines.style import BUNDLED
from engines.torch import TorchEngine
from tests.videos import picture
from training.checkpoint import save_checkpoint
from training.cli import RECIPES, export
from training.export import PackGraph, export_pack, layers_in_float32, paint, to_onnx
from training.generator import Generator
from training.quantize import quantized
from training.recipe import Recipe, StyleRecipe, load_recipe
from training.stylization import generator_of

RECIPE = Recipe(
    name="trial",
    title="Trial",
    styles=(
        StyleRecipe("one", "1.png", "One", "A", 1900, reals=("/home/me/more/3.png", "movement")),
        StyleRecipe("two", "2.png", "Two", "B", 1901, spared=0.8, cut="planes", broad=0.6),
    ),
    widths=(8, 16, 16),
    blocks=2,
    branches=True,
    native_height=160,
)


def _is_dequantised(names, made) -> bool:
    """Whether all that a node takes comes from integers."""
    return all(name in made and made[name].op_type == "DequantizeLinear" for name in names)


def generator(simplified: bool = True) -> Generator:
    """One that paints something: random weights all over, statistics that are not 0 and 1."""
    torch.manual_seed(1)
    recipe = RECIPE
    if not simplified:
        styles = tuple(dataclasses.replace(style, spared=0.0, cut="", broad=0.0) for style in RECIPE.styles)
        recipe = dataclasses.replace(RECIPE, simplified=False, styles=styles)
    network = generator_of(recipe, recipe.styles)
    with torch.no_grad():
        network.to_image.weight.normal_(std=0.02)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1)
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2)
            for name in ("scale", "shift", "share"):
                if hasattr(module, name):
                    getattr(module, name).normal_(std=0.3)
    return network.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    state = generator().state_dict()
    recipe = json.dumps(dataclasses.asdict(RECIPE))
    save_checkpoint(
        folder / "checkpoint.pt", {"generator": state, "average": state, "step": 7, "recipe": recipe}
    )
    cv2.imwrite(str(folder / "photo.png"), picture(3, 240, 200)[..., ::-1])
    photos = photographs(folder / "photos", 6)
    arguments = [folder / "checkpoint.pt", "-o", folder / "trial", "--preview", folder / "photo.png"]
    result = CliRunner().invoke(export, list(map(str, [*arguments, "--int8", photos])))
    assert result.exit_code == 0, result.output
    psnr = Style.load(folder / "trial").card["int8_psnr"]
    assert f"Trial (one, two); int8 is {psnr} dB from float32" in result.output
    return folder


def photographs(folder, count):
    folder.mkdir()
    for index in range(count):
        cv2.imwrite(str(folder / f"{index}.png"), picture(index, 320, 240)[..., ::-1])
    return folder


@pytest.mark.parametrize("name", engines.PREFERENCE)
def test_engines_paint_the_golden_picture(folder, name):
    style = Style.load(folder / "trial")
    golden = style.golden()
    assert np.abs(golden.stylized.astype(int) - golden.image).mean() > 5
    with engines.load(name, style=style, precision="float32") as engine:
        agrees, difference = engines.agreement(engine(golden.image, golden.look), golden.stylized, "float32")
        assert agrees, difference
        assert np.array_equal(engine(golden.image, Look(strength=0)), golden.image)
        one, two = (engine(golden.image, Look({name: 1})).astype(int) for name in ("one", "two"))
        both = engine(golden.image, Look({"one": 1, "two": 1})).astype(int)
    assert np.abs(one - two).mean() > 3
    assert np.abs(both - one).mean() > 1
    assert np.abs(both - two).mean() > 1


def test_the_float16_model_is_the_same_picture(folder):
    style = Style.load(folder / "trial")
    golden = style.golden()
    with engines.load("onnxruntime", style=style, precision="float16") as engine:
        agrees, difference = engines.agreement(engine(golden.image, golden.look), golden.stylized, "float16")
    assert agrees, difference


def test_layers_that_float16_cannot_hold_stay_in_float32():
    image = picture(3, 96, 64)
    assert layers_in_float32(generator(), image, ["one", "two"]) == []
    network = generator()
    with torch.no_grad():
        # Values beyond 65504 between the last block and what brings them down again.
        network.blocks[1].second.norm.weight *= 1e5
        network.decode[0].norm.weight *= 1e-5
    kept = layers_in_float32(network, image, ["one", "two"])
    assert kept == ["blocks.1", "decode.0", "decode.1", "to_image"]
    stylized = paint(PackGraph(network), image, np.float32([1, 0]))
    plain = paint(PackGraph(network, torch.float16), image, np.float32([1, 0]))
    assert not parity.agreement(plain, stylized, "float16")[0]
    model = to_onnx(network, torch.float16, kept)
    models = {"float32": "m", "float16": "m"}
    style = Style("big", "Big", ("one", "two"), models, 8, carried=True, files={"m": model})
    for runtime in (OnnxRuntimeEngine, TorchEngine):
        with runtime(style, "cpu", precision="float16") as engine:
            agrees, difference = parity.agreement(engine(image, Look()), stylized, "float16")
            assert agrees, difference
            assert np.array_equal(engine(image, Look(strength=0)), image)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_model_that_paints_something_else_becomes_no_pack(folder, tmp_path, monkeypatch, precision):
    exported = Style.load(folder / "trial")

    def wrong(right, dtype=torch.float32, *others):
        """What was exported of `right` before, that of `precision` with twice the strokes."""
        name = str(dtype).removeprefix("torch.")
        model = onnx.load_model_from_string(exported.model(name))
        if name == precision:
            weights = {each.name: each for each in model.graph.initializer}
            last = weights["generator.to_image.layer.weight"]
            twice = 2 * onnx.numpy_helper.to_array(last)
            last.CopyFrom(onnx.numpy_helper.from_array(twice, last.name))
        return model.SerializeToString()

    monkeypatch.setattr(training.export, "to_onnx", wrong)
    with pytest.raises(
        ValueError, match=r"onnx does not paint what the network paints .* no pack is written"
    ):
        export_pack(folder / "checkpoint.pt", tmp_path / "pack", preview=folder / "photo.png")
    assert not (tmp_path / "pack").exists()


def test_what_the_pack_tells(folder):
    style = Style.load(folder / "trial")
    assert (style.name, style.title, style.styles) == ("trial", "Trial", ("one", "two"))
    assert (style.multiple, style.native_height) == (8, 160)
    assert style.recipe == RECIPE.digest()
    assert style.card["steps"] == 7
    assert style.card["float32_layers"] == []
    preview = cv2.imdecode(np.frombuffer(style.files["preview.jpg"], np.uint8), cv2.IMREAD_COLOR)
    assert preview.shape == (160, 192, 3)


@pytest.mark.parametrize("simplified", [True, False])
@pytest.mark.parametrize("strength", [0.25, 0.5, 0.75, 1.0])
def test_the_graph_paints_what_the_generator_paints_at_every_strength(strength, simplified):
    network = generator(simplified)
    image, mix = picture(5, 64, 96), torch.tensor([[0.3, 0.7]])
    graph = PackGraph(network)
    with torch.no_grad():
        inputs = (
            torch.from_numpy(image)[None],
            mix[0],
            torch.tensor([strength]),
            torch.zeros(2, dtype=torch.int64),
        )
        stylized = graph(*inputs)[0].numpy()
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        painted = network(x, mix, torch.tensor([strength]))[0].permute(1, 2, 0)
    expected = (painted * 255).round().clamp(0, 255).numpy()
    assert np.abs(expected - image).mean() > 1
    assert np.abs(stylized.astype(int) - expected).max() <= 1


def test_no_layer_knows_where_the_edge_is():
    network = generator()
    with torch.no_grad():
        for canvas in network.canvases:
            canvas.share.zero_()
    painted = paint(PackGraph(network), np.full((64, 64, 3), 120, np.uint8), np.float32([0.5, 0.5]))
    blocks = painted.astype(int).reshape(8, 8, 8, 8, 3)
    assert np.ptp(blocks, axis=(0, 2)).max() == 0, "no frame on an even picture"


def test_an_output_that_is_there_stays_unless_forced(folder, tmp_path, monkeypatch):
    model = Style.load(folder / "trial").model()
    monkeypatch.setattr(training.export, "to_onnx", lambda *_: model)
    there = tmp_path / "trial"
    there.mkdir()
    (there / "note.txt").write_text("precious")
    arguments = [str(folder / "checkpoint.pt"), "-o", str(there), "--preview", str(folder / "photo.png")]
    with pytest.raises(StyleError, match="there already"):
        export_pack(folder / "checkpoint.pt", folder / "trial", preview=folder / "photo.png")
    result = CliRunner().invoke(export, arguments)
    assert result.exit_code != 0
    assert "there already" in result.output
    result = CliRunner().invoke(export, [*arguments, "--force"])
    assert result.exit_code != 0
    assert "no style pack, and --force replaces nothing else" in result.output
    assert (there / "note.txt").read_text() == "precious"
    shutil.rmtree(there)
    shutil.copytree(folder / "trial", there)
    result = CliRunner().invoke(export, [*arguments, "--force"])
    assert result.exit_code == 0, result.output
    assert Style.load(there).styles == ("one", "two")


def test_the_int8_model_is_near_the_float32_one(folder):
    style = Style.load(folder / "trial")
    assert list(style.models) == ["float32", "float16", "int8"]
    assert style.card["int8_psnr"] >= 43
    graph = onnx.load_model_from_string(style.model("int8")).graph
    made = {output: node for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")]
    quantised = [node.name for node in convolutions if _is_dequantised(node.input[:2], made)]
    assert quantised == style.card["int8_convolutions"]
    assert 0 < len(quantised) <= len(convolutions) - 2
    scales = [made[node.input[1]].input[1] for node in convolutions if node.name in quantised]
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("QuantizeLinear") == len(quantised)
    assert kinds.count("DequantizeLinear") == 2 * len(quantised)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert all(weights[scale].size >= 16 for scale in scales), "one scale for each output channel"
    zero_points = [weights[node.input[2]] for node in graph.node if node.op_type == "DequantizeLinear"]
    assert all(point.dtype == np.int8 and not point.any() for point in zero_points), "symmetric"
    image = picture(9, 320, 240)
    with (
        engines.load("onnxruntime", style=style, precision="int8") as quantised,
        engines.load("onnxruntime", style=style) as reference,
    ):
        assert (quantised.precision, reference.precision) == ("int8", "float32")
        painted, expected = quantised(image, Look()), reference(image, Look())
        assert np.array_equal(quantised(image, Look(strength=0)), image)
    agrees, difference = engines.agreement(painted, expected, "int8")
    assert agrees, difference
    assert not np.array_equal(painted, expected)


def test_only_as_many_convolutions_are_in_int8_as_paint_the_same(folder, monkeypatch):
    style = Style.load(folder / "trial")
    chosen = style.card["int8_convolutions"]
    alone = []
    for limit in (style.card["int8_psnr"] + 3, 90.0):
        monkeypatch.setattr(training.quantize, "LOWEST", limit)
        try:
            _, fewer, psnr = quantized(style.model(), style.styles, folder / "photos")
        except ValueError as error:
            alone.append(str(error))
            continue
        assert set(fewer) < set(chosen)
        assert psnr >= limit
    (said,) = alone[-1:]
    assert re.search(r"something else than float32: PSNR \d\d\.\d dB .* and 90 are needed", said)


def test_two_photographs_are_too_few_for_int8(folder):
    with pytest.raises(ValueError, match="2 photographs are too few"):
        quantized(b"", ("one", "two"), photographs(folder / "few", 2))


def test_a_checkpoint_of_an_earlier_version_is_one_line(folder, tmp_path):
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    del state["average"]["canvases.1.grain"]
    save_checkpoint(tmp_path / "old.pt", state)
    with pytest.raises(ValueError, match=r"old\.pt: its networks are of another shape"):
        export_pack(tmp_path / "old.pt", tmp_path / "pack", preview=folder / "photo.png")


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint"])
def test_what_is_no_checkpoint_is_one_line(folder, tmp_path, content):
    path = tmp_path / "x.pt"
    if content is not None:
        path.write_bytes(content)
    result = CliRunner().invoke(
        export, [str(path), "-o", str(tmp_path / "p"), "--preview", str(folder / "photo.png")]
    )
    assert result.exit_code == 1
    assert str(path) in result.output
    assert not (tmp_path / "p").exists()


def test_credits_name_all_paintings_and_not_where_they_lie(folder):
    assert [credit.others for credit in Style.load(folder / "trial").credits] == [("3.png", "movement"), ()]


@pytest.mark.parametrize(("name", "most"), [("live", 8_000), ("studio", 40_000)])
def test_the_graphs_stay_small(name, most):
    """One must run live on two CPU cores, the other is for where there is more."""
    recipe = load_recipe(RECIPES / f"{name}.toml")
    assert generator_of(recipe, recipe.styles).macs_per_pixel() < most


@pytest.mark.parametrize(("name", "most"), [("live", 13_000_000), ("studio", 16_000_000)])
def test_what_a_pack_adds_to_a_clone_stays_small(name, most):
    assert sum(file.stat().st_size for file in (BUNDLED / name).iterdir()) < most


def test_ctrl_c_while_the_exporter_is_imported_stops():
    # Torch reports a failure of its own, where its exporter is interrupted in this module.
    program = (
        "import sys\n"
        "from training.export import to_onnx\n"
        "from training.generator import Generator\n"
        "class Interrupts:\n"
        "    def find_spec(name, path, target=None):\n"
        "        if name == 'torch.distributed.fsdp._flat_param':\n"
        "            sys.meta_path.remove(Interrupts)\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupts)\n"
        "try: to_onnx(Generator(1, (8, 8, 8), 1))\n"
        "except KeyboardInterrupt: print('stopped')\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout) == (0, "stopped\n"), result.stderr
