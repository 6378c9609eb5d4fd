"""Batches that other processes draw ahead, and a training on a device that is not this one."""

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from contextlib import nullcontext

import pytest
import tomli_w
import torch

from tests.test_onnx_to_torch import Devices, Elsewhere
from tests.test_train import RECIPE, material  # noqa: F401, a fixture
from training import prefetch
from training.checkpoint import load_checkpoint
from training.cycle import training_of
from training.prefetch import batches, workers_for
from training.stylization import StyleTraining
from training.train import train

EVERYTHING = {
    "smoothness": 0.1,
    "grid": 0.1,
    "colour": 0.1,
    "tone": 0.1,
    "still": 0.1,
    "shading": 0.1,
    "turned": 1.0,
    "temporal_features": 1.0,
    "clip_share": 0.3,
    "distances": (1, 2),
    "augment": True,
    "adversarial": 1.0,
}


def tensors_of(batch):
    found = []
    batch.each(lambda x: found.append(x) or x)
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_whoever_draws_them_batches_are_the_same(material, workers):  # noqa: F811
    training = StyleTraining(dataclasses.replace(RECIPE, **EVERYTHING), material, torch.device("cpu"))
    before = torch.get_rng_state()
    drawn = list(batches(training, 2, 7, workers))
    assert torch.equal(torch.get_rng_state(), before)
    for step, batch in zip(range(2, 8), drawn, strict=True):
        own = training.batch(step)
        assert (batch.views, batch.turned) == (own.views, own.turned)
        assert torch.equal(batch.rng.get_state(), own.rng.get_state())
        for mine, theirs in zip(tensors_of(own), tensors_of(batch), strict=True):
            assert torch.equal(mine, theirs)
            assert mine.stride() == theirs.stride()


def test_a_training_learns_the_same_of_batches_drawn_ahead(material, tmp_path):  # noqa: F811
    recipe = dataclasses.replace(RECIPE, steps=3, augment=True)
    alone, ahead = (
        load_checkpoint(train(recipe, material, run=tmp_path / str(workers), workers=workers))
        for workers in (0, 2)
    )
    assert all(torch.equal(value, ahead["average"][name]) for name, value in alone["average"].items())


def test_a_signal_to_all_its_processes_stops_a_training_after_a_checkpoint(material, tmp_path):  # noqa: F811
    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(tomli_w.dumps(json.loads(json.dumps(RECIPE.changed()))))
    words = ["-m", "training", recipe, "--photos", material.photos, "--paintings", material.paintings]
    words += ["--weights", material.weights, "-o", run, "--workers", 1, "--steps", 9999]
    words += ["--sheet-every", 9999, "--checkpoint-every", 9999]
    command = [sys.executable, *map(str, words)]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True) as training:
        log = run / "losses.jsonl"
        while training.poll() is None and not (log.exists() and log.read_text()):
            time.sleep(0.05)
        os.killpg(training.pid, signal.SIGTERM)
        said = training.communicate()[1]
    step = load_checkpoint(run / "checkpoint.pt")["step"]
    assert said == f"fauve: stopped after step {step} of 9999; --resume goes on\n"
    assert training.returncode == 2
    assert len(log.read_text().splitlines()) == step


def test_no_more_draw_than_shared_memory_has_room_for(material, monkeypatch, caplog):  # noqa: F811
    training = StyleTraining(RECIPE, material, torch.device("cpu"))
    room = 2 * (prefetch.AHEAD + 1) * training.batch(1).nbytes()
    usage = namedtuple("usage", "free")
    for free, processes, fit in ((room, 1, 2), (room // 2, 1, 1), (room // 4, 1, 0), (room, 2, 1)):
        monkeypatch.setattr(prefetch.shutil, "disk_usage", lambda path, free=free: usage(free))
        monkeypatch.setattr(prefetch, "world", lambda processes=processes: processes)
        with caplog.at_level(logging.WARNING, "fauve"):
            assert len(list(batches(training, 1, 2, 3))) == 2
        assert f"{fit} of 3 workers" in caplog.text


def test_the_cpu_draws_for_itself_and_a_gpu_is_drawn_for():
    assert workers_for(torch.device("cpu")) == 0
    assert 0 <= workers_for(torch.device("cuda")) <= prefetch.MOST_WORKERS


@pytest.mark.parametrize("cycle", [0.0, 1.0])
def test_a_training_needs_one_device_alone_and_waits_for_it_once_a_step(material, monkeypatch, cycle):  # noqa: F811
    everything = {name: value for name, value in EVERYTHING.items() if name != "clip_share"}
    recipe = dataclasses.replace(RECIPE, **everything, cycle=cycle, history=1, r1=1.0)
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **options: nullcontext())
    torch.manual_seed(0)
    here = training_of(recipe, material, torch.device("cpu"))
    expected = [here.step(step) for step in (1, 2)]
    torch.manual_seed(0)
    with Devices() as devices:
        there = training_of(recipe, material, torch.device("meta"))
        found = []
        for step in (1, 2):
            devices.copies.clear()
            found.append(there.step(step))
    assert isinstance(there.generator.to_image.weight, Elsewhere)
    for mine, theirs in zip(expected, found, strict=True):
        assert theirs == pytest.approx(mine, rel=1e-3, abs=1e-4)
    # The batch, what each picture that the discriminators see is changed by, and the losses back.
    shown = 3 * (2 if cycle else 1)
    assert len(devices.copies) == len(tensors_of(here.batch(2))) + shown + 1
