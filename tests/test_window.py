"""A real window on a virtual screen, and the screen as a source that sees it."""

import json
import os
import subprocess
import sys
import time

import av
import pytest

from pipeline.sources.pattern import read_code
from tests.packs import tiny_pack
from tests.parts import needs
from tests.test_cli import assert_one_line, fauve
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


@pytest.mark.skipif(sys.platform != "linux", reason="X displays")
def test_a_machine_without_a_display_is_one_line(pack, tmp_path):
    pytest.importorskip("pygame", reason='windows need the extra "live"')
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["XDG_RUNTIME_DIR"] = str(tmp_path)
    result = fauve("live", "test:", *SIZE, "-s", pack, "-o", "window:", "-q", env=environment)
    assert result.returncode == 2
    assert "window:: there is no display here" in result.stderr
    listed = fauve("devices", "--json", env=environment)
    assert json.loads(listed.stdout)["displays"] == []
    assert listed.stderr == ""


@needs("Xvfb")
def test_a_second_window_is_refused_before_anything_is_opened(display, pack, tmp_path):
    path = tmp_path / "show.mkv"
    windows = ["-o", "window:", "-o", "window:full@1"]
    result = fauve(
        "live", "test:", *SIZE, "-s", pack, "-o", path, *windows, env={**os.environ, "DISPLAY": display}
    )
    assert_one_line(result, "one window: at most")
    assert not path.exists()


@needs("Xvfb")
def test_displays_are_listed_as_a_window_takes_them(display):
    listed = fauve("devices", env={**os.environ, "DISPLAY": display})
    assert listed.returncode == 0, listed.stderr
    assert "window:full@0  320x180" in listed.stdout
