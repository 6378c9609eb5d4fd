"""The fused kernels, on a GPU or else by Triton's interpreter, against PyTorch's; and what uses them."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

torch = pytest.importorskip("torch")
ON_GPU = torch.cuda.is_available()
# Before the kernels are made; the interpreter would be that of all other tests of this process as well.
if not ON_GPU:
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="Triton is not installed")

import torch.nn.functional as F  # noqa: E402

from engines import Look, Style  # noqa: E402
from engines.convolution import Tile, convolve, geometry, pack, paint, tile_for  # noqa: E402
from engines.onnx_to_torch import Compiled, Program  # noqa: E402
from engines.parity import agreement  # noqa: E402
from tests.test_onnx_to_torch import graph, ints, node  # noqa: E402

pytestmark = [pytest.mark.gpu] if ON_GPU else []

DEVICE = torch.device("cuda" if ON_GPU else "cpu")

CASES = {
    "3x3": ((12, 16, 3, 3), 1, 1, False),
    "stride 2": ((32, 16, 3, 3), 2, 1, False),
    "many channels": ((128, 64, 3, 3), 2, 1, False),
    "rows of taps": ((16, 4, 5, 5), 1, 0, False),
    "rows of taps, cut": ((12, 4, 3, 3), 1, -1, False),
    "transposed, squares": ((32, 16, 4, 4), 2, 1, True),
    "transposed, phases": ((128, 64, 4, 4), 2, 1, True),
}
"""Shapes of weights, stride, edge, and whether transposed."""


def numbers(*shape, seed=0):
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float16)).to(DEVICE)
    return values.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else values


def convolved(x, weight, bias, stride, edge, transposed):
    """As PyTorch does it on the CPU, in float32."""
    x, weight, bias = x.float().cpu(), weight.float().cpu(), bias.float().cpu()
    x = F.pad(x, [edge] * 4, mode="replicate") if edge > 0 else x[..., -edge or None : edge or None, :]
    x = x if edge > 0 else x[..., -edge or None : edge or None]
    if transposed:
        return F.conv_transpose2d(x, weight, bias, stride, 3)
    return F.conv2d(x, weight, bias, stride)


@pytest.mark.parametrize("case", CASES)
def test_a_convolution_is_pytorch_s(case):
    size = (5, 35)
    shape, stride, edge, transposed = CASES[case]
    channels, outputs = (shape[0], shape[1]) if transposed else (shape[1], shape[0])
    x, bias = numbers(2, channels, *size), numbers(outputs, seed=1)
    weight = numbers(*shape, seed=2) / (channels * shape[2] * shape[3]) ** 0.5
    given = geometry(shape, size, stride, edge, transposed=transposed)
    right = convolved(x, weight, bias, stride, edge, transposed)
    plain = convolve(x, pack(weight, given), bias, None, given, relu=False, relu_sum=False)
    assert plain.shape == right.shape
    assert plain.is_contiguous(memory_format=torch.channels_last)
    assert (plain.float().cpu() - right).abs().max() < 0.01
    for pictures in (1, 2):
        other = numbers(pictures, *right.shape[1:], seed=3)
        fused = convolve(x, pack(weight, given), bias, other, given, relu=True, relu_sum=True)
        assert (fused.float().cpu() - (right.relu() + other.float().cpu()).relu()).abs().max() < 0.01


@pytest.mark.parametrize("tile", [Tile((1, 16), 16, 16, 4, 2), Tile((8, 2), 32, 16, 4, 3)])
def test_a_tile_changes_nothing(tile):
    x, weight, bias = numbers(1, 32, 6, 11), numbers(32, 32, 3, 3, seed=1) / 16, numbers(32, seed=2)
    given = geometry((32, 32, 3, 3), (6, 11), 1, 1, transposed=False)
    packed = pack(weight, given)
    usual = convolve(x, packed, bias, None, given, relu=True, relu_sum=False)
    again = convolve(x, packed, bias, None, given, relu=True, relu_sum=False, tile=tile)
    assert (usual.float() - again.float()).abs().max() < 0.01


def test_a_tile_computes_all_columns_and_channels():
    for inner in (16, 32, 64, 128, 256):
        for columns in (16, 32, 64, 128, 256):
            for places in (1_000, 1_000_000):
                tile = tile_for(inner, columns, places, 132)
                assert columns % tile.columns == 0
                assert inner % tile.inner == 0


def test_what_is_tried_on_a_gpu_is_possible():
    from benchmarks.tiles import candidates

    for inner in (16, 32, 64, 128):
        for columns in (16, 32, 64, 128):
            tried = candidates(inner, columns)
            assert len(tried) == len(set(tried)) >= 10
            assert all(columns % tile.columns == inner % tile.inner == 0 for tile in tried)


@pytest.mark.parametrize(
    ("weight", "stride", "edge", "transposed"),
    [
        ((512, 16, 3, 3), 1, 1, False),
        ((16, 24, 3, 3), 1, 1, False),
        ((16, 3, 9, 9), 1, 0, False),
        ((32, 16, 2, 2), 2, 1, True),
        ((32, 24, 4, 4), 2, 1, True),
    ],
)
def test_what_the_kernel_has_not_is_left_to_others(weight, stride, edge, transposed):
    assert geometry(weight, (64, 64), stride, edge, transposed=transposed) is None


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_squares_of_pixels_become_the_picture(strength):
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (2, 10, 14, 3), np.uint8))
    x, base = 10 * numbers(2, 16, 5, 7), 60 * numbers(2, 4, 7, 9, seed=1) + 100
    weights = numbers(12, 16, 3, 3, seed=2) / 8, numbers(12, 4, 3, 3, seed=3) / 4
    biases = numbers(12, seed=4), numbers(12, seed=5) * 20
    inner = geometry((12, 16, 3, 3), (5, 7), 1, 1, transposed=False)
    outer = geometry((12, 4, 3, 3), (7, 9), 1, 0, transposed=False)
    painted = paint(
        *(x, pack(weights[0], inner), biases[0], base, pack(weights[1], outer), biases[1]),
        *(image.to(DEVICE), torch.tensor([strength], dtype=torch.float16).to(DEVICE), inner, outer),
    ).cpu()
    squares = convolved(x, weights[0], biases[0], 1, 1, False) + convolved(
        base, weights[1], biases[1], 1, 0, False
    )
    right = squares.view(2, 2, 2, 3, 5, 7).permute(0, 4, 1, 5, 2, 3).reshape(2, 10, 14, 3)
    blended = image + float(torch.tensor(strength).half()) * (right - image)
    # What lies between two values may fall to either.
    assert ((painted.float() - blended.clamp(0, 255)).abs() <= 0.51).all()
    if strength == 0:
        assert torch.equal(painted, image)


@pytest.fixture(scope="module")
def live():
    return Style.load("live")


def painted_by(program, style, look, size=(16, 16), wrap=lambda settled, image, inputs: settled):
    place = style.place(size, look)
    height, width = size[1] + place.top + place.bottom, size[0] + place.left + place.right
    image = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    image = torch.from_numpy(image).to(DEVICE)
    inputs = {name: torch.from_numpy(value).to(DEVICE) for name, value in place.inputs.items()}
    settled = wrap(program.settle(image, inputs), image, inputs)
    return settled.picture(image, settled.look(inputs)).cpu().numpy()


@pytest.mark.parametrize(("name", "enlarging"), [("live", 1), ("studio", 2)])
def test_a_bundled_style_is_fused_whole_and_paints_the_same(name, enlarging):
    style = Style.load(name)
    plain, fused = (Program(style.model("float16"), DEVICE, fused=fused) for fused in (False, True))
    depends = fused._depends()
    kinds = Counter(node.kind for node in fused._nodes if depends[node.outputs[0]] == 2)
    # All but the small ones that make broad patches as large as the others.
    counts = kinds["FusedConv"], kinds["PaintConv"], kinds["Conv"], kinds["ConvTranspose"]
    assert counts == (13, 1, enlarging, 0)
    first, last = style.styles[0], style.styles[-1]
    for look in (Look({first: 1.0}), Look({first: 1.0, last: 2.0}, 0.4, moved=(32.0, -16.0))):
        agrees, difference = agreement(
            painted_by(fused, style, look), painted_by(plain, style, look), "float16"
        )
        assert agrees, difference


def test_what_a_compiler_is_given_is_the_program(live, monkeypatch):
    """It gets tensor arithmetic and two operators of ours, and the look's values as they change."""
    given = []
    monkeypatch.setattr(torch, "compile", lambda graph, **options: given.append((graph, options)) or graph)
    program = Program(live.model("float16"), DEVICE, fused=True)
    look = Look({"bauhaus": 1.0}, 0.7)
    with torch.no_grad():
        right = painted_by(program, live, look)
        again = painted_by(program, live, look, wrap=Compiled)
    assert np.array_equal(again, right)
    ((graph, options),) = given
    assert options == {"fullgraph": True, "dynamic": False}
    ours = Counter(str(node.target) for node in graph.graph.nodes if "fauve" in str(node.target))
    assert ours == {"fauve.convolve.default": 13, "fauve.paint.default": 1}


FOR_AN_H200 = """
import torch, triton
from triton.backends.compiler import GPUTarget
torch.cuda.is_available = lambda: True
import tests.test_convolution
from engines import Look, Style, convolution
from engines.onnx_to_torch import Program

class Driver:
    get_current_device = get_current_stream = lambda self, *_: 0
    get_current_target = lambda self: GPUTarget("cuda", 90, 32)

class Compiling:
    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        def launch(*arguments, **options):
            compiled = self.kernel.warmup(*arguments, grid=grid, **options)
            done[compiled.hash] = compiled.metadata.shared, "wgmma" in compiled.asm["ptx"]
        return launch

triton.runtime.driver.set_active(Driver())
done = {}
convolution._convolve, convolution._paint = map(Compiling, (convolution._convolve, convolution._paint))
style, place = Style.load("live"), Style.load("live").place((64, 48), Look())
program = Program(style.model("float16"), torch.device("cpu"), fused=True)
inputs = {name: torch.from_numpy(value) for name, value in place.inputs.items()}
# A picture that is small for so many multiprocessors, and one that is not.
for processors in (132, 0):
    convolution.processors = lambda device: processors
    with torch.no_grad():
        program.settle(torch.zeros(1, 48, 64, 3, dtype=torch.uint8), inputs)
print(len(done), max(shared for shared, _ in done.values()), all(wide for _, wide in done.values()))
"""


def test_the_kernels_compile_for_an_h200(tmp_path):
    """Where the interpreter was asked for by none of the tests that are read first."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    told = subprocess.run(
        [sys.executable, "-c", FOR_AN_H200],
        cwd=Path(__file__).parents[1],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    kernels, shared, wide = told.stdout.split()
    assert (int(kernels) >= 12, wide) == (True, "True")
    assert int(shared) <= 227 << 10, "a multiprocessor has no more"


def half(*shape, seed, scale=1.0):
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float16)


def program_of(nodes, weights, *, fused):
    """Of a graph in float16 from "seen" [n, h, w, 3] and its planes "x" to "stylized"."""
    begins = [
        node("Cast", "image", outputs=["seen"], to=TensorProto.FLOAT16),
        node("Cast", "strength", outputs=["half_strength"], to=TensorProto.FLOAT16),
        node("Transpose", "seen", outputs=["planes"], perm=[0, 3, 1, 2]),
        node("Mul", "planes", "small", outputs=["x"]),
    ]
    model = graph([*begins, *nodes], {**weights, "small": np.float16(1 / 128)}, 18)
    return Program(model, DEVICE, fused=fused)


def both_ways(nodes, weights, pictures):
    """What the graph gives as it is and fused, and the kinds of the fused one's nodes."""
    image = np.random.default_rng(1).integers(0, 256, (pictures, 10, 14, 3), np.uint8)
    image = torch.from_numpy(image).to(DEVICE)
    inputs = {"mix": torch.ones(3), "strength": torch.tensor([0.5]), "origin": torch.zeros(2).long()}
    inputs = {name: value.to(DEVICE) for name, value in inputs.items()}
    made = []
    for fused in (False, True):
        program = program_of(nodes, weights, fused=fused)
        settled = program.settle(image, inputs)
        made.append(settled.picture(image, settled.look(inputs)).float())
    return *made, Counter(each.kind for each in program._nodes)


HIDDEN = [node("Conv", "x", "w3", "b", outputs=["conv"]), node("Relu", "conv", outputs=["h"])]
"""16 channels "h" of the picture."""

PADDED = [node("Pad", "h", "edge", outputs=["padded"], mode="edge")]

CANVAS = [
    node("Shape", "h", outputs=["sides"], start=2),
    node("Mul", "canvas", "half_strength", outputs=["covered"]),
    node("Slice", "covered", "first", "sides", "axes", outputs=["cut"]),
    node("Pad", "cut", "edge", outputs=["bordered"], mode="edge"),
    node("Conv", "bordered", "w", "b", outputs=["under"]),
]
"""A convolution "under" of what the look decides, of the picture's size."""

ALIKE = {
    "a bias left out": [*HIDDEN, *PADDED, node("Conv", "padded", "w", "", outputs=["stylized"])],
    "a sum with itself": [
        *HIDDEN,
        *PADDED,
        node("Conv", "padded", "w", "b", outputs=["a"]),
        node("Add", "a", "a", outputs=["stylized"]),
    ],
    "a sum with a row": [
        *HIDDEN,
        *PADDED,
        node("Conv", "padded", "w", "b", outputs=["a"]),
        # Of a height that is not known, how many rows a slice has is not known either.
        node("Slice", "h", "zero", "one", "two", outputs=["row"]),
        node("Add", "a", "row", outputs=["stylized"]),
    ],
    "a sum of one picture with several": [
        *HIDDEN,
        node("ReduceMean", "h", "zero", outputs=["mean"]),
        node("Pad", "mean", "edge", outputs=["padded"], mode="edge"),
        node("Conv", "padded", "w", "b", outputs=["a"]),
        node("Add", "a", "h", outputs=["stylized"]),
    ],
    "a convolution of the look": [
        *HIDDEN,
        *CANVAS,
        node("Add", "under", "h", outputs=["sum"]),
        node("Mul", "sum", "h", outputs=["stylized"]),
    ],
    "padding read twice": [
        *HIDDEN,
        *PADDED,
        node("Conv", "padded", "w", "b", outputs=["a"]),
        node("Pad", "a", "edge", outputs=["larger"], mode="edge"),
        node("Add", "larger", "padded", outputs=["stylized"]),
    ],
    "padding that is uneven": [
        *HIDDEN,
        node("Pad", "h", "uneven", outputs=["padded"], mode="edge"),
        node("Conv", "padded", "w", "b", outputs=["stylized"]),
    ],
    "padding of channels": [
        node("Pad", "x", "deep", outputs=["padded"], mode="edge"),
        node("Conv", "padded", "w", "b", outputs=["stylized"]),
    ],
    "two of three channels": [
        node("Conv", "x", "w3", "b", outputs=["a"]),
        node("Conv", "x", "w3", "b", outputs=["c"]),
        node("Relu", "c", outputs=["d"]),
        node("Add", "a", "d", outputs=["e"]),
        node("Relu", "e", outputs=["stylized"]),
    ],
    "one of a line": [
        node("Reshape", "x", "flat", outputs=["line"]),
        node("Conv", "line", "w1", "b", outputs=["stylized"]),
    ],
}
"""Graphs, not all of which are of a kind that the kernels know."""

ALIKE_WEIGHTS = {
    "w": half(16, 16, 3, 3, seed=1, scale=0.08),
    "w3": half(16, 3, 3, 3, seed=2, scale=0.2),
    "w1": half(16, 3, 3, seed=3, scale=0.2),
    "b": half(16, seed=4),
    "canvas": half(1, 16, 20, 20, seed=5),
    "edge": ints(0, 0, 1, 1, 0, 0, 1, 1),
    "uneven": ints(0, 0, 1, 1, 0, 0, 2, 2),
    "deep": ints(0, 13, 1, 1, 0, 0, 1, 1),
    "flat": ints(0, 3, -1),
    "first": ints(0, 0),
    "axes": ints(2, 3),
    "zero": ints(0),
    "one": ints(1),
    "two": ints(2),
}


@pytest.mark.parametrize("pictures", [1, 2])
@pytest.mark.parametrize("case", ALIKE)
def test_what_is_fused_computes_the_same(case, pictures):
    plain, fused, _ = both_ways(ALIKE[case], ALIKE_WEIGHTS, pictures)
    assert fused.shape == plain.shape
    assert (fused - plain).abs().max() <= 0.005 * plain.abs().max()


def test_what_the_look_alone_decides_is_not_convolved_for_each_picture():
    nodes = [*HIDDEN, *CANVAS, node("Add", "under", "h", outputs=["sum"]), node("Mul", "sum", "h")]
    nodes[-1].output[0] = "stylized"
    program = program_of(nodes, ALIKE_WEIGHTS, fused=True)
    depends = program._depends()
    convolved = [depends[each.outputs[0]] for each in program._nodes if each.kind == "FusedConv"]
    assert sorted(convolved) == [1, 2]


def generator(*, strength="half_strength", low="black", block="two_by_six", few=False):
    """The end of our own generators, or nearly."""
    hidden = ["Pad", "half_size", "edge"] if not few else ["Pad", "light", "edge"]
    return [
        node("Conv", "x", "w_half", "b", outputs=["half_size"], strides=[2, 2]),
        node("Conv", "x", "w_light", "b_light", outputs=["light"], strides=[2, 2]),
        node(*hidden, outputs=["padded"], mode="reflect" if few else "edge"),
        node("Conv", "padded", "w_few" if few else "w_squares", "b_squares", outputs=["squares"]),
        node("Pad", "light", "edge", outputs=["light_padded"], mode="reflect"),
        node("Conv", "light_padded", "w_base", "b_base", outputs=["base"]),
        node("Add", "squares", "base", outputs=["sum"]),
        node("Transpose", "sum", outputs=["last"], perm=[0, 2, 3, 1]),
        node("Reshape", "last", block, outputs=["blocks"]),
        node("Transpose", "blocks", outputs=["rows"], perm=[0, 1, 3, 2, 4]),
        node("Shape", "image", outputs=["sizes"]),
        node("Reshape", "rows", "sizes", outputs=["painting"]),
        node("Sub", "painting", "seen", outputs=["apart"]),
        node("Mul", strength, "apart", outputs=["mixed"]),
        node("Add", "seen", "mixed", outputs=["blended"]),
        node("Round", "blended", outputs=["rounded"]),
        node("Clip", "rounded", low, "white", outputs=["clipped"]),
        node("Cast", "clipped", outputs=["stylized"], to=TensorProto.UINT8),
    ]


GENERATOR_WEIGHTS = {
    "w_half": half(16, 3, 2, 2, seed=1),
    "b": half(16, seed=2),
    "w_light": half(4, 3, 2, 2, seed=3),
    "b_light": half(4, seed=4),
    "w_squares": half(12, 16, 3, 3, seed=5),
    "w_few": half(12, 4, 3, 3, seed=6, scale=5),
    "b_squares": half(12, seed=7),
    "w_base": half(12, 4, 3, 3, seed=8, scale=5),
    "b_base": half(12, seed=9, scale=20) + np.float16(100),
    "edge": ints(0, 0, 1, 1, 0, 0, 1, 1),
    "two_by_six": ints(0, 0, 0, 2, 6),
    "three_by_four": ints(0, 0, 0, 3, 4),
    "four_by_three": ints(0, 0, 0, 4, 3),
    "black": np.float16(0),
    "grey": np.float16(100),
    "white": np.float16(255),
    "tints": np.array([0, 0.5, 1], np.float16),
    "mask": np.linspace(0, 1, 14).astype(np.float16).reshape(1, 1, 14, 1),
}


@pytest.mark.parametrize(
    ("changed", "painted"),
    [
        ({}, 1),
        ({"low": "grey"}, 0),
        ({"strength": "tints"}, 0),
        ({"strength": "mask"}, 0),
        ({"block": "three_by_four"}, 0),
        ({"block": "four_by_three"}, 0),
        ({"few": True}, 0),
    ],
    ids=str,
)
def test_the_end_of_a_graph_that_is_nearly_ours_paints_the_same(changed, painted):
    plain, fused, kinds = both_ways(generator(**changed), GENERATOR_WEIGHTS, 2)
    assert kinds["PaintConv"] == painted
    assert (fused - plain).abs().max() <= 1
    assert plain.std() > 0
