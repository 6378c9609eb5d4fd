"""A real window on a virtual screen, and the screen as a source that sees it."""

import os
import subprocess
import time

import av
import pytest

from pipeline.sources.pattern import read_code
from tests.packs import tiny_pack
from tests.parts import needs
from tests.test_live import SIZE, nothing_keeps_running, report, start

__all__ = ["nothing_keeps_running"]


@pytest.fixture(scope="module")
def display():
    pytest.importorskip("pygame", reason='windows need the extra "live"')
    name = f":{500 + os.getpid() % 400}"
    screen = subprocess.Popen(["Xvfb", name, "-screen", "0", "320x180x24"], stderr=subprocess.DEVNULL)
    time.sleep(1)
    yield name
    screen.kill()
    screen.wait()


@pytest.fixture
def pack(tmp_path):
    tiny_pack(tmp_path / "tiny")
    return str(tmp_path / "tiny")


@needs("Xvfb")
@pytest.mark.parametrize("window", ["window:full", "window:"])
def test_the_screen_shows_the_window(display, pack, tmp_path, window):
    environment = {**os.environ, "DISPLAY": display, "SDL_VIDEODRIVER": "x11"}
    path = tmp_path / "screen.mkv"
    show = start("test:", *SIZE, "-s", pack, "--strength", "0", "-o", window, "--json", env=environment)
    time.sleep(4)
    filmed, _ = report(
        start(
            "screen:320x180+0+0",
            *["-s", pack, "--strength", "0", "-o", path, "--duration", "5s", "--json"],
            env=environment,
        )
    )
    show.terminate()
    done, _ = report(show)
    assert done["sinks"][window]["frames"] > 10
    with av.open(str(path)) as container:
        numbers = [read_code(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    seen = [number for number in numbers if number is not None]
    assert len(numbers) == filmed["frames"]
    assert len(set(seen)) > 10
    assert seen == sorted(seen)


@needs("Xvfb")
def test_a_display_that_is_not_there_is_one_line(display, pack):
    environment = {**os.environ, "DISPLAY": display, "SDL_VIDEODRIVER": "x11"}
    process = start("test:", *SIZE, "-s", pack, "-o", "window:full@7", env=environment)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "there is no display 7" in err
