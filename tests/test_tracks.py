"""What travels beside the picture: kept where the container can hold it, named where it cannot."""

import io
import re
import subprocess
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import av
import imageio_ffmpeg
import numpy as np
import pytest
from av.stream import Disposition

from pipeline.frame import Frame
from pipeline.sinks.file import FileSink
from pipeline.sinks.tracks import codecs_of
from pipeline.sources.file import FileSource
from pipeline.verify import differences, read_contents
from tests.videos import copy, make_video, picture, read_video

SRT = """1
00:00:00,100 --> 00:00:00,500
Guten Tag

2
00:00:00,900 --> 00:00:01,400
Auf Wiedersehen
"""


@pytest.fixture
def rich(tmp_path):
    """A Matroska film: two languages, subtitles, a font, chapters, a title."""
    plain = make_video(tmp_path / "plain.mp4", frames=50)
    (tmp_path / "words.srt").write_text(SRT)
    path = tmp_path / "rich.mkv"
    with (
        av.open(str(plain)) as film,
        av.open(str(plain)) as spoken,
        av.open(str(plain)) as dubbed,
        av.open(str(tmp_path / "words.srt")) as words,
        av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as out,
    ):
        out.metadata.update({"title": "Der Film", "ARTIST": "Niemand"})
        pairs = []
        for container, stream, language, disposition in (
            (film, film.streams.video[0], "eng", Disposition.default),
            (spoken, spoken.streams.audio[0], "eng", Disposition.default),
            (dubbed, dubbed.streams.audio[0], "deu", Disposition.dub),
            (words, words.streams.subtitles[0], "deu", Disposition.forced),
        ):
            twin = out.add_stream_from_template(stream)
            twin.metadata["language"] = language
            twin.disposition = disposition
            pairs.append((container, stream, twin))
        out.add_attachment("font.ttf", "font/ttf", b"not really a font")
        out.set_chapters(
            [
                {
                    "id": 1,
                    "start": 0,
                    "end": 1000,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": "Eins"},
                },
                {
                    "id": 2,
                    "start": 1000,
                    "end": 2000,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": "Zwei"},
                },
            ]
        )
        packets = []
        for container, stream, copy in pairs:
            for packet in container.demux(stream):
                if packet.size:
                    packets.append((float(packet.dts * packet.time_base), len(packets), packet, copy))
        for _, _, packet, copy in sorted(packets, key=lambda entry: entry[:2]):
            packet.stream = copy
            out.mux(packet)
    return path


def contents(path):
    """Kind, language, disposition and the packets (time in ms, bytes) of each track."""
    tracks = []
    with av.open(str(path)) as container:
        for stream in container.streams:
            if stream.type == "attachment":
                tracks.append((stream.type, stream.metadata["filename"], stream.data))
                continue
            packets = []
            with av.open(str(path)) as again:
                for packet in again.demux(again.streams[stream.index]):
                    if packet.size and stream.type != "video":
                        packets.append((round(packet.pts * packet.time_base * 1000), bytes(packet)))
            language = stream.metadata.get("language")
            tracks.append((stream.type, language, int(stream.disposition), packets))
        chapters = [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"])
            for c in container.chapters()
        ]
        return tracks, chapters, dict(container.metadata)


def cues_of(path):
    """Codec, language, disposition and the cues (begin and end in ms, text) of each subtitle track."""
    tracks = []
    with av.open(str(path)) as container:
        for stream in container.streams.subtitles:
            cues = []
            with av.open(str(path)) as again:
                for packet in again.demux(again.streams[stream.index]):
                    shown = again.streams[stream.index].codec_context.decode2(packet)
                    if shown is None or not shown.rects:
                        continue
                    begin = round(packet.pts * packet.time_base * 1000)
                    end = begin + round(packet.duration * packet.time_base * 1000)
                    cues.append((begin, end, "|".join(rect.dialogue.decode() for rect in shown.rects)))
            tracks.append(
                (stream.codec_context.name, stream.metadata["language"], int(stream.disposition), cues)
            )
    return tracks


def test_matroska_keeps_everything(tmp_path, rich, caplog):
    copy(rich, tmp_path / "out.mkv")
    before, chapters, _ = contents(rich)
    after, chapters_after, metadata = contents(tmp_path / "out.mkv")
    assert after == before
    assert [track[0] for track in after] == ["video", "audio", "audio", "subtitle", "attachment"]
    assert [len(track[3]) for track in after[1:4]] == [95, 95, 2]
    assert chapters_after == chapters == [(0, 1, "Eins"), (1, 2, "Zwei")]
    assert metadata["title"] == "Der Film"
    assert metadata["ARTIST"] == "Niemand"
    assert read_video(tmp_path / "out.mkv").times == read_video(rich).times
    assert caplog.text == ""


def test_mp4_keeps_what_it_can_and_names_the_rest(tmp_path, rich, caplog):
    copy(rich, tmp_path / "out.mp4")
    before, chapters, _ = contents(rich)
    after, chapters_after, metadata = contents(tmp_path / "out.mp4")
    sounds = [track for track in after if track[0] == "audio"]
    assert [track[1] for track in sounds] == ["eng", "deu"]
    assert [[data for _, data in track[3]] for track in sounds] == [
        [data for _, data in track[3]] for track in before if track[0] == "audio"
    ]
    assert chapters_after == chapters
    assert metadata["title"] == "Der Film"
    assert [(language, cues) for _, language, _, cues in cues_of(tmp_path / "out.mp4")] == [
        ("deu", [(100, 500, "Guten Tag"), (900, 1400, "Auf Wiedersehen")])
    ]
    assert "cannot hold subrip subtitles; track 3 is converted to mov_text" in caplog.text
    assert "cannot hold attachment" in caplog.text
    assert len(caplog.records) == 2


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_chapters_that_are_a_track_stay_and_are_not_called_left_out(tmp_path, rich, suffix, caplog):
    copy(rich, tmp_path / "in.mp4")
    _, chapters, _ = contents(rich)
    with av.open(str(tmp_path / "in.mp4")) as container:
        assert "data" in [stream.type for stream in container.streams], "the track of the chapters"
    caplog.clear()
    copy(tmp_path / "in.mp4", tmp_path / f"out.{suffix}")
    assert contents(tmp_path / f"out.{suffix}")[1] == chapters
    assert "left out" not in caplog.text


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_cover_stays(tmp_path, suffix):
    path = tmp_path / "in.mp4"
    plain = make_video(tmp_path / "plain.mp4", frames=20)
    with av.open(str(plain)) as film, av.open(str(path), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in film.streams}
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 96, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        image = av.VideoFrame.from_ndarray(picture(7), format="rgb24").reformat(format="yuvj420p")
        out.mux(cover.encode(image))
        out.mux(cover.encode(None))
        for packet in film.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    with av.open(str(path)) as container:
        original = next(
            bytes(packet)
            for packet in container.demux()
            if packet.stream.disposition & Disposition.attached_pic
        )
    copy(path, tmp_path / f"out.{suffix}")
    assert read_video(tmp_path / f"out.{suffix}").times == read_video(path).times
    with av.open(str(tmp_path / f"out.{suffix}")) as container:
        covers = [s for s in container.streams.video if s.disposition & Disposition.attached_pic]
        assert len(covers) == 1
        assert next(bytes(p) for p in container.demux(covers[0]) if p.size) == original
        sounds = [p for p in container.demux(container.streams.audio[0]) if p.size]
    assert len(sounds) > 20


def test_a_timecode_goes_on(tmp_path):
    path = make_video(tmp_path / "in.mov", frames=10, audio=False, timecode="01:02:03:04")
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video", "data"]
    copy(path, tmp_path / "out.mov")
    with av.open(str(tmp_path / "out.mov")) as container:
        assert [stream.type for stream in container.streams] == ["video", "data"]
        assert container.streams.video[0].metadata["timecode"] == "01:02:03:04"


def test_sound_whose_time_does_not_rise_is_moved_and_counted(tmp_path, caplog):
    path = make_video(tmp_path / "in.mkv", frames=20)
    with FileSource(path) as source:
        sink = FileSink(tmp_path / "out.mp4", source.info)
        count = 0
        for item in source:
            if isinstance(item, Frame):
                sink.write(item)
            else:
                count += 1
                if count in (5, 6):
                    item.dts -= 50
                    item.pts -= 50
                sink.mux(item)
        sink.close()
    assert "2 packets did not rise in time and were moved" in caplog.text
    assert len(read_video(tmp_path / "out.mp4").packets) == count


def test_subtitles_that_come_at_once_stay_and_one_that_comes_too_early_is_moved(tmp_path, caplog):
    (tmp_path / "words.srt").write_text(SRT)
    path = tmp_path / "in.mkv"
    with av.open(str(tmp_path / "words.srt")) as words, av.open(str(path), "w") as out:
        video = out.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "bgr0"
        twin = out.add_stream_from_template(words.streams.subtitles[0])
        for index in range(25):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(video.encode(frame))
        for index in range(6):
            sign = av.Packet(b"sign %d" % index)
            sign.pts = sign.dts = 400 + 100 * (index == 5)
            sign.duration, sign.time_base, sign.stream = 300, Fraction(1, 1000), twin
            out.mux(sign)
    copy(path, tmp_path / "out.mkv")
    _, (_, _, _, before) = contents(path)[0]
    _, (_, _, _, after) = contents(tmp_path / "out.mkv")[0]
    assert after == before
    assert [time for time, _ in after] == [400] * 5 + [500]
    assert caplog.text == ""
    with FileSource(path) as source:
        sink = FileSink(tmp_path / "moved.mkv", source.info)
        early = 0
        for item in source:
            if isinstance(item, Frame):
                sink.write(item)
            else:
                if item.pts == 500:
                    item.pts = item.dts = 300
                    early += 1
                sink.mux(item)
        sink.close()
    assert early == 1
    assert "1 packets did not rise in time and were moved" in caplog.text
    _, (_, _, _, after) = contents(tmp_path / "moved.mkv")[0]
    assert [time for time, _ in after] == [400] * 6


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm"])
def test_sound_that_ffmpeg_cannot_decode_is_left_out_and_named(tmp_path, suffix, caplog):
    """As the spatial sound of some phones."""
    path = make_video(tmp_path / "in.mov", frames=10, audio_codec="pcm_s16le")
    content = path.read_bytes()
    assert content.count(b"sowt") == 1
    path.write_bytes(content.replace(b"sowt", b"apac"))
    copy(path, tmp_path / f"out.{suffix}")
    assert f"a .{suffix} file cannot hold audio (unknown); track 1 is left out" in caplog.text
    before, after = read_contents(path), read_contents(tmp_path / f"out.{suffix}")
    assert [track.kind for track in before.tracks] == ["audio"]
    assert (len(after.times), after.tracks) == (10, ())
    assert differences(before, after) == []


def heard(path):
    """Layout, samples and the largest step between two frames in samples, of the sound of `path`."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    layout = frames[0].layout.name
    times = [frame.pts * frame.time_base for frame in frames]
    steps = [b - a for a, b in pairwise(times)]
    return layout, sum(frame.samples for frame in frames), float(max(steps))


def test_a_damaged_packet_of_sound_that_is_re_encoded_is_left_out_and_counted(tmp_path, caplog):
    plain, path = make_video(tmp_path / "plain.mp4", frames=50), tmp_path / "in.mkv"
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        twins = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        count = 0
        for packet in source.demux():
            if packet.dts is None:
                continue
            twin = twins[packet.stream_index]
            if packet.stream.type == "audio":
                count += 1
                if count == 20:
                    damaged = av.Packet(b"\xff\x00\x13\x55" * 20)
                    damaged.pts, damaged.dts, damaged.time_base = packet.pts, packet.dts, packet.time_base
                    damaged.duration = packet.duration
                    packet = damaged
            packet.stream = twin
            out.mux(packet)
    copy(path, tmp_path / "out.webm")
    assert "out.webm: track 1: 1 damaged packets of sound were left out" in caplog.text
    layout, samples, step = heard(tmp_path / "out.webm")
    assert layout == "mono"
    assert abs(samples - 93 * 1024) <= 2 * 1024
    assert step < 0.06
    assert read_video(tmp_path / "out.webm").times == read_video(path).times


def test_sound_that_changes_its_channels_is_re_encoded_as_it_began(tmp_path, caplog):
    films = [
        make_video(tmp_path / f"{layout}.ts", frames=50, audio_codec="ac3", layout=layout)
        for layout in ("stereo", "5.1(side)", "mono")
    ]
    path = tmp_path / "in.ts"
    path.write_bytes(b"".join(film.read_bytes() for film in films))
    copy(path, tmp_path / "out.webm")
    layout, samples, step = heard(tmp_path / "out.webm")
    assert layout == "stereo"
    assert abs(samples / 48000 - 6) < 0.15
    assert step < 0.15
    assert len(read_video(tmp_path / "out.webm").times) == 150


@pytest.mark.parametrize(
    ("layout", "after"), [("5.1(side)", "5.1"), ("4.0", "quad"), ("2.1", "3.0"), ("stereo", "stereo")]
)
def test_channels_are_kept_in_a_layout_that_opus_takes(tmp_path, layout, after):
    path = make_video(tmp_path / "in.mkv", frames=25, audio_codec="flac", layout=layout)
    copy(path, tmp_path / "out.webm")
    found, samples, _ = heard(tmp_path / "out.webm")
    assert found == after
    assert abs(samples - 48000) < 3000


def test_a_second_picture_is_named(tmp_path, caplog):
    plain = make_video(tmp_path / "plain.mp4", frames=10, audio=False)
    path = tmp_path / "in.mkv"
    with av.open(str(plain)) as film, av.open(str(path), "w") as out:
        streams = [out.add_stream_from_template(film.streams.video[0]) for _ in range(2)]
        for packet in film.demux(video=0):
            if packet.size:
                for stream in streams:
                    twin = av.Packet(bytes(packet))
                    twin.pts, twin.dts, twin.time_base = packet.pts, packet.dts, packet.time_base
                    twin.is_keyframe = packet.is_keyframe
                    twin.stream = stream
                    out.mux(twin)
    with FileSource(path) as source:
        assert sum(isinstance(item, Frame) for item in source) == 10
    assert "another video track, 1, is left out" in caplog.text


def test_metadata_in_a_broken_encoding_does_not_stop_it(tmp_path):
    path = make_video(tmp_path / "in.mp4", frames=5, metadata={"title": "XXXXXXXX"})
    path.write_bytes(path.read_bytes().replace(b"XXXXXXXX", b"\xff\xfe\xe4\xf6\xc3\x28\x80\x81"))
    copy(path, tmp_path / "out.mp4")
    after = read_video(tmp_path / "out.mp4")
    assert len(after.images) == 5
    assert np.abs(after.images[0].astype(int) - picture(0)).mean() < 4


def film(path, codec, picture="libx264"):
    """A clip with a sound that PyAV cannot encode by itself, made by FFmpeg's program."""
    inputs = ("-f", "lavfi", "-i", "testsrc2=s=96x64:d=0.6", "-f", "lavfi", "-i", "sine=440:r=48000:d=0.6")
    subprocess.run(
        [
            *(imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", *inputs),
            *("-c:v", picture, "-c:a", codec, "-strict", "-2", str(path)),
        ],
        check=True,
    )
    return path


@pytest.mark.parametrize("codec", ["dca", "truehd"])
def test_sound_of_a_blu_ray_is_copied_as_it_is(tmp_path, codec, caplog):
    path = film(tmp_path / "in.mkv", codec)
    copy(path, tmp_path / "out.mkv")
    before, after = read_video(path), read_video(tmp_path / "out.mkv")
    assert [(at, content) for at, *_, content in after.packets] == [
        (at, content) for at, *_, content in before.packets
    ]
    assert len(after.packets) > 5
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("codec", "suffix"), [("truehd", "mp4"), ("truehd", "mov"), ("flac", "mov"), ("libopus", "mov")]
)
def test_sound_that_the_muxer_refuses_is_encoded_anew(tmp_path, codec, suffix, caplog):
    path = film(tmp_path / "in.mkv", codec)
    copy(path, tmp_path / f"out.{suffix}")
    assert "is re-encoded by aac" in caplog.text
    assert differences(read_contents(path), read_contents(tmp_path / f"out.{suffix}")) == []


def test_an_end_that_only_the_sound_of_the_source_tells_is_no_difference(tmp_path):
    path = film(tmp_path / "in.wmv", "wmav2", "wmv2")
    copy(path, tmp_path / "out.mp4")
    assert differences(read_contents(path), read_contents(tmp_path / "out.mp4")) == []


@pytest.mark.parametrize(("rate", "written"), [(192_000, 96_000), (22_254, 22_050)])
def test_sound_of_a_rate_that_the_encoder_has_not_is_brought_to_the_nearest(tmp_path, rate, written):
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        sound = container.add_stream("flac", rate=rate, layout="mono")
        for index in range(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture(index), format="rgb24")))
        for at in range(0, rate, 4000):
            tone = (8000 * np.sin(np.arange(at, at + 4000) * 2 * np.pi * 440 / rate)).astype(np.int16)
            samples = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = rate, at, Fraction(1, rate)
            container.mux(sound.encode(samples))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    copy(path, tmp_path / "out.mov")
    with av.open(str(tmp_path / "out.mov")) as container:
        assert container.streams.audio[0].sample_rate == written
    _, samples, step = heard(tmp_path / "out.mov")
    assert abs(samples - written) <= 4000
    assert step < 0.1
    assert differences(read_contents(path), read_contents(tmp_path / "out.mov")) == []


@pytest.mark.parametrize("codec", ["dvd_subtitle", "hdmv_pgs_subtitle", "dvb_subtitle"])
def test_subtitles_that_are_pictures_stay_in_matroska(codec):
    with av.open(io.BytesIO(), "w", format="matroska") as container:
        assert codec in codecs_of(container)


def test_a_subtitle_that_stays_until_another_comes_goes_into_mp4(tmp_path):
    plain = make_video(tmp_path / "plain.mp4", audio=False)
    path = tmp_path / "in.mkv"
    with av.open(str(plain)) as film, av.open(str(path), "w") as out:
        video = out.add_stream_from_template(film.streams.video[0])
        words = out.add_stream("dvdsub")
        for packet in film.demux(video=0):
            if packet.size:
                packet.stream = video
                out.mux(packet)
        for at in (0, 200):
            sign = av.Packet(bytes(38))
            sign.pts = sign.dts = at
            sign.duration, sign.time_base, sign.stream = (1 << 32) - 1, Fraction(1, 1000), words
            out.mux(sign)
    copy(path, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        signs = [(packet.pts, packet.duration) for packet in container.demux(subtitles=0) if packet.size]
    assert signs == [(0, 200), (200, 1000)]


@pytest.mark.parametrize("codec", ["aac", "mp2", "libmp3lame", "ac3", "flac", "libopus", "pcm_s16le"])
def test_sound_that_it_can_hold_is_copied(tmp_path, codec, caplog):
    path = make_video(tmp_path / "in.mkv", frames=20, audio_codec=codec)
    copy(path, tmp_path / "out.mkv")
    before, after = read_video(path), read_video(tmp_path / "out.mkv")
    assert [packet[3] for packet in after.packets] == [packet[3] for packet in before.packets]
    assert len(after.packets) > 5
    assert caplog.text == ""


@pytest.mark.parametrize(("codec", "layout"), [("pcm_s16le", "stereo"), ("pcm_f32le", "5.1")])
def test_plain_samples_go_into_mp4_whose_source_does_not_name_their_channels(tmp_path, codec, layout, caplog):
    path = make_video(tmp_path / "in.mkv", frames=20, audio_codec=codec, layout=layout)
    copy(path, tmp_path / "out.mp4")
    assert differences(read_contents(path), read_contents(tmp_path / "out.mp4")) == []
    with av.open(str(path)) as before, av.open(str(tmp_path / "out.mp4")) as after:
        assert before.streams.audio[0].layout.name.endswith(" channels")
        sound = after.streams.audio[0]
        assert (sound.codec_context.name, sound.layout.name) == (codec, layout)
    assert caplog.text == ""


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_sound_that_begins_late_is_heard_to_its_end(tmp_path, suffix, caplog):
    film = make_video(tmp_path / "film.mkv", frames=300, size=(32, 32))
    path = tmp_path / "in.mkv"
    with av.open(str(film)) as source, av.open(str(path), "w") as out:
        twins = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size and (packet.stream.type == "video" or packet.pts > 10_000):
                packet.stream = twins[packet.stream_index]
                out.mux(packet)
    # FFmpeg does not look that far, and does not know how long its packets last.
    assert not any(packet[2] for packet in read_video(path).packets)
    copy(path, tmp_path / f"out.{suffix}")
    assert differences(read_contents(path), read_contents(tmp_path / f"out.{suffix}")) == []
    assert caplog.text == ""


def test_a_downmix_becomes_left_and_right_in_mp4(tmp_path, caplog):
    path = make_video(tmp_path / "in.mov", frames=20, audio_codec="pcm_s16le", layout="downmix")
    copy(path, tmp_path / "out.mp4")
    assert differences(read_contents(path), read_contents(tmp_path / "out.mp4")) == []
    with av.open(str(path)) as before, av.open(str(tmp_path / "out.mp4")) as after:
        assert [each.streams.audio[0].layout.name for each in (before, after)] == ["downmix", "stereo"]
    assert caplog.text == ""


def test_more_channels_than_have_names_are_encoded_anew_for_mp4(tmp_path, caplog):
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=48000, layout="10C")
        for index in range(5):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture(index), format="rgb24")))
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 19200), np.int16), format="s16", layout="10C")
            samples.sample_rate, samples.pts = 48000, 1920 * index
            container.mux(sound.encode(samples))
        container.mux(video.encode(None))
    copy(path, tmp_path / "out.mp4")
    assert "track 1 is re-encoded by aac" in caplog.text
    assert len(read_video(tmp_path / "out.mp4").packets) > 5


def test_data_goes_from_broadcast_to_broadcast_and_is_named_elsewhere(tmp_path, caplog):
    path = tmp_path / "drone.ts"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        data = out.add_data_stream("klv")
        for index in range(25):
            frame = av.VideoFrame.from_ndarray(picture(index, width=64, height=48), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(video.encode(frame))
            packet = av.Packet(b"position %05d" % index)
            packet.pts = packet.dts = index * 3600
            packet.time_base, packet.stream = Fraction(1, 90000), data
            out.mux(packet)
        out.mux(video.encode(None))
    copy(path, tmp_path / "out.ts")
    with av.open(str(tmp_path / "out.ts")) as container:
        kinds = {stream.type: getattr(stream, "name", "") for stream in container.streams}
        told = [bytes(packet) for packet in container.demux(data=0) if packet.size]
    assert kinds["data"] == "klv"
    assert told == [b"position %05d" % index for index in range(25)]
    assert differences(read_contents(path), read_contents(tmp_path / "out.ts")) == []
    assert "left out" not in caplog.text
    copy(path, tmp_path / "out.mkv")
    assert "a .mkv file cannot hold data (klv); track 1 is left out" in caplog.text


@pytest.fixture
def subtitled(tmp_path):
    """Makes a film with subtitles of one kind, that overlap, have markup, and end before the film does."""

    def make(kind, suffix):
        plain = make_video(tmp_path / "plain.mp4", frames=75)
        (tmp_path / "words.srt").write_text(
            "1\n00:00:00,100 --> 00:00:00,500\n<i>Grüße</i> aus\nMünchen\n\n"
            "2\n00:00:00,900 --> 00:00:01,400\n一つ & zwei\n"
        )
        path = tmp_path / f"subtitled{suffix}"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", plain, "-i", tmp_path / "words.srt"]
        command += ["-map", "0:v", "-map", "0:a", "-map", "1", "-c", "copy", "-c:s", kind]
        command += ["-metadata:s:s:0", "language=deu", "-disposition:s:0", "forced", path]
        subprocess.run(command, check=True)
        return path

    return make


@pytest.mark.parametrize(
    ("kind", "source", "output", "becomes"),
    [
        ("srt", ".mkv", ".mp4", "mov_text"),
        ("ass", ".mkv", ".mp4", "mov_text"),
        ("webvtt", ".mkv", ".mov", "mov_text"),
        ("webvtt", ".webm", ".mp4", "mov_text"),
        ("mov_text", ".mp4", ".mkv", "srt"),
        ("mov_text", ".mp4", ".webm", "webvtt"),
        ("srt", ".mkv", ".webm", "webvtt"),
    ],
)
def test_subtitles_become_what_the_container_holds(
    tmp_path, subtitled, caplog, kind, source, output, becomes
):
    path = subtitled(kind, source) if source != ".webm" else None
    if path is None:
        # What is in the film has no place in .webm; the subtitles do.
        path = tmp_path / "in.webm"
        copy(subtitled("srt", ".mkv"), path)
        caplog.clear()
    out = tmp_path / f"out{output}"
    copy(path, out)
    ((codec, language, disposition, cues),) = cues_of(out)
    # QuickTime has but one name for a language.
    assert (codec, language) == (becomes, "ger" if output == ".mov" else "deu")
    # .mov has no place for it.
    if output not in (".webm", ".mov"):
        assert disposition & int(Disposition.forced)
    assert [cue[:2] for cue in cues] == [(100, 500), (900, 1400)]
    text = [re.sub(r"</?i>|\{[^}]*\}", "", cue[2]).replace("\\N", "\n") for cue in cues]
    assert text == ["Grüße aus\nMünchen", "一つ & zwei"]
    assert "is converted to" in caplog.text
    assert "subtitle" not in " ".join(differences(read_contents(path), read_contents(out)))
    # Another reader finds the same.
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-copyts",
        "-i",
        out,
        "-map",
        "0:s",
        "-f",
        "srt",
        "-",
    ]
    read = subprocess.run(command, check=True, capture_output=True).stdout.decode()
    assert re.findall(r"\d\d:\d\d:(\S+) --> \d\d:\d\d:(\S+)", read) == [
        ("00,100", "00,500"),
        ("00,900", "01,400"),
    ]


def test_subtitles_that_overlap_are_shown_together_in_mp4(tmp_path):
    plain = make_video(tmp_path / "plain.mp4", frames=75)
    (tmp_path / "words.srt").write_text(
        "1\n00:00:00,100 --> 00:00:01,000\neins\n\n"
        "2\n00:00:00,400 --> 00:00:00,600\nzwei\n\n"
        "3\n00:00:00,600 --> 00:00:02,000\ndrei\n\n"
        "4\n00:00:00,600 --> 00:00:02,000\nvier\n\n"
        "5\n00:00:02,000 --> 00:00:02,500\nfünf\n"
    )
    path = tmp_path / "in.mkv"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", plain, "-i", tmp_path / "words.srt"]
    command += [
        "-map",
        "0",
        "-map",
        "1",
        "-c",
        "copy",
        "-c:s",
        "srt",
        "-metadata:s:s:0",
        "language=deu",
        path,
    ]
    subprocess.run(command, check=True)
    copy(path, tmp_path / "out.mp4")
    ((_, _, _, cues),) = cues_of(tmp_path / "out.mp4")
    assert [(begin, end, text.replace("\\N", "\n")) for begin, end, text in cues] == [
        (100, 400, "eins"),
        (400, 600, "eins\nzwei"),
        (600, 1000, "eins\ndrei\nvier"),
        (1000, 2000, "drei\nvier"),
        (2000, 2500, "fünf"),
    ]
    source, output = read_contents(path), read_contents(tmp_path / "out.mp4")
    assert [found for found in differences(source, output) if "subtitle" in found] == []


def test_a_lost_subtitle_is_found(tmp_path, subtitled):
    path = subtitled("srt", ".mkv")
    copy(path, tmp_path / "out.mp4")
    source, output = read_contents(path), read_contents(tmp_path / "out.mp4")
    track = next(track for track in output.tracks if track.kind == "subtitle")
    shorter = replace(track, times=track.times[:1], digests=track.digests[:1])
    tracks = tuple(shorter if each is track else each for each in output.tracks)
    found = differences(source, replace(output, tracks=tracks))
    assert "subtitle 0: 2 in the source, 1 in the output" in found
