"""A real window on a virtual screen, and the screen as a source that sees it."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections import deque
from multiprocessing.shared_memory import SharedMemory

import av
import pytest

from pipeline.errors import SinkError, SourceError
from pipeline.frame import Frame
from pipeline.live import open_sink
from pipeline.sinks.window_process import opened, pressed
from pipeline.sources.live import open_source
from pipeline.sources.pattern import PatternSource, read_code
from tests.packs import tiny_pack
from tests.parts import needs
from tests.test_cli import fauve
from tests.test_live import SIZE, nothing_keeps_running, report, start, until_painted

__all__ = ["nothing_keeps_running"]


@contextlib.contextmanager
def virtual_screen():
    """A screen, by its process and the name of its display."""
    pytest.importorskip("pygame", reason='windows need the extra "live"')
    reading, writing = os.pipe()
    # It says which display it is when it is ready.
    screen = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "320x180x24"],
        stderr=subprocess.DEVNULL,
        pass_fds=[writing],
    )
    os.close(writing)
    with os.fdopen(reading) as said:
        yield screen, f":{said.readline().strip()}"
    screen.kill()
    screen.wait()


@pytest.fixture(scope="module")
def display():
    with virtual_screen() as (_, name):
        yield name


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
    until_painted(show, 10)
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


@needs("Xvfb")
@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("320x180+1+0", "must be all within it"),
        ("400x100", "must be all within it"),
        ("320", "is no part of a screen"),
        ("0x0", "is no part of a screen"),
        ("320x180+", "is no part of a screen"),
    ],
)
def test_a_part_that_no_screen_has_is_one_line(display, monkeypatch, part, words):
    monkeypatch.setenv("DISPLAY", display)
    with pytest.raises(SourceError, match=f"^screen:{re.escape(part)}: .*{words}"):
        open_source(f"screen:{part}")


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


@pytest.fixture
def mortal():
    """A screen that may die."""
    with virtual_screen() as screen:
        yield screen


@needs("Xvfb")
def test_a_display_that_dies_ends_its_windows_and_nothing_else(mortal, monkeypatch, capfd):
    screen, display = mortal
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
    pattern = PatternSource((64, 64))
    windows = [open_sink(name, pattern.info) for name in ("window:", "window:full")]
    frame = Frame(pattern.picture(0), 0, 3000, pattern.info.time_base)
    for window in windows:
        window.write(frame)
    screen.kill()
    screen.wait()
    for window in windows:
        with pytest.raises(
            SinkError,
            match=rf"^{window.name}: the window is gone; its display ended, or failed \(.*{display}.*\)$",
        ):
            # Xlib writes to a dead server until it has looked for an answer.
            deque(map(window.write, [frame] * 100), 0)
        window.abort()
        window.abort()
    assert capfd.readouterr().err == ""


def test_a_window_that_is_stopped_as_it_opens_leaves_no_memory_behind(monkeypatch):
    pytest.importorskip("pygame", reason='windows need the extra "live"')
    names = []

    def stopped(command, **options):
        names.append(command[4])
        raise KeyboardInterrupt

    monkeypatch.setattr("subprocess.Popen", stopped)
    with pytest.raises(KeyboardInterrupt):
        open_sink("window:", PatternSource((64, 64)).info)
    with pytest.raises(FileNotFoundError):
        SharedMemory(names[0])


def test_what_is_called_as_ours_where_fauve_runs_breaks_no_window(tmp_path, monkeypatch):
    pytest.importorskip("pygame", reason='windows need the extra "live"')
    (tmp_path / "pipeline.py").write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pattern = PatternSource((64, 64))
    window = open_sink("window:", pattern.info)
    try:
        window.write(Frame(pattern.picture(0), 0, 3000, pattern.info.time_base))
    finally:
        window.abort()


@pytest.mark.filterwarnings("ignore:no fast renderer")
def test_the_keys_of_a_window(monkeypatch):
    pygame = pytest.importorskip("pygame", reason='windows need the extra "live"')
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    opened(pygame, (64, 64), False, 0)
    try:
        pressed(pygame)
        for key, text in ((pygame.K_UP, ""), (pygame.K_b, "b"), (pygame.K_DOWN, "")):
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key, unicode=text))
        pygame.event.post(pygame.event.Event(pygame.QUIT))
        assert pressed(pygame) == ["up", "b", "down", "q"]
        assert pressed(pygame) == []
    finally:
        pygame.display.quit()


@needs("Xvfb")
def test_displays_are_listed_as_a_window_takes_them(display):
    listed = fauve("devices", env={**os.environ, "DISPLAY": display})
    assert listed.returncode == 0, listed.stderr
    assert "window:full@0  320x180" in listed.stdout
