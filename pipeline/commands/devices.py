"""`fauve devices`: what `fauve live` can take and show the picture on, here."""

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pipeline.midi import input_names
from pipeline.sinks.window_process import NOWHERE

ALSA_MICROPHONES = tuple(f"microphone:{name}" for name in ("default", "pulse", "pipewire", "plughw:"))
"""What of ALSA's list somebody may want."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def devices(as_json: bool) -> None:
    """List cameras, screens, microphones, displays, loudspeakers and MIDI inputs by their addresses."""
    found = {
        "cameras": _cameras(),
        "screens": _screens(),
        "microphones": _microphones(),
        "displays": _displays(),
        "virtual cameras": _virtual_cameras(),
        "loudspeakers": _loudspeakers(),
        "MIDI inputs": _midi_inputs(),
    }
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for kind, entries in found.items():
        click.echo(f"{kind}:")
        for entry in entries:
            click.echo(f"    {entry['name']}  {entry['what']}")
        if not entries:
            click.echo("    none")


def _cameras() -> list[dict[str, str]]:
    if sys.platform == "linux":
        return [
            {"name": f"camera:{number}", "what": what}
            for number, what, writes in _video4linux()
            if not writes
        ]
    from pipeline.sources.live import CAMERAS

    return _inputs("camera", CAMERAS, "video")


def _microphones() -> list[dict[str, str]]:
    from pipeline.sources.sound import MICROPHONES, find_alsa

    if sys.platform != "linux":
        return _inputs("microphone", MICROPHONES, "audio")
    # ALSA lists each device many times, and what converts beside them; "plughw" takes any rate.
    found = _inputs("microphone", MICROPHONES, "audio") if find_alsa() else []
    return [each for each in found if each["name"].startswith(ALSA_MICROPHONES)]


def _inputs(address: str, devices: Mapping[str, str], kind: str) -> list[dict[str, str]]:
    """What FFmpeg's device of this platform lists; nothing where it cannot."""
    from pipeline.sources.live import listed

    try:
        found = listed(devices[sys.platform], kind)
    except Exception:  # FFmpeg's own kinds, where it has no such device
        return []
    return [{"name": f"{address}:{name}", "what": what} for name, what in found]


def _loudspeakers() -> list[dict[str, str]]:
    try:
        import sounddevice

        devices: list[Any] = list(sounddevice.query_devices())
    except Exception:  # not installed, without PortAudio, or PortAudio's own kinds
        return []
    names = [each["name"] for each in devices if each["max_output_channels"]]
    return [{"name": f"speaker:{name}", "what": ""} for name in names]


def _video4linux() -> list[tuple[int, str, bool]]:
    """Number and name of each video device, and whether it is one to write to."""
    found = []
    for path in sorted(Path("/sys/class/video4linux").glob("video*")):
        number = re.sub(r"\D", "", path.name)
        what = (path / "name").read_text("utf-8", "replace").strip() if (path / "name").exists() else ""
        # A camera has several devices; only the first has pictures.
        index = (path / "index").read_text().strip() if (path / "index").exists() else "0"
        if index == "0":
            found.append((int(number), what, "virtual" in str(path.resolve())))
    return found


def _screens() -> list[dict[str, str]]:
    if sys.platform != "linux":
        return [{"name": "screen:", "what": "the whole screen"}]
    display = os.environ.get("DISPLAY")
    return [{"name": "screen:", "what": f"X display {display}"}] if display else []


def _displays() -> list[dict[str, str]]:
    # Nowhere there, and SDL's search for one would complain on standard error.
    shown = sys.platform != "linux" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    if not (shown or Path("/dev/dri").exists()):
        return []
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import pygame
    except ImportError:
        return []
    try:
        pygame.display.init()
        sizes = [] if pygame.display.get_driver() in NOWHERE else pygame.display.get_desktop_sizes()
        return [
            {"name": f"window:full@{number}", "what": f"{width}x{height}"}
            for number, (width, height) in enumerate(sizes)
        ]
    except pygame.error:
        return []
    finally:
        pygame.display.quit()


def _virtual_cameras() -> list[dict[str, str]]:
    if sys.platform == "linux":
        return [
            {"name": f"camera:/dev/video{number}", "what": what}
            for number, what, writes in _video4linux()
            if writes
        ]
    return [{"name": "camera:", "what": "OBS Virtual Camera, where OBS is installed"}]


def _midi_inputs() -> list[dict[str, str]]:
    try:
        return [{"name": name, "what": ""} for name in input_names()]
    except Exception:  # not installed, or rtmidi's own kinds where a machine has no sequencer
        return []
