import threading

import pytest

from pipeline.channel import Cancelled, Channel


def started(target):
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def test_everything_arrives_in_order_and_then_the_end():
    channel = Channel(2)

    def write():
        for number in range(100):
            assert channel.put(number)
        channel.close()

    thread = started(write)
    assert list(channel) == list(range(100))
    thread.join(5)
    assert not thread.is_alive()


def test_a_full_channel_makes_the_writer_wait():
    channel = Channel(2)
    done = []

    def write():
        for number in range(3):
            channel.put(number)
            done.append(number)

    thread = started(write)
    while len(done) < 2:
        thread.join(0.01)
        assert thread.is_alive()
    thread.join(0.2)
    assert done == [0, 1]
    assert next(iter(channel)) == 0
    thread.join(5)
    assert done == [0, 1, 2]


def test_packets_do_not_wait_for_frames_and_keep_their_place():
    channel = Channel(1)
    channel.put("frame")
    for number in range(10):
        assert channel.put_packet(number, 1000)
    channel.close()
    assert list(channel) == ["frame", *range(10)]


def test_packets_are_bounded_by_their_bytes(monkeypatch):
    monkeypatch.setattr("pipeline.channel.PACKETS_LIMIT", 1000)
    channel = Channel(1)
    channel.put_packet("a", 1000)
    thread = started(lambda: channel.put_packet("b", 1))
    thread.join(0.2)
    assert thread.is_alive()
    assert next(iter(channel)) == "a"
    thread.join(5)
    assert not thread.is_alive()


def test_where_the_newest_wins_packets_never_wait(monkeypatch):
    monkeypatch.setattr("pipeline.channel.PACKETS_LIMIT", 1000)
    channel = Channel(1, drop_oldest=True)
    channel.put("frame")
    # Nobody reads, and the source goes on.
    writer = started(lambda: [channel.put_packet(number, 400) for number in range(10)])
    writer.join(5)
    assert not writer.is_alive()
    channel.close()
    assert list(channel) == ["frame", 7, 8, 9]


def test_what_comes_after_the_end_drops_nothing():
    channel = Channel(1, drop_oldest=True)
    channel.put(1)
    channel.close()
    assert not channel.put(2)
    assert channel.dropped == 0
    assert list(channel) == [1]


def test_an_error_comes_after_what_was_before_it():
    channel = Channel(4)
    channel.put(1)
    channel.put(2)
    channel.close(ValueError("broken"))
    items = iter(channel)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="broken"):
        next(items)


def test_cancelling_frees_both_ends():
    channel = Channel(1)
    channel.put(1)
    results = []
    writer = started(lambda: results.append(channel.put(2)))
    writer.join(0.1)
    channel.cancel()
    writer.join(5)
    assert results == [False]
    assert not channel.put_packet(3, 10)
    with pytest.raises(Cancelled):
        next(iter(channel))
