"""Damaged files and packs: an answer or an error of ours, never a crash, a hang or a stray file."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.packs import fast_neural_style, tiny_pack
from tests.videos import make_video

ROOT = Path(__file__).parent.parent
SEED, ROUNDS = 20261123, 40

RENDER = """
import sys
from pathlib import Path
from engines import EngineError, Look, StyleError, load
from pipeline.errors import SinkError, SourceError
from pipeline.progress import VideoProgress
from pipeline.render import Render
with load("onnxruntime", style=sys.argv[1]) as engine:
    render = Render(engine, Look(), 1.0, preset="ultrafast", force=True)
    for video in sorted(Path(sys.argv[2]).iterdir()):
        try:
            report = render(video, Path(sys.argv[3]) / "out.mkv", lambda info: VideoProgress())
            print(video.name, report["frames"])
        except (SourceError, SinkError, EngineError) as error:
            print(video.name, "refused:", error)
"""

LOAD = """
import sys
from pathlib import Path
from engines import EngineError, Look, StyleError, load
import numpy as np
for pack in sorted(Path(sys.argv[1]).iterdir()):
    try:
        with load("onnxruntime", style=pack) as engine:
            engine(np.zeros((8, 8, 3), np.uint8), Look())
        print(pack.name, "runs")
    except (StyleError, EngineError) as error:
        print(pack.name, "refused:", error)
"""


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """`content` with a few bytes changed, a part cut out, a part doubled, or its end lost."""
    data = bytearray(content)
    kind = rng.integers(4)
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 400))
    if kind == 0:
        for place in rng.integers(len(data), size=int(rng.integers(1, 30))):
            data[place] = int(rng.integers(256))
    elif kind == 1:
        del data[at : at + length]
    elif kind == 2:
        data[at:at] = data[at : at + length]
    else:
        del data[at:]
    return bytes(data)


def answers(program: str, *arguments: Path) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout.splitlines()


@pytest.mark.parametrize(
    ("suffix", "codec", "audio"),
    [
        ("mp4", "libx264", "aac"),
        ("mkv", "libx264", "libopus"),
        ("ts", "mpeg2video", "mp2"),
        ("avi", "mpeg4", "mp2"),
    ],
)
def test_damaged_videos(tmp_path, suffix, codec, audio):
    tiny_pack(tmp_path / "tiny")
    path = tmp_path / f"whole.{suffix}"
    make_video(path, frames=12, codec=codec, audio_codec=audio, time_base=Fraction(1, 25))
    whole = path.read_bytes()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "painted").mkdir()
    rng = np.random.default_rng(SEED)
    for index in range(ROUNDS):
        (tmp_path / "damaged" / f"{index:03}.{suffix}").write_bytes(mutated(whole, rng))
    lines = answers(RENDER, tmp_path / "tiny", tmp_path / "damaged", tmp_path / "painted")
    assert len(lines) == ROUNDS
    assert any(line.split()[1].isdigit() for line in lines), "some are readable still"
    assert {path.name for path in (tmp_path / "painted").iterdir()} <= {"out.mkv"}
    assert len(list((tmp_path / "damaged").iterdir())) == ROUNDS
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "damaged",
        "painted",
        "tiny",
        f"whole.{suffix}",
    ]


def test_damaged_packs(tmp_path):
    import zipfile

    tiny_pack(tmp_path / "tiny")
    with zipfile.ZipFile(tmp_path / "whole.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (tmp_path / "tiny").iterdir():
            archive.write(file, file.name)
    whole = (tmp_path / "whole.zip").read_bytes()
    model = fast_neural_style()
    (tmp_path / "damaged").mkdir()
    rng = np.random.default_rng(SEED)
    for index in range(ROUNDS):
        (tmp_path / "damaged" / f"{index:03}.zip").write_bytes(mutated(whole, rng))
        (tmp_path / "damaged" / f"{index:03}.onnx").write_bytes(mutated(model, rng))
    lines = answers(LOAD, tmp_path / "damaged")
    assert len(lines) == 2 * ROUNDS
    assert sum("refused" in line for line in lines) > ROUNDS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", "tiny", "whole.zip"]
