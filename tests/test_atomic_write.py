"""A file that is being written: there whole or not at all."""

import os
import threading

import pytest

from engines.atomic_write import atomic_write


def test_it_replaces_what_was_there(tmp_path):
    path = tmp_path / "kept.json"
    for content in (b"before", b"after"):
        atomic_write(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "kept.json"
    atomic_write(path, b"before")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        atomic_write(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_who_reads_meanwhile_sees_one_of_two(tmp_path):
    path = tmp_path / "kept"
    contents = [letter * 100_000 for letter in (b"a", b"b", b"c")]
    atomic_write(path, contents[0])
    writers = [
        threading.Thread(target=lambda own=own: [atomic_write(path, own) for _ in range(20)])
        for own in contents
    ]
    for writer in writers:
        writer.start()
    seen = [path.read_bytes()]
    while any(writer.is_alive() for writer in writers):
        seen.append(path.read_bytes())
    for writer in writers:
        writer.join()
    assert all(content in contents for content in seen)
    assert list(tmp_path.iterdir()) == [path]
