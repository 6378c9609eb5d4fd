"""What the latency benchmark reads back, and what it makes of it."""

from dataclasses import replace

import pytest

from benchmarks.latency import BARS, RATE, bars, flashes_and_clicks
from pipeline.frame import Frame
from pipeline.sinks.recording import RecordingSink
from pipeline.sources.pattern import TIME_BASE, PatternSource

MET = {
    "nut": {"p50_ms": 45, "p95_ms": 80},
    "rtmp": {"p50_ms": 60},
    "obs": {"p50_ms_at_most": 120},
    "obs-rtmp": {"p50_ms_at_most": 210},
    "load": {
        "alone": {"fps": 30, "heights": [{"height": 392}, {"height": 360}]},
        "searching": {"height": 248},
        "under_load": {"fps": 29, "p95_ms": 90, "heights": [{"height": 248}, {"height": 312}]},
    },
    "controls": {
        "quiet": {"lost": 1, "fps": 30},
        "cuts": {"lost": 1},
        "fades": {"cubism": {"largest_step": 1, "way": 30}},
        "messages": {"sent": 10, "taken": 10, "fps": 29.9},
        "pack": {"lost": 0, "largest_step": 1, "way": 30},
    },
    "restarts": {
        "server": {"worst_s": 1, "painted": 9, "recorded": 9, "recording_dropped": 0, "rising": True}
    },
    "soak": {
        "after_a_minute_mib": 100,
        "at_the_end_mib": 104,
        "uncounted": 0,
        "frames": 9,
        "recorded": 8,
        "recording_dropped": 1,
        "sound_after_picture_ms": {"median": 1, "least": -33, "most": 4},
    },
}


def test_every_bar_is_judged():
    assert bars(MET)["met"] == dict.fromkeys(BARS, True)
    # What was not measured, or has no program here, is not judged.
    assert bars({"nut": MET["nut"], "rtmp": None})["met"] == {"nut": True}


@pytest.mark.parametrize(
    ("part", "change", "missed"),
    [
        ("nut", {"p95_ms": 81}, ["nut"]),
        ("load", {"searching": {"height": 312}}, ["load"]),
        ("load", {"alone": {"fps": 25.4, "heights": [{"height": 392}]}}, ["rate"]),
        ("load", {"alone": {"fps": 30, "heights": [{"height": 312}, {"height": 360}]}}, ["rate"]),
        ("controls", {"cuts": {"lost": 2}}, ["swap"]),
        ("controls", {"messages": {"sent": 10, "taken": 9, "fps": 30}}, ["messages"]),
        ("controls", {"pack": {"lost": 9, "largest_step": 20, "way": 30}}, ["pack", "crossfade"]),
        ("soak", {"at_the_end_mib": 106}, ["memory"]),
        ("soak", {"recording_dropped": 0}, ["drops"]),
        ("soak", {"sound_after_picture_ms": {"median": 1, "least": -41, "most": 4}}, ["sound"]),
    ],
)
def test_what_misses_a_bar(part, change, missed):
    met = bars({**MET, part: {**MET[part], **change}})["met"]
    assert [bar for bar, is_met in met.items() if not is_met] == missed


def test_flash_and_click_are_read_back_from_a_recording(tmp_path):
    source, path = PatternSource((640, 360), sound=True), tmp_path / "show.mkv"
    sink = RecordingSink(path, replace(source.info, live=True))
    for number in range(100):
        pts = round(number / RATE / TIME_BASE)
        # The second flash comes a frame late.
        shown = 40 if number == 30 else number
        sink.write(Frame(source.picture(shown), pts, 3000, TIME_BASE))
        sink.mux(source._sound(number))
    sink.close()
    frames, flashes, clicks = flashes_and_clicks(path)
    assert frames == 100
    assert flashes == pytest.approx([1 + 1 / 30, 2, 3], abs=0.002)
    assert clicks == pytest.approx([0, 1, 2, 3][-len(clicks) :], abs=0.005)
    assert len(clicks) >= 3
