"""A Ray cluster of two nodes on this machine, one of which dies."""

import signal
import subprocess
import time
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from engines import parity
from pipeline.errors import SinkError
from pipeline.farm import Farm, _facts, _take
from pipeline.stats import Stats
from tests.packs import tiny_pack
from tests.test_cli import FAUVE, assert_one_line, fauve
from tests.videos import make_video, read_video

cluster_utils = pytest.importorskip("ray.cluster_utils", reason='needs Ray: pip install "fauve[farm]"')


@pytest.fixture
def cluster():
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield cluster
    cluster.shutdown()


@pytest.fixture
def pack(tmp_path):
    tiny_pack(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_a_machine_that_dies_is_done_without(tmp_path, pack, cluster):
    doomed = cluster.add_node(num_cpus=1)
    video = make_video(tmp_path / "in.mp4", frames=960, size=(320, 180))
    command = ["farm", video, "--style", pack, "--threads", "1", "-f", "--address", cluster.address]
    process = subprocess.Popen(
        [*FAUVE, *map(str, command), "-o", str(tmp_path / "a.mp4")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    parts = tmp_path / ".a.mp4.parts"
    while not list(parts.glob("[0-9]*.json")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    before = len(list(parts.glob("[0-9]*.json")))
    cluster.remove_node(doomed, allow_graceful=False)
    output, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    assert before < 8
    assert "960 frames painted as Tiny" in output
    assert fauve("run", video, "-o", tmp_path / "b.mp4", "--style", pack).returncode == 0
    a, b = read_video(tmp_path / "a.mp4"), read_video(tmp_path / "b.mp4")
    assert a.pts == b.pts
    assert len(a.pts) == 960
    assert all(np.array_equal(x, y) for x, y in zip(a.images, b.images, strict=True))
    assert a.packets == b.packets


def test_machines_that_paint_differently_are_refused(tmp_path, pack, cluster):
    cluster.add_node(num_cpus=1, env_vars={"ONEDNN_MAX_CPU_ISA": "AVX2"})
    video = make_video(tmp_path / "in.mp4", frames=300)
    command = ["farm", video, "-o", tmp_path / "out.mp4", "--style", pack, "--address", cluster.address]
    command += ["--precision", "float32"]
    result = fauve(*command)
    assert_one_line(result, "the machines paint different pictures, --mixed", "limited to AVX2")
    assert not (tmp_path / "out.mp4").exists()
    result = fauve(*command, "--mixed", "--verify")
    assert result.returncode == 0, result.stderr


def test_what_goes_wrong_on_another_machine_is_said(tmp_path, pack, cluster):
    video = make_video(tmp_path / "in.mp4", frames=960, size=(320, 180))
    command = [*FAUVE, "farm", str(video), "-o", str(tmp_path / "out.mp4"), "--style", str(pack)]
    process = subprocess.Popen(
        [*command, "--address", cluster.address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list((tmp_path / ".out.mp4.parts").glob("[0-9]*.json")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    video.unlink()
    output, error = process.communicate(timeout=60)
    assert process.returncode == 2, output
    assert error.splitlines()[-1] == f"fauve: {video}: no such file"


def test_a_machine_tells_what_its_pictures_depend_on(monkeypatch):
    """Whichever distribution its ONNX Runtime is of."""
    versions = {"fauve": "1", "onnxruntime-gpu": "1.30.0"}
    monkeypatch.setattr(parity, "version_of", lambda package: versions.get(package, ""))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    engine = SimpleNamespace(name="onnxruntime:cuda", precision="float16", kernels="fused")
    told = _facts(SimpleNamespace(load=lambda: nullcontext(engine)))
    assert told.startswith("onnxruntime:cuda onnxruntime-gpu 1.30.0 float16 fused, fauve ")
    assert told.endswith(" limited to AVX2")


def test_what_a_machine_counts_is_counted():
    stats = Stats()
    _take(None, stats, [], Stats(encoded=10, damaged=1, cut_short=True), [])
    _take(None, stats, [], Stats(encoded=5), [])
    assert (stats.encoded, stats.damaged, stats.cut_short) == (15, 1, True)


def test_no_cluster_there():
    with pytest.raises(SinkError, match="no Ray cluster answers there"):
        Farm("127.0.0.1:1")


def test_a_cluster_of_its_own_and_ctrl_c(tmp_path, pack):
    video = make_video(tmp_path / "in.mp4", frames=960, size=(320, 180))
    command = [*FAUVE, "farm", str(video), "-o", str(tmp_path / "out.mp4"), "--style", str(pack)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / ".out.mp4.parts").glob("[0-9]*.json")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "--resume goes on from there" in error
    assert error.splitlines()[-1] == "fauve: stopped; no output was written"
    result = fauve(*command[len(FAUVE) :], "--resume", "--verify")
    assert result.returncode == 0, result.stderr
