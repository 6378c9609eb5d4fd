"""What is turned takes effect between two frames, everybody is told, and the record says when."""

import json
import os
import pickle
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import engines
from engines import Look
from pipeline.controls import Controls
from pipeline.errors import SinkError, SourceError
from pipeline.frame import Frame
from pipeline.progress import VideoProgress
from pipeline.render import Render
from pipeline.replay import ROUNDED, Show, Staged
from pipeline.sources import Source
from tests.packs import tiny_pack
from tests.videos import make_video, read_video

STYLES = ("warm", "cold", "grey")


@pytest.fixture
def controls():
    return Controls("pack", STYLES, Look({"warm": 1}, 0.8), crossfade=2.0)


def mix(controls, time):
    return {name: round(weight, 4) for name, weight in controls.scene_at(Fraction(time)).look.mix.items()}


def test_it_begins_as_it_was_asked_to(controls):
    scene = controls.scene_at(Fraction(0))
    assert dict(scene.look.mix) == {"warm": 1, "cold": 0, "grey": 0}
    assert scene.look.strength == 0.8
    assert (scene.bypass, scene.freeze, scene.blackout) == (False, False, False)


def test_a_style_fades_in_by_the_time_of_the_frames(controls):
    controls.set("style", "cold")
    assert mix(controls, 10) == {"warm": 1, "cold": 0, "grey": 0}
    assert mix(controls, 11) == {"warm": 0.5, "cold": 0.5, "grey": 0}
    assert mix(controls, 12) == {"warm": 0, "cold": 1, "grey": 0}
    assert mix(controls, 13) == {"warm": 0, "cold": 1, "grey": 0}


def test_a_fade_that_is_interrupted_goes_on_from_where_it_is(controls):
    controls.set("style", "cold")
    mix(controls, 0)
    controls.set("style", "grey")
    assert mix(controls, 1) == {"warm": 0.5, "cold": 0.5, "grey": 0}
    assert mix(controls, 2) == {"warm": 0.25, "cold": 0.25, "grey": 0.5}
    assert mix(controls, 3) == {"warm": 0, "cold": 0, "grey": 1}


def test_a_fade_that_is_asked_for_again_and_again_ends_when_it_would_have(controls):
    for tenth in range(25):
        controls.set("style", "cold")
        seen = mix(controls, Fraction(tenth, 10))
        assert seen["cold"] == pytest.approx(min(1, tenth / 20))
    # It may yet be cut short.
    controls.set("style", "grey")
    mix(controls, 3)
    controls.set("crossfade", 0)
    controls.set("style", "grey")
    assert mix(controls, 4) == {"warm": 0, "cold": 0, "grey": 1}


def test_a_share_that_is_turned_while_a_style_fades_in_does_not_cut_it_short(controls):
    controls.set("style", "cold")
    mix(controls, 0)
    controls.set("mix/grey", 0.25)
    assert controls.state["mix"] == {"warm": 0, "cold": 1, "grey": 0.25}
    assert mix(controls, 1) == {"warm": 0.5, "cold": 0.4, "grey": 0.1}
    assert mix(controls, 2) == {"warm": 0, "cold": 1, "grey": 0.25}
    controls.set("mix/grey", 0)
    assert mix(controls, 3) == {"warm": 0, "cold": 1, "grey": 0}


def test_what_is_turned_just_before_another_pack_comes_does_not_stop_the_show(controls):
    controls.set("style", "cold")
    controls.set("mix/cold", 0.5)
    controls.set("strength", 0.25)
    controls.swapped("other", ("red", "blue"), Look({"red": 1}))
    for time in range(4):
        assert mix(controls, time) == {"red": 1, "blue": 0}
    assert controls.scene_at(Fraction(5)).look.strength == 0.25


def test_everybody_is_told_the_last_change_last(controls):
    told, waiting, go = [], threading.Event(), threading.Event()

    def listener(state):
        if state["strength"] == 0.3:
            waiting.set()
            go.wait(0.3)
        told.append(state["strength"])

    controls.listen(listener)
    first = threading.Thread(target=controls.set, args=("strength", 0.3))
    first.start()
    assert waiting.wait(5)
    controls.set("strength", 0.6)
    go.set()
    first.join()
    assert told == [0.3, 0.6]


def test_only_switches_are_turned_over(controls):
    for name in ("strength", "nonsense"):
        with pytest.raises(ValueError, match="no switch"):
            controls.toggle(name)
    assert controls.state["strength"] == 0.8


def test_a_crossfade_that_is_set_after_a_style_is_for_the_next_one_live_and_painted_again(controls, tmp_path):
    path = tmp_path / "show.jsonl"
    controls.record(path)
    mix(controls, 0)
    # In one bundle of OSC: cut, and be slow again.
    for name, value in (("crossfade", 0), ("style", "cold"), ("crossfade", 2)):
        controls.set(name, value)
    assert mix(controls, 1) == {"warm": 0, "cold": 1, "grey": 0}
    controls.set("style", "grey")
    mix(controls, 2)
    assert mix(controls, 3) == {"warm": 0, "cold": 0.5, "grey": 0.5}
    controls.close()
    show = Show(path, STYLES)
    assert dict(show.look_at(Fraction(1)).mix) == {"warm": 0, "cold": 1, "grey": 0}
    assert dict(show.look_at(Fraction(3)).mix) == {"warm": 0, "cold": 0.5, "grey": 0.5}


def test_a_crossfade_of_0_cuts(controls):
    controls.set("crossfade", 0)
    controls.set("style", "grey")
    assert mix(controls, 1) == {"warm": 0, "cold": 0, "grey": 1}


def test_weights_change_at_once_and_never_vanish_altogether(controls):
    controls.set("mix/cold", 0.5)
    assert mix(controls, 1) == {"warm": 1, "cold": 0.5, "grey": 0}
    controls.set("mix/warm", 0)
    controls.set("mix/cold", 0)
    assert sum(mix(controls, 2).values()) > 0


def test_switches_turn_over(controls):
    controls.toggle("panic")
    assert controls.scene_at(Fraction(1)).blackout
    controls.toggle("blackout")
    controls.set("freeze", 1)
    controls.set("bypass", "on")
    scene = controls.scene_at(Fraction(2))
    assert (scene.blackout, scene.freeze, scene.bypass) == (False, True, True)
    controls.set("freeze", "0")
    assert not controls.scene_at(Fraction(3)).freeze


@pytest.mark.parametrize(
    ("value", "on"),
    [(True, True), (1.0, True), ("On", True), ("TRUE", True), (0, False), ("OFF", False), ("False", False)],
)
def test_a_switch_is_said_in_many_ways(controls, value, on):
    controls.set("freeze", not on)
    controls.set("freeze", value)
    assert controls.state["freeze"] is on


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("strength", 1.5, "within 0 and 1"),
        ("strength", "much", "is a number"),
        ("strength", float("nan"), "within"),
        ("crossfade", -1, "within 0 and 60"),
        ("style", "red", "warm, cold, grey"),
        ("mix/red", 0.5, "warm, cold, grey"),
        ("volume", 1, "no control 'volume'.*strength"),
        ("strength", None, "is a number"),
        ("strength", 10**400, "within 0 and 1"),
        ("freeze", "perhaps", "freeze is on or off, not 'perhaps'"),
        ("bypass", [], "bypass is on or off"),
        ("panic", 0.5, "blackout is on or off"),
        ("blackout", None, "blackout is on or off"),
        ("pack", None, "a name or path"),
        ("pack", "a\0b", "a name or path"),
        ("pack", "\ud800", "a name or path"),
    ],
)
def test_what_cannot_be_set_is_said_and_changes_nothing(controls, name, value, message):
    before = controls.state
    with pytest.raises(ValueError, match=message):
        controls.set(name, value)
    assert controls.state == before


def test_everybody_is_told_the_same_state_at_once(controls):
    told = []
    controls.listen(told.append)
    controls.set("strength", 0.3)
    controls.set("style", "cold")
    assert [state["strength"] for state in told] == [0.3, 0.3]
    assert told[-1]["mix"] == {"warm": 0, "cold": 1, "grey": 0}
    assert told[-1] == controls.state


def test_the_record_says_when_each_change_took_effect(tmp_path):
    path = tmp_path / "show.jsonl"
    controls = Controls("pack", STYLES, Look())
    controls.record(path)
    controls.scene_at(Fraction(1, 2))
    controls.set("strength", 0.25)
    controls.set("style", "grey")
    controls.scene_at(Fraction(5, 4))
    controls.close()
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert {"time": 0, "control": "mix/warm", "value": 1} in events
    # Since the first frame.
    assert events[-2:] == [
        {"time": 0.75, "control": "strength", "value": 0.25},
        {"time": 0.75, "control": "style", "value": "grey"},
    ]


def test_a_show_is_painted_again_frame_by_frame_though_the_video_begins_at_another_time(tmp_path):
    path = tmp_path / "show.jsonl"
    controls = Controls("pack", STYLES, Look())
    controls.record(path)
    for number in range(60):
        controls.set("strength", number / 60)
        controls.set("freeze", number == 30)
        # A live run begins a little after its clock, and rounds.
        controls.scene_at(Fraction(round((2.41 + number / 24) * 90_000), 90_000))
    controls.close()
    show = Show(path, STYLES)
    show.begins = Fraction(7, 5)
    times = [show.begins + Fraction(number, 24) for number in range(60)]
    painted = [show.look_at(time).strength for time in times]
    assert painted == [(number - (number == 30)) / 60 for number in range(60)]
    since = show.held_since(times[30])
    assert times[29] < since - ROUNDED < times[30]
    # At another rate, the first frame may come a little before.
    assert show.look_at(show.begins - Fraction(1, 50)).strength == 0


def test_videos_that_are_painted_at_the_same_time_begin_a_show_at_their_own_times(tmp_path):
    path = tmp_path / "show.jsonl"
    path.write_text('{"time": 0.4, "control": "strength", "value": 0}\n')
    style = tiny_pack(tmp_path / "tiny")
    show = Show(path, style.styles)
    late = make_video(tmp_path / "late.mp4", [12_800 + 512 * index for index in range(20)], audio=False)
    with engines.load("onnxruntime", style=style) as engine:
        render = Render(engine, show, codec="ffv1")

        def progress(info):
            # The other video of `--jobs 2` begins while this one is open.
            render(early, tmp_path / "early.mkv", lambda info: VideoProgress())
            return VideoProgress()

        early = make_video(tmp_path / "early.mp4", frames=20, audio=False)
        render(late, tmp_path / "late.mkv", progress)
    for name in ("early", "late"):
        before, after = read_video(tmp_path / f"{name}.mp4"), read_video(tmp_path / f"{name}.mkv")
        pairs = zip(before.images, after.images, strict=True)
        painted = [bool(np.abs(one.astype(int) - other).mean() > 10) for one, other in pairs]
        assert painted == [True] * 10 + [False] * 10


def test_a_show_is_painted_again(tmp_path):
    path = tmp_path / "show.jsonl"
    controls = Controls("pack", STYLES, Look(), crossfade=2.0)
    controls.record(path)
    changes = {10: [("strength", 0.5)], 25: [("style", "grey")], 40: [("bypass", True)], 50: [("bypass", 0)]}
    looks = {}
    for index in range(100):
        for name, value in changes.get(index, []):
            controls.set(name, value)
        scene = controls.scene_at(Fraction(index, 10))
        looks[index] = Look(scene.look.mix, 0.0 if scene.bypass else scene.look.strength)
    controls.close()
    show = pickle.loads(pickle.dumps(Show(path, STYLES)))
    for index in (99, 0, 9, 10, 25, 30, 35, 44, 45, 55, 40, 50):
        again = show.look_at(Fraction(index, 10))
        assert dict(again.mix) == pytest.approx(dict(looks[index].mix)), index
        assert again.strength == looks[index].strength
    with pytest.raises(SourceError, match="not a record of controls"):
        Show(path, ("other",))
    path.write_text("{}")
    with pytest.raises(SourceError, match=r"show\.jsonl"):
        Show(path, STYLES)
    with pytest.raises(SourceError, match="cannot be read"):
        Show(tmp_path / "none", STYLES)


def test_another_pack_keeps_the_weights_of_styles_that_it_has(controls):
    controls.set("mix/cold", 0.5)
    controls.scene_at(Fraction(0))
    controls.swapped("other", ("cold", "new"), Look())
    assert controls.state["pack"] == "other"
    assert mix(controls, 1) == {"cold": 0.5, "new": 0}
    controls.swapped("third", ("red", "green"), Look({"green": 1}))
    assert mix(controls, 2) == {"red": 0, "green": 1}


def test_a_style_that_fades_in_goes_on_doing_so_in_another_pack(controls):
    controls.set("crossfade", 4)
    controls.set("style", "cold")
    assert mix(controls, 0) == {"warm": 1, "cold": 0, "grey": 0}
    controls.swapped("other", ("cold", "new", "warm"), Look())
    assert mix(controls, 1) == {"warm": 0.75, "cold": 0.25, "new": 0}
    # Where it has nothing of what was before, there is nothing to fade from.
    controls.swapped("third", ("cold", "new"), Look())
    assert mix(controls, 2) == {"cold": 1, "new": 0}


def test_a_pack_that_was_asked_for_by_a_style_shows_it_though_all_styles_are_the_same(controls):
    controls.swapped("grey", STYLES, Look({"grey": 1}))
    assert controls.state["pack"] == "grey"
    assert mix(controls, 1) == {"warm": 0, "cold": 0, "grey": 1}
    # As the pack itself, it keeps what is mixed.
    controls.swapped("pack", STYLES, Look())
    assert mix(controls, 2) == {"warm": 0, "cold": 0, "grey": 1}
    # An engine that is loaded again is of no other pack.
    controls.swapped("cold", STYLES, Look({"cold": 1}))
    controls.set("mix/warm", 1)
    controls.scene_at(Fraction(3))
    controls.swapped("cold", STYLES, Look({"cold": 1}))
    assert mix(controls, 4) == {"warm": 1, "cold": 1, "grey": 0}


def test_a_pack_that_is_asked_for_is_played(controls):
    played = []
    controls.play = played.append
    controls.set("pack", "other")
    assert played == []
    controls.scene_at(Fraction(0))
    assert played == ["other"]


def test_the_last_share_cannot_go_and_nobody_is_told_that_it_did(controls):
    told = []
    controls.listen(lambda state: told.append(state["mix"]))
    for value in (0.5, 0.01, 0):
        controls.set("mix/warm", value)
        painted = controls.scene_at(Fraction(1)).look.mix
    assert told[-1] == controls.state["mix"] == painted == {"warm": 0.01, "cold": 0, "grey": 0}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full")
def test_a_full_disk_ends_the_record_and_not_the_show(controls, tmp_path, caplog):
    controls.record(tmp_path / "show.jsonl")
    controls._record.close()
    with Path("/dev/full").open("w") as controls._record:
        controls.set("strength", 0.5)
        assert controls.scene_at(Fraction(1)).look.strength == 0.5
        controls.set("freeze", True)
        assert controls.scene_at(Fraction(2)).freeze
        controls.close()
    assert [record.getMessage() for record in caplog.records] == [
        "/dev/full: the controls are not recorded any more: No space left on device"
    ]


def test_of_a_record_that_a_full_disk_has_cut_off_the_rest_is_painted_again(tmp_path, caplog):
    path = tmp_path / "show.jsonl"
    first = b'{"time": 0, "control": "strength", "value": 0.5}'
    # Within a letter.
    path.write_bytes(first + '\n{"time": 1, "control": "pack", "value": "ö'.encode()[:-1])
    assert Show(path, STYLES).look_at(Fraction(2)).strength == 0.5
    assert caplog.messages == [f"{path}: its last line is cut off, as by a full disk, and left out"]
    path.write_bytes(first[:-1])
    with pytest.raises(SourceError, match="not a record of controls"):
        Show(path, STYLES)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full")
def test_a_disk_that_is_full_at_the_beginning_is_one_line(controls):
    with pytest.raises(SinkError, match="/dev/full: cannot be written: No space"):
        controls.record(Path("/dev/full"), force=True)
    assert os.path.exists("/dev/full")


def test_a_record_whose_name_is_too_long_is_one_line(controls, tmp_path):
    with pytest.raises(SinkError, match=r"xx: cannot be written: File name too long$"):
        controls.record(tmp_path / ("x" * 300))


def test_a_record_that_is_there_is_kept_unless_it_may_be_replaced(controls, tmp_path):
    path = tmp_path / "show.jsonl"
    path.write_text("the first evening")
    with pytest.raises(SinkError, match="there is a file already"):
        controls.record(path)
    assert path.read_text() == "the first evening"
    controls.record(path, force=True)
    controls.close()
    assert json.loads(path.read_text().splitlines()[0]) == {"time": 0, "control": "pack", "value": "pack"}
    with pytest.raises(SinkError, match=r"show\.jsonl: cannot be written: No such"):
        controls.record(tmp_path / "none" / "show.jsonl")


@pytest.mark.parametrize("mix", [{"cold": 1}, {"warm": 0.25, "grey": 0.75}])
def test_a_show_begins_with_the_mix_that_it_began_with(tmp_path, mix):
    path = tmp_path / "show.jsonl"
    controls = Controls("pack", STYLES, Look(mix))
    controls.record(path)
    controls.close()
    assert Show(path, STYLES).look_at(Fraction(0)).mix == controls.scene_at(Fraction(0)).look.mix


def test_a_show_with_two_packs_is_one_line_that_says_so(controls, tmp_path):
    path = tmp_path / "show.jsonl"
    controls.record(path)
    controls.scene_at(Fraction(0))
    controls.set("pack", "misspelt")
    controls.scene_at(Fraction(1))
    Show(path, STYLES)
    controls.set("pack", "other")
    controls.scene_at(Fraction(2))
    controls.swapped("other", ("red",), Look())
    controls.set("style", "red")
    controls.scene_at(Fraction(3))
    controls.close()
    with pytest.raises(SourceError, match=r"show\.jsonl: at 2 s it goes over to the pack other"):
        Show(path, STYLES)


def test_a_show_does_not_begin_again_for_each_frame(controls, tmp_path, monkeypatch):
    path = tmp_path / "show.jsonl"
    controls.record(path)
    for index in range(100):
        controls.set("strength", index / 100)
        controls.set("freeze", 20 <= index < 30)
        controls.scene_at(Fraction(index))
    controls.close()
    show = Show(path, STYLES)
    monkeypatch.setattr(Controls, "replay", None)
    for index in (99, 0, 50, 19, 30):
        assert show.look_at(Fraction(index)).strength == index / 100
    assert show.look_at(Fraction(25)).strength == 0.19
    assert [show.held_since(Fraction(index)) for index in (19, 20, 29, 30)] == [None, 20, 20, None]


def test_a_picture_can_be_held_from_the_beginning(tmp_path):
    path = tmp_path / "show.jsonl"
    events = [("freeze", True, 0), ("strength", 0.5, 1), ("freeze", False, 2)]
    path.write_text(
        "".join(json.dumps({"control": c, "value": v, "time": time}) + "\n" for c, v, time in events)
    )
    show = Show(path, STYLES)
    assert show.holds
    # The first picture is the one that is held.
    assert [show.held_since(Fraction(time)) for time in (0, 1, 2)] == [None, 2 * ROUNDED, None]
    path.write_text("")
    with pytest.raises(SourceError, match="it is empty"):
        Show(path, STYLES)
    path.write_text('{"time": "1/0", "control": "freeze", "value": true}')
    with pytest.raises(SourceError, match="not a record of controls"):
        Show(path, STYLES)


def test_a_held_picture_keeps_its_alpha_and_takes_the_time_of_each_frame(tmp_path):
    path = tmp_path / "show.jsonl"
    path.write_text('{"time": 2, "control": "freeze", "value": true}\n')
    frames = [
        Frame(np.full((2, 2, 3), n, np.uint8), n, 1, Fraction(1), alpha=np.full((2, 2), n, np.uint8))
        for n in range(5)
    ]

    class Few(Source):
        info = None

        def __iter__(self):
            return iter(frames)

        def close(self):
            pass

    staged = list(Staged(Few(), Show(path, STYLES), lambda time: None))
    assert [frame.pts for frame in staged] == [0, 1, 2, 3, 4]
    assert [int(frame.image[0, 0, 0]) for frame in staged] == [0, 1, 1, 1, 1]
    assert [int(frame.alpha[0, 0]) for frame in staged] == [0, 1, 1, 1, 1]
