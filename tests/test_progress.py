"""How far a run is, told to people and to machines."""

import json

import pytest

from pipeline import progress
from pipeline.commands.run import _Stoppable
from pipeline.progress import Bar, LinesOfJson, Progress
from pipeline.stats import Stats


def test_lines_for_machines_tell_what_is_counted(capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0)
    lines = LinesOfJson("film.mp4", 300)
    lines.look_through(40)
    lines.show(Stats(before=100, encoded=20))
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told[0] == {"event": "following", "video": "film.mp4", "frame": 40, "frames": 300}
    assert (told[1]["event"], told[1]["frame"], told[1]["frames"]) == ("progress", 120, 300)


def test_one_line_in_a_while(capsys):
    lines = LinesOfJson("film.mp4", 300)
    for frame in range(50):
        lines.look_through(frame)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_bar_begins_anew_when_painting_begins(monkeypatch):
    bars = Progress("bar")._bars
    now = 0.0
    monkeypatch.setattr(bars, "get_time", lambda: now)
    bar = Bar(bars, "film.mp4", 1000)
    (task,) = bars.tasks
    for frame in range(1001):
        now += 0.001
        bar.look_through(frame)
    assert "following" in task.description
    assert task.finished
    for encoded in range(0, 100, 10):
        now += 1.0
        bar.show(Stats(encoded=encoded))
    assert task.description == "film.mp4"
    assert not task.finished
    assert task.completed == 90
    # 10 frames a second, not the 1000 that they were looked at with.
    assert task.time_remaining == pytest.approx(91, abs=5)


def test_who_waits_for_all_stops_looking_through_too():
    class Seen(progress.VideoProgress):
        frames = 0

        def look_through(self, frames):
            self.frames = frames

    seen, stopped = Seen(), False

    def stop_if_asked():
        if stopped:
            raise KeyboardInterrupt

    shown = _Stoppable(seen, stop_if_asked)
    shown.look_through(7)
    assert seen.frames == 7
    stopped = True
    with pytest.raises(KeyboardInterrupt):
        shown.look_through(8)
    assert seen.frames == 7
